//! Imported checkpoints run like the originals, and the same everywhere.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_engine::{Model, Runtime};
use dovetail_models::random::{self, Sizes};
use dovetail_models::{ImportOptions, Imported, Quality, Sequence, import, quality};
use test_support::{Random, Recipe, recipes};

fn imported(folder: &Path, options: &ImportOptions) -> Imported {
    import(folder, options, &mut |_| {}).unwrap()
}

fn model(imported: &Imported) -> Model {
    Model::from_bytes(&imported.parts.to_bytes().unwrap()).unwrap()
}

/// Imports and measures over some sequences of random tokens.
fn measure(recipe: &Recipe, options: &ImportOptions) -> Quality {
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    let model = model(&imported(folder.path(), options));
    let mut random = Random::new(7);
    let sequences: Vec<_> = (0..6)
        .map(|_| Sequence {
            tokens: random.tokens(96, recipe.vocabulary),
            counted_from: 1,
        })
        .collect();
    let runtime = Runtime::new(1).unwrap();
    quality(folder.path(), &runtime, &model, &sequences).unwrap()
}

#[test]
fn imported_models_say_what_the_originals_say() {
    for (name, recipe) in recipes() {
        let quality = measure(&recipe, &ImportOptions::default());
        eprintln!("{name}: {quality:?}");
        assert_eq!(quality.positions, 6 * 95, "{name}");
        assert!(quality.correlation > 0.999, "{name}: {quality:?}");
        assert!(quality.top1_agreement > 0.93, "{name}: {quality:?}");
        assert!(quality.perplexity_ratio() < 1.01, "{name}: {quality:?}");
    }
}

#[test]
fn spreading_outliers_brings_back_what_int8_loses() {
    let plain = ImportOptions {
        spread_outliers: false,
        ..ImportOptions::default()
    };
    for (name, recipe) in recipes() {
        let with = measure(&recipe, &ImportOptions::default());
        let without = measure(&recipe, &plain);
        eprintln!("{name}:\n  {without:?}\n  {with:?}");
        if recipe.outliers > 1.0 {
            assert!(
                with.divergence_nats < without.divergence_nats,
                "{name}: {without:?} {with:?}"
            );
        }
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes_however_it_is_cut_and_counted() {
    let whole = Recipe {
        tied: true,
        ..Recipe::default()
    };
    let cut = Recipe {
        shards: 4,
        ..whole.clone()
    };
    let [whole, cut] = [whole, cut].map(|recipe| {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let options = ImportOptions {
            name: Some("one".into()),
            context_tokens: Some(40),
            ..ImportOptions::default()
        };
        let mut seen = Vec::new();
        let imported = import(folder.path(), &options, &mut |p| {
            seen.push((p.done, p.total))
        });
        let total = seen.len();
        assert!(seen.iter().enumerate().all(|(i, p)| *p == (i + 1, total)));
        imported.unwrap()
    });
    assert_eq!(whole.report, cut.report);
    let bytes = whole.parts.to_bytes().unwrap();
    assert_eq!(bytes, cut.parts.to_bytes().unwrap());
    let model = Model::from_bytes(&bytes).unwrap();
    assert_eq!(model.id(), whole.parts.id().unwrap());
    assert_eq!((model.name(), model.context_tokens()), ("one", 40));
}

#[test]
fn random_checkpoints_of_real_shapes_keep_what_they_say_because_outliers_are_spread() {
    let sizes = Sizes {
        dim: 128,
        hidden_dim: 320,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        vocabulary: 500,
        tied_head: true,
    };
    let folder = tempfile::tempdir().unwrap();
    random::write(folder.path(), &sizes, 1).unwrap();
    let [with, without] = [true, false].map(|spread_outliers| {
        let options = ImportOptions {
            spread_outliers,
            ..ImportOptions::default()
        };
        let model = model(&imported(folder.path(), &options));
        let sequences = [Sequence {
            tokens: Random::new(7).tokens(200, sizes.vocabulary),
            counted_from: 1,
        }];
        quality(folder.path(), &Runtime::new(1).unwrap(), &model, &sequences).unwrap()
    });
    eprintln!("{with:?}\n{without:?}");
    assert!(
        with.correlation > 0.999 && with.top1_agreement > 0.9,
        "{with:?}"
    );
    assert!(
        with.divergence_nats < without.divergence_nats / 4.0,
        "{with:?} {without:?}"
    );
}

#[test]
fn the_report_names_each_matrix_and_what_it_lost() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let report = imported(folder.path(), &ImportOptions::default()).report;
    // Embedding, head, seven matrices in each of two layers.
    assert_eq!(report.matrices.len(), 16);
    for matrix in &report.matrices {
        // Uniform errors of half a step against rows whose peak is some three deviations.
        assert!((0.002..0.01).contains(&matrix.error), "{matrix:?}");
    }
}
