//! What cannot be imported is refused, each with its own error, before memory is taken for it.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_models::{ImportError, ImportOptions, import};
use serde_json::{Value, json};
use test_support::{Recipe, shard_name, write_index};

fn refusal(folder: &Path) -> ImportError {
    import(folder, &ImportOptions::default(), &mut |_| {}).unwrap_err()
}

/// The refusal of a checkpoint with this in its `config.json`.
fn refusal_of_config(config: Value) -> ImportError {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        config,
        ..Recipe::default()
    };
    recipe.write(folder.path());
    refusal(folder.path())
}

macro_rules! assert_refused {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

#[test]
fn a_configuration_that_the_engine_cannot_follow_is_refused() {
    let config = refusal_of_config;
    assert_refused!(
        config(json!({ "architectures": ["GemmaForCausalLM"] })),
        ImportError::Architecture(name) if name == "GemmaForCausalLM"
    );
    assert_refused!(
        config(json!({ "architectures": null })),
        ImportError::Architecture(_)
    );
    assert_refused!(
        config(json!({ "hidden_act": "gelu" })),
        ImportError::Activation(_)
    );
    assert_refused!(
        config(json!({ "attention_bias": true })),
        ImportError::Bias(_)
    );
    assert_refused!(config(json!({ "mlp_bias": true })), ImportError::Bias(_));
    assert_refused!(
        config(json!({ "rope_scaling": { "rope_type": "yarn", "factor": 4.0 } })),
        ImportError::Rope(_)
    );
    assert_refused!(
        config(json!({ "partial_rotary_factor": 0.5 })),
        ImportError::Rope(_)
    );
    assert_refused!(
        config(json!({ "quantization_config": { "bits": 4 } })),
        ImportError::Quantised
    );
    assert_refused!(
        config(json!({ "layer_types": ["mamba", "mamba"] })),
        ImportError::Config(_)
    );
    assert_refused!(
        config(json!({ "architectures": ["MistralForCausalLM"], "sliding_window": 64 })),
        ImportError::SlidingWindow {
            window: 64,
            context: 256
        }
    );
}

#[test]
fn sizes_are_bounded_before_anything_is_read() {
    for (key, size) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(1_u64 << 40)),
        ("num_hidden_layers", json!(100_000)),
        ("num_attention_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("head_dim", json!(17)),
        ("vocab_size", json!(1 << 30)),
        ("max_position_embeddings", json!(0)),
        ("rms_norm_eps", json!(-1.0)),
    ] {
        let mut config = json!({});
        config[key] = size;
        assert_refused!(refusal_of_config(config), ImportError::Config(_));
    }
    assert_refused!(
        refusal_of_config(json!({ "hidden_size": -1 })),
        ImportError::Corrupt { .. }
    );
    assert_refused!(
        refusal_of_config(json!({ "hidden_size": null })),
        ImportError::Corrupt { .. }
    );
}

#[test]
fn a_context_that_the_model_was_not_made_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    for context in [0, 257, usize::MAX] {
        let options = ImportOptions {
            context_tokens: Some(context),
            ..ImportOptions::default()
        };
        let error = import(folder.path(), &options, &mut |_| {}).unwrap_err();
        assert_refused!(error, ImportError::Context { max: 256, .. });
    }
}

#[test]
fn tensors_must_be_those_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::default();
    recipe.write_config(folder.path());
    let name = "model.layers.1.mlp.up_proj.weight";

    let mut tensors = recipe.tensors();
    tensors.remove(name);
    recipe.write_tensors(folder.path(), &tensors);
    assert_refused!(refusal(folder.path()), ImportError::TensorMissing(tensor) if *tensor == name);

    let mut tensors = recipe.tensors();
    let norm = tensors["model.norm.weight"].clone();
    tensors.insert("model.layers.0.self_attn.q_norm.weight".into(), norm);
    recipe.write_tensors(folder.path(), &tensors);
    assert_refused!(refusal(folder.path()), ImportError::TensorExtra(_));

    let mut tensors = recipe.tensors();
    tensors.get_mut(name).unwrap().0.swap(0, 1);
    recipe.write_tensors(folder.path(), &tensors);
    assert_refused!(refusal(folder.path()), ImportError::Shape { .. });

    for (value, too_large) in [(f32::NAN, false), (f32::INFINITY, false), (1e30, true)] {
        let mut tensors = recipe.tensors();
        tensors.get_mut(name).unwrap().1[7] = value;
        recipe.write_tensors(folder.path(), &tensors);
        if too_large {
            assert_refused!(refusal(folder.path()), ImportError::TooLarge(tensor) if *tensor == name);
        } else {
            assert_refused!(refusal(folder.path()), ImportError::NotFinite(tensor) if *tensor == name);
        }
    }
}

#[test]
fn weights_of_another_type_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let path = folder.path().join("model.safetensors");
    let text = std::fs::read(&path).unwrap();
    // The same bytes under another name of 32 bits.
    let place = text.windows(5).position(|part| part == b"\"F32\"").unwrap();
    let mut changed = text.clone();
    changed[place..place + 5].copy_from_slice(b"\"I32\"");
    std::fs::write(&path, changed).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Dtype { dtype, .. } if *dtype == "I32");
}

#[test]
fn a_file_that_is_cut_off_or_lies_about_its_length_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, 5000, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });
    }
    let longer = [&whole[..], b"0"].concat();
    std::fs::write(&path, longer).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });
    for header_length in [u64::MAX, 1 << 40] {
        let lying = [&header_length.to_le_bytes()[..], &whole[8..]].concat();
        std::fs::write(&path, lying).unwrap();
        assert_refused!(refusal(folder.path()), ImportError::TooLong { .. });
    }
    std::fs::remove_file(&path).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Read { .. });
}

#[test]
fn an_index_reaches_nothing_outside_its_folder_and_must_be_true() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        shards: 2,
        ..Recipe::default()
    };
    recipe.write(folder.path());
    for outside in ["../model.safetensors", "/etc/passwd", "a/b", ".."] {
        write_index(folder.path(), &json!({ "model.norm.weight": outside }));
        assert_refused!(refusal(folder.path()), ImportError::LeavesFolder(name) if *name == outside);
    }
    let both = [shard_name(0), shard_name(1)];
    for shard in &both {
        // The tensor is in one of them, so the index lies about it once.
        write_index(
            folder.path(),
            &json!({ "model.norm.weight": shard, "a": both[0], "b": both[1] }),
        );
        assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });
    }
    let files = (0..600).map(|file| (format!("t{file}"), format!("f{file}").into()));
    write_index(folder.path(), &Value::Object(files.collect()));
    assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });
    std::fs::write(folder.path().join("model.safetensors.index.json"), "{").unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });

    recipe.write(folder.path());
    std::fs::remove_file(folder.path().join(shard_name(1))).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Read { .. });
}

#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        vocabulary: 4,
        ..Recipe::default()
    };
    recipe.write(folder.path());
    let write = |text: &str| std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
    let tokenizer = |last: u32| {
        json!({ "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": null, "truncation": null, "padding": null,
            "model": { "type": "BPE", "vocab": { "a": 0, "b": last }, "merges": [], "unk_token": "a" } })
        .to_string()
    };
    // Without one, only the byte tokenizer's vocabulary is known.
    assert_refused!(refusal(folder.path()), ImportError::Read { .. });
    write("{\"version\":");
    assert_refused!(refusal(folder.path()), ImportError::Tokenizer(_));
    write(&tokenizer(4));
    assert_refused!(
        refusal(folder.path()),
        ImportError::Vocabulary {
            token: 4,
            vocabulary: 4
        }
    );
    write(&tokenizer(3));
    assert_refused!(refusal(folder.path()), ImportError::NoEndToken);
    let generation = folder.path().join("generation_config.json");
    std::fs::write(&generation, r#"{"eos_token_id":[4]}"#).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Engine(_));
    std::fs::write(&generation, r#"{"eos_token_id":[3, 0]}"#).unwrap();
    let imported = import(folder.path(), &ImportOptions::default(), &mut |_| {}).unwrap();
    assert_eq!(imported.parts.end_tokens, [3, 0]);
}

#[test]
fn a_template_that_no_model_file_has_room_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    Recipe::default().write(folder.path());
    let template = folder.path().join("chat_template.jinja");
    std::fs::write(&template, "x".repeat(100_000)).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::TooLong { .. });
    std::fs::write(&template, [0xff]).unwrap();
    assert_refused!(refusal(folder.path()), ImportError::Corrupt { .. });
}
