//! What a checkpoint means to the library that it was made for (transformers) is what is imported; where the
//! two could part, the import says so.
#![allow(clippy::unwrap_used)]

mod test_support;

use std::path::Path;

use dovetail_chat::{Chat, Message, render};
use dovetail_engine::Model;
use dovetail_models::reference::Reference;
use dovetail_models::{ImportError, ImportOptions, Imported, import};
use serde_json::{Value, json};
use test_support::{Recipe, write_safetensors};

fn imported(folder: &Path) -> Imported {
    import(folder, &ImportOptions::default(), &mut |_| {}).unwrap()
}

fn refusal(folder: &Path) -> ImportError {
    import(folder, &ImportOptions::default(), &mut |_| {}).unwrap_err()
}

fn model(imported: &Imported) -> Model {
    Model::from_bytes(&imported.parts.to_bytes().unwrap()).unwrap()
}

/// A checkpoint of eight tokens; 0 begins a text and 1 ends an output.
fn words(folder: &Path, changes: &[(&str, Value)]) {
    let recipe = Recipe {
        vocabulary: 8,
        config: json!({ "eos_token_id": 1 }),
        ..Recipe::default()
    };
    recipe.write(folder);
    let added = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let mut tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<s>"), added(1, "</s>")],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "BPE", "merges": [],
            "vocab": { "<s>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4, "d": 5, "e": 6, "f": 7 } },
    });
    for (key, value) in changes {
        tokenizer[*key] = value.clone();
    }
    let path = folder.join("tokenizer.json");
    std::fs::write(path, tokenizer.to_string()).unwrap();
}

/// A post-processor that puts these tokens before and behind a text.
fn around(before: bool, behind: bool) -> Value {
    let token = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let pieces = [
        before.then(|| token("<s>")),
        Some(text),
        behind.then(|| token("</s>")),
    ];
    let known = |name: &str, id: u32| json!({ "id": name, "ids": [id], "tokens": [name] });
    json!({ "type": "TemplateProcessing", "single": pieces.into_iter().flatten().collect::<Vec<_>>(),
        "pair": [], "special_tokens": { "<s>": known("<s>", 0), "</s>": known("</s>", 1) } })
}

fn write_tokenizer_config(folder: &Path, config: &Value) {
    let path = folder.join("tokenizer_config.json");
    std::fs::write(path, config.to_string()).unwrap();
}

#[test]
fn prompts_are_encoded_whole_whatever_the_tokenizer_was_saved_with() {
    let folder = tempfile::tempdir().unwrap();
    let truncation = json!({ "max_length": 2, "strategy": "LongestFirst", "stride": 0,
        "direction": "Right" });
    let padding = json!({ "strategy": { "Fixed": 64 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 1, "pad_type_id": 0, "pad_token": "</s>" });
    words(
        folder.path(),
        &[("truncation", truncation), ("padding", padding)],
    );
    let imported = imported(folder.path());
    assert_eq!(
        imported.report.notes.len(),
        2,
        "{:?}",
        imported.report.notes
    );
    let model = model(&imported);
    assert_eq!(model.encode(b"abcdef").unwrap(), [2, 3, 4, 5, 6, 7]);
}

#[test]
fn merges_that_are_left_out_at_random_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = json!({ "type": "BPE", "dropout": 0.3, "merges": [], "vocab": { "a": 2 } });
    words(
        folder.path(),
        &[("model", vocabulary), ("added_tokens", json!([]))],
    );
    let refused = refusal(folder.path()).to_string();
    assert!(refused.contains("dropout"), "{refused}");
}

#[test]
fn a_prompt_does_not_end_with_the_token_that_ends_an_output() {
    let folder = tempfile::tempdir().unwrap();
    words(folder.path(), &[("post_processor", around(true, true))]);
    let imported = imported(folder.path());
    assert!(imported.report.notes[0].contains("end token"));
    assert_eq!(model(&imported).encode(b"ab").unwrap(), [0, 2, 3]);
}

#[test]
fn a_rendered_conversation_has_the_tokens_that_its_template_names() {
    let folder = tempfile::tempdir().unwrap();
    words(folder.path(), &[("post_processor", around(true, false))]);
    // One beginning where the template writes it, by name or as text, and none where it does not.
    for (template, tokens) in [
        ("{{ bos_token }}{{ messages[0].content }}", vec![0, 2, 3]),
        ("<s>{{ messages[0].content }}", vec![0, 2, 3]),
        ("{{ messages[0].content }}", vec![2, 3]),
    ] {
        let config = json!({ "chat_template": template, "bos_token": "<s>" });
        write_tokenizer_config(folder.path(), &config);
        let imported = imported(folder.path());
        let messages = [Message::new("user", "ab")];
        let chat = Chat {
            messages: &messages,
            add_generation_prompt: true,
            ..Chat::default()
        };
        let text = render(&imported.parts.chat_template, &chat).unwrap();
        let encoded = model(&imported).encode_rendered(text.as_bytes()).unwrap();
        assert_eq!(encoded, tokens, "{template}");
    }
}

#[test]
fn the_first_line_of_a_template_is_kept_be_it_empty() {
    let folder = tempfile::tempdir().unwrap();
    words(folder.path(), &[]);
    let config = json!({ "chat_template": "\n{{ bos_token }}X", "bos_token": "<s>" });
    write_tokenizer_config(folder.path(), &config);
    let template = imported(folder.path()).parts.chat_template;
    let chat = Chat {
        messages: &[],
        add_generation_prompt: true,
        ..Chat::default()
    };
    assert_eq!(render(&template, &chat).unwrap(), "\n<s>X");
}

#[test]
fn a_template_that_does_not_work_is_told_at_the_import() {
    let folder = tempfile::tempdir().unwrap();
    words(folder.path(), &[]);
    let of = |template: &str| {
        write_tokenizer_config(folder.path(), &json!({ "chat_template": template }));
        import(folder.path(), &ImportOptions::default(), &mut |_| {})
    };
    assert!(matches!(of("a\n{% if %}"), Err(ImportError::Template(2))));
    let noted = of("{{ unknown_function() }}").unwrap().report.notes;
    assert!(
        noted[0].contains("a conversation of one question"),
        "{noted:?}"
    );
    assert!(
        of("{{ messages[0].content }}")
            .unwrap()
            .report
            .notes
            .is_empty()
    );
    let named = json!({ "chat_template": [{ "name": "tools", "template": "x" }] });
    write_tokenizer_config(folder.path(), &named);
    let noted = imported(folder.path()).report.notes;
    assert!(noted[0].contains("plain conversations"), "{noted:?}");
}

#[test]
fn a_turn_that_ends_with_no_end_token_is_told_at_the_import() {
    let folder = tempfile::tempdir().unwrap();
    words(folder.path(), &[]);
    write_tokenizer_config(folder.path(), &json!({ "eos_token": "<s>" }));
    let noted = imported(folder.path()).report.notes;
    assert!(noted[0].contains("\"<s>\""), "{noted:?}");
    write_tokenizer_config(folder.path(), &json!({ "eos_token": "</s>" }));
    assert!(imported(folder.path()).report.notes.is_empty());
    // What counts is what the template writes.
    let template = "{% for m in messages %}{{ m.content + '<s>\n' }}{% endfor %}";
    let config = json!({ "eos_token": "</s>", "chat_template": template });
    write_tokenizer_config(folder.path(), &config);
    let noted = imported(folder.path()).report.notes;
    assert!(noted[0].contains("\"<s>\""), "{noted:?}");
    let template = template.replace("<s>", "</s>");
    let config = json!({ "eos_token": "</s>", "chat_template": template });
    write_tokenizer_config(folder.path(), &config);
    assert!(imported(folder.path()).report.notes.is_empty());
}

#[test]
fn a_head_of_its_own_is_used_although_the_configuration_ties_it() {
    let folder = tempfile::tempdir().unwrap();
    let tied = Recipe {
        tied: true,
        ..Recipe::default()
    };
    tied.write(folder.path());
    let without = imported(folder.path());
    let mut tensors = tied.tensors();
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding.clone());
    let file = folder.path().join("model.safetensors");
    write_safetensors(&file, &tensors, tied.dtype);
    let same = imported(folder.path());
    assert_eq!(same.parts.id().unwrap(), without.parts.id().unwrap());
    assert!(same.report.notes.is_empty());
    // The eighth weight of the first token's row, as what quality is measured against has it.
    let weight = || {
        let mut hidden = vec![0.0; tied.dim];
        hidden[7] = 1.0;
        let reference = Reference::open(folder.path()).unwrap();
        reference.head().unwrap().logits(&hidden)[0]
    };
    let tied_weight = weight();

    let mut other = embedding;
    other.1[7] += 1.0;
    tensors.insert("lm_head.weight".into(), other);
    write_safetensors(&file, &tensors, tied.dtype);
    let own = imported(folder.path());
    assert_ne!(own.parts.id().unwrap(), without.parts.id().unwrap());
    assert!(own.report.notes[0].contains("another head"));
    assert!((weight() - tied_weight - 1.0).abs() < 0.1);
}

#[test]
fn positions_that_are_told_twice_differently_or_in_unknown_words_are_refused() {
    let of = |config: Value| {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            config,
            ..Recipe::default()
        };
        recipe.write(folder.path());
        import(folder.path(), &ImportOptions::default(), &mut |_| {})
    };
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32 });
    for config in [
        json!({ "rope_scaling": llama3, "rope_parameters": { "rope_type": "default" } }),
        json!({ "rope_parameters": { "full_attention": { "rope_type": "yarn", "factor": 4.0 } } }),
    ] {
        assert!(matches!(of(config), Err(ImportError::Rope(_))));
    }
    of(json!({ "rope_scaling": llama3, "rope_parameters": llama3 })).unwrap();
}

#[test]
fn a_window_that_is_left_out_is_the_librarys() {
    let of = |config: Value, context: usize| {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            family: "MistralForCausalLM",
            config,
            ..Recipe::default()
        };
        recipe.write(folder.path());
        let options = ImportOptions {
            context_tokens: Some(context),
            ..ImportOptions::default()
        };
        import(folder.path(), &options, &mut |_| {}).map(drop)
    };
    let long = json!({ "max_position_embeddings": 8192 });
    let refused = of(long.clone(), 8192);
    assert!(matches!(
        refused,
        Err(ImportError::SlidingWindow { window: 4096, .. })
    ));
    of(long, 4096).unwrap();
}

#[test]
fn a_window_that_is_written_as_none_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe {
        family: "MistralForCausalLM",
        config: json!({ "max_position_embeddings": 8192 }),
        ..Recipe::default()
    };
    recipe.write(folder.path());
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["sliding_window"] = Value::Null;
    std::fs::write(&file, config.to_string()).unwrap();
    let options = ImportOptions {
        context_tokens: Some(8192),
        ..ImportOptions::default()
    };
    import(folder.path(), &options, &mut |_| {}).unwrap();
}

#[test]
fn huge_weights_are_refused_and_tiny_ones_told() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = Recipe::default();
    recipe.write(folder.path());
    let file = folder.path().join("model.safetensors");
    let name = "model.layers.0.mlp.up_proj.weight";
    let mut tensors = recipe.tensors();
    let row = &mut tensors.get_mut(name).unwrap().1[..recipe.dim];
    for (place, weight) in row.iter_mut().enumerate() {
        *weight = if place % 2 == 0 { 3e38 } else { -3e38 };
    }
    write_safetensors(&file, &tensors, recipe.dtype);
    assert!(matches!(refusal(folder.path()), ImportError::TooLarge(tensor) if tensor == name));

    let row = &mut tensors.get_mut(name).unwrap().1[..recipe.dim];
    row.iter_mut().for_each(|weight| *weight = 1e-20);
    write_safetensors(&file, &tensors, recipe.dtype);
    let notes = imported(folder.path()).report.notes;
    assert!(notes[0].contains("1 rows are too small"), "{notes:?}");
}

#[test]
fn files_that_are_not_what_they_seem_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    words(folder.path(), &[]);
    for file in ["model.safetensors", "tokenizer.json"] {
        words(folder.path(), &[]);
        std::fs::write(folder.path().join(file), pointer).unwrap();
        assert!(matches!(refusal(folder.path()), ImportError::LfsPointer(named) if named == file));
    }
    words(folder.path(), &[]);
    for (wanted, found) in [
        ("tokenizer.json", "tokenizer.model"),
        ("model.safetensors", "pytorch_model.bin"),
    ] {
        std::fs::remove_file(folder.path().join(wanted)).unwrap();
        std::fs::write(folder.path().join(found), "").unwrap();
        let refused = refusal(folder.path()).to_string();
        assert!(
            refused.contains(wanted) && refused.contains(found),
            "{refused}"
        );
    }
    // Nor is a folder with a GGUF file that file.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.Q8_0.gguf"), "GGUF").unwrap();
    let refused = refusal(folder.path()).to_string();
    assert!(refused.contains("small.Q8_0.gguf"), "{refused}");
}
