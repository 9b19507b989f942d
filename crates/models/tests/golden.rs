//! The reference says what PyTorch says: logits that `golden/pytorch.py` computed from the same checkpoints.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dovetail_models::reference::Reference;
use test_support::{Random, Recipe, recipes};

const VOCABULARY: usize = 61;
/// Past the length that the scaled positions were made for.
const TOKENS: usize = 48;

/// Each recipe with a name for its folder, and its text.
fn cases() -> Vec<(String, Recipe, Vec<u32>)> {
    let case = |(name, recipe): (&str, Recipe)| {
        let name = name.replace([' ', ','], "-").replace("--", "-");
        let recipe = Recipe {
            vocabulary: VOCABULARY,
            ..recipe
        };
        (name, recipe, Random::new(9).tokens(TOKENS, VOCABULARY))
    };
    recipes().into_iter().map(case).collect()
}

/// Logits of a text's last positions, by the name of the folder.
type Golden = BTreeMap<String, Vec<Vec<f32>>>;

/// Runs the reference and holds it against PyTorch's logits.
fn compare(name: &str, folder: &Path, tokens: Vec<u32>, golden: &Golden) {
    let reference = Reference::open(folder).unwrap();
    let hidden = reference.hidden(&[tokens], &mut |_| {}).unwrap();
    let logits = reference.head().unwrap().logits(&hidden[0]);
    let golden = golden[name].concat();
    let ours = &logits[logits.len() - golden.len()..];
    let largest = golden
        .iter()
        .fold(0_f32, |most, logit| most.max(logit.abs()));
    let pairs = ours.iter().zip(&golden);
    let apart = pairs.fold(0_f32, |most, (a, b)| most.max((a - b).abs()));
    eprintln!("{name}: {apart:e} apart, of {largest}");
    assert!(apart < 2e-5 * largest, "{name}: {apart} of {largest}");
}

#[test]
fn the_reference_says_what_pytorch_says() {
    let golden: Golden = serde_json::from_str(include_str!("golden/logits.json")).unwrap();
    assert_eq!(golden.len(), cases().len());
    for (name, recipe, tokens) in cases() {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        compare(&name, folder.path(), tokens, &golden);
    }
}

#[test]
#[ignore = "holds any checkpoint against what golden/pytorch.py printed for DOVETAIL_GOLDEN_DIR"]
fn other_checkpoints_say_what_pytorch_says() {
    let variable = |name| PathBuf::from(std::env::var_os(name).unwrap());
    let golden = std::fs::read(variable("DOVETAIL_GOLDEN_LOGITS")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    for name in golden.keys() {
        let folder = variable("DOVETAIL_GOLDEN_DIR").join(name);
        let tokens = std::fs::read(folder.join("tokens.json")).unwrap();
        compare(
            name,
            &folder,
            serde_json::from_slice(&tokens).unwrap(),
            &golden,
        );
    }
}

#[test]
#[ignore = "writes the checkpoints for golden/pytorch.py"]
fn write_the_checkpoints_for_pytorch() {
    let out = PathBuf::from(std::env::var_os("DOVETAIL_GOLDEN_DIR").unwrap());
    for (name, recipe, tokens) in cases() {
        let folder = out.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        recipe.write(&folder);
        let tokens = serde_json::to_string(&tokens).unwrap();
        std::fs::write(folder.join("tokens.json"), tokens).unwrap();
    }
}
