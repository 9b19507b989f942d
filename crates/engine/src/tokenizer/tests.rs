//! What a stranger's `tokenizer.json` can do: nothing that is not on the list.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tiny;

/// A tokenizer of four tokens, and a fifth that ends an output.
fn small() -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(4, "</s>")],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": { "a": 0, "b": 1, "ab": 2, "▁": 3 }, "merges": ["a b"],
        },
    })
}

const VOCABULARY: usize = 8;
const END: u32 = 4;

fn added(id: u32, content: &str) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true })
}

/// The small tokenizer with other parts in it.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut file = small();
    for (path, value) in changes {
        match file.pointer_mut(path) {
            Some(place) => *place = value.clone(),
            None => {
                let (parent, key) = path.rsplit_once('/').unwrap();
                file.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
    }
    file
}

fn read(file: &Value) -> Result<Tokenizer, EngineError> {
    Tokenizer::from_json(file.to_string().as_bytes(), VOCABULARY, &[END])
}

/// What is said of a tokenizer that is refused.
fn refusal(file: &Value) -> String {
    match read(file) {
        Err(EngineError::Tokenizer(reason)) => reason,
        other => panic!("it is not refused: {other:?}"),
    }
}

#[test]
fn a_known_model_with_another_tokenizer_is_refused_before_the_tokenizer_is_parsed() {
    let parts = crate::Parts {
        tokenizer: Some(small().to_string().into_bytes()),
        end_tokens: vec![END],
        ..tiny::parts(tiny_architecture(), "small", 1).unwrap()
    };
    let honest = parts.to_bytes().unwrap();
    crate::Model::from_bytes(&honest).unwrap();
    // Eight letters that ask the library for 8 GiB, in a file of the same length and the same id.
    let text = small().to_string();
    let hostile = with(&[(
        "/normalizer",
        json!({ "type": "Precompiled", "precompiled_charsmap": "/////w==" }),
    )]);
    let mut hostile = hostile.to_string();
    hostile.truncate(text.len());
    assert_eq!(hostile.len(), text.len());
    let at = honest
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap();
    let mut file = honest;
    file[at..at + text.len()].copy_from_slice(hostile.as_bytes());
    let refused = crate::Model::from_bytes(&file).unwrap_err();
    assert!(
        matches!(
            refused,
            EngineError::Format("the tensors are not those of the manifest")
        ),
        "{refused}"
    );
}

fn tiny_architecture() -> crate::Architecture {
    crate::Architecture {
        dim: 16,
        hidden_dim: 64,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 16,
        vocabulary: VOCABULARY,
        context_tokens: 16,
        norm_epsilon_q32: 42_950,
        tied_head: true,
        attention_bias: false,
        mixed_down: false,
        turn: 1,
    }
}

#[test]
fn a_token_has_one_name_and_a_name_one_token() {
    let twice = "two of its tokens have one number or one name";
    let contradicts = "an added token is empty, repeated, or contradicts the vocabulary";
    let vocab = |vocab: Value| with(&[("/model/vocab", vocab)]);
    let added_tokens = |tokens: Value| with(&[("/added_tokens", tokens)]);
    for (file, reason) in [
        (vocab(json!({ "a": 0, "b": 1, "ab": 2, "STOP": 2 })), twice),
        (added_tokens(json!([added(2, "STOP")])), contradicts),
        (added_tokens(json!([added(5, "ab")])), contradicts),
        (
            added_tokens(json!([added(4, "</s>"), added(4, "<s>")])),
            contradicts,
        ),
        (
            added_tokens(json!([added(4, "</s>"), added(5, "</s>")])),
            contradicts,
        ),
        (added_tokens(json!([added(4, "")])), contradicts),
        (
            added_tokens(json!([added(6, "</s>")])),
            "an added token gets another number than the file says",
        ),
        (
            added_tokens(json!([added(8, "</s>")])),
            "it has more tokens than the model",
        ),
        (
            vocab(json!({ "a": 0, "b": 1, "ab": 8 })),
            "it has more tokens than the model",
        ),
    ] {
        assert_eq!(refusal(&file), reason);
    }
    let text = small().to_string().replace(r#""ab":2"#, r#""ab":2,"ab":3"#);
    let refused = Tokenizer::from_json(text.as_bytes(), VOCABULARY, &[END]).unwrap_err();
    assert!(matches!(refused, EngineError::Tokenizer(reason) if reason == twice));
}

#[test]
fn a_name_as_long_as_a_file_is_refused_before_anything_looks_through_it() {
    let longest = "a".repeat(4 << 10);
    let vocab = |name: &str| with(&[("/model/vocab", json!({ "a": 0, "b": 1, "ab": 2, name: 3 }))]);
    read(&vocab(&longest)).unwrap();
    let reason = "a token has more than 4 KiB";
    let too_long = longest + "a";
    assert_eq!(refusal(&vocab(&too_long)), reason);
    let added_tokens = with(&[("/added_tokens", json!([added(4, &too_long)]))]);
    assert_eq!(refusal(&added_tokens), reason);
}

#[test]
fn what_acts_on_prompts_unseen_is_refused() {
    let template = |single: Value| {
        let token = json!({ "id": "</s>", "ids": [END], "tokens": ["</s>"] });
        json!({ "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": { "</s>": token } })
    };
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    for (path, value, reason) in [
        (
            "/truncation",
            json!({ "max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right" }),
            "it cuts or fills prompts (truncation, padding)",
        ),
        (
            "/padding",
            json!({ "strategy": { "Fixed": 64 } }),
            "it cuts or fills prompts (truncation, padding)",
        ),
        (
            "/model/dropout",
            json!(0.3),
            "it leaves out merges at random (dropout)",
        ),
        (
            "/post_processor",
            template(json!([text, end])),
            "it ends every prompt with a token that ends an output",
        ),
        (
            "/post_processor",
            template(json!([text, text])),
            "it puts a text nowhere or more than once",
        ),
        (
            "/post_processor",
            template(json!([end])),
            "it puts a text nowhere or more than once",
        ),
        (
            "/model/end_of_word_suffix",
            json!("</w>"),
            "its tokens have a prefix or suffix that stands for no text",
        ),
    ] {
        assert_eq!(refusal(&with(&[(path, value)])), reason);
    }
    // In front of a text it may stand, and a dropout of nothing is none.
    let beginning = with(&[
        ("/post_processor", template(json!([end, text]))),
        ("/model/dropout", json!(0.0)),
    ]);
    let tokenizer = read(&beginning).unwrap();
    assert_eq!(tokenizer.encode(b"ab", true).unwrap(), [END, 2]);
    assert_eq!(tokenizer.encode_rendered(b"ab").unwrap(), [2]);
}

#[test]
fn parts_that_nobody_has_looked_at_are_refused_by_their_name() {
    for (path, value, word) in [
        (
            "/normalizer",
            json!({ "type": "Precompiled", "precompiled_charsmap": "AAAAAA==" }),
            "Precompiled",
        ),
        (
            "/normalizer",
            json!({ "type": "BertNormalizer" }),
            "BertNormalizer",
        ),
        (
            "/normalizer",
            json!({ "type": "Replace", "pattern": { "Regex": " +" }, "content": "x" }),
            "regular expression",
        ),
        (
            "/pre_tokenizer",
            json!({ "type": "Split", "pattern": { "Regex": "(a+)+$" }, "behavior": "Isolated", "invert": false }),
            "regular expression that is not known",
        ),
        (
            "/pre_tokenizer",
            json!({ "type": "UnicodeScripts" }),
            "UnicodeScripts",
        ),
        (
            "/post_processor",
            json!({ "type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 1] }),
            "RobertaProcessing",
        ),
        ("/model/type", json!("WordPiece"), "WordPiece"),
        ("/model/junk", json!([[], []]), "junk"),
        ("/junk", json!(1), "junk"),
    ] {
        let reason = refusal(&with(&[(path, value)]));
        assert!(reason.contains(word), "{reason}");
    }
    let named = with(&[("/model/type", json!("x\u{1b}[2J".repeat(100)))]);
    let reason = refusal(&named);
    assert!(
        reason.len() <= 200 && !reason.contains('\u{1b}'),
        "{reason}"
    );
}

#[test]
fn a_text_does_not_grow_without_bound() {
    let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let chain = |parts: Vec<Value>| {
        with(&[(
            "/normalizer",
            json!({ "type": "Sequence", "normalizers": parts }),
        )])
    };
    let tenfold = vec![replace("a", "aaaaaaaa"); 6];
    assert_eq!(
        refusal(&chain(tenfold)),
        "its replacements make a text many times as long"
    );
    assert_eq!(
        refusal(&chain(vec![replace("a", "b"); 9])),
        "it has too many parts"
    );
    // SentencePiece's.
    let spaces = vec![
        json!({ "type": "Prepend", "prepend": "▁" }),
        replace(" ", "▁"),
    ];
    let tokenizer = read(&chain(spaces)).unwrap();
    assert_eq!(tokenizer.encode(b"ab a", false).unwrap(), [3, 2, 3, 0]);
}

#[test]
fn a_name_of_a_control_token_that_is_cut_stays_text() {
    // The library numbers added tokens behind the vocabulary.
    let end = 6;
    let file = with(&[
        ("/model/vocab/<", json!(4)),
        ("/model/vocab/>", json!(5)),
        ("/added_tokens", json!([added(end, "</s>")])),
    ]);
    let tokenizer = Tokenizer::from_json(file.to_string().as_bytes(), VOCABULARY, &[end]).unwrap();
    assert_eq!(tokenizer.control_names().collect::<Vec<_>>(), ["</s>"]);
    let encode = |pieces: &[&str]| tokenizer.encode_rendered_pieces(pieces.iter().copied());
    assert_eq!(encode(&["ab</s>a"]).unwrap(), [2, end, 0]);
    let cut = encode(&["ab</s", ">a"]).unwrap();
    assert!(
        !cut.contains(&end) && cut.starts_with(&[2, 4]) && cut.ends_with(&[5, 0]),
        "{cut:?}"
    );
    // By bytes there are none, and a prompt has one beginning.
    let bytes = Tokenizer::by_bytes().encode_pieces(["a", "b"].into_iter(), true);
    assert_eq!(bytes.unwrap(), [BYTES_BEGIN, 97, 98]);
}

#[test]
fn a_text_that_becomes_a_control_token_without_its_name_is_refused() {
    let mut end = added(END, "</s>");
    end["normalized"] = json!(true);
    let replace = json!({ "type": "Replace", "pattern": { "String": "b" }, "content": "</s>" });
    let tokenizer = read(&with(&[
        ("/added_tokens", json!([end])),
        ("/normalizer", replace),
    ]))
    .unwrap();
    let encode = |text: &'static str| tokenizer.encode_rendered_pieces([text].into_iter());
    // The library does it, so this test is about something.
    assert!(tokenizer.encode(b"b", false).unwrap().contains(&END));
    assert!(matches!(encode("ab"), Err(EngineError::PromptInvalid)));
    assert_eq!(encode("a</s>").unwrap(), [0, END]);
}

#[test]
fn a_library_that_panics_ends_no_thread() {
    assert_eq!(unwinding(|| 1), Some(1));
    let panicking = || -> u32 { panic!("as the library does on an empty trie") };
    assert_eq!(unwinding(panicking), None);
}

#[test]
fn a_long_list_under_an_unknown_key_or_in_a_part_is_not_read() {
    let list = format!("[{}[]]", "[],".repeat(1 << 20));
    let long = small().to_string();
    for key in [r#""model":{"#, r#""decoder":"#] {
        let text = match key {
            r#""decoder":"# => long.replace(r#""decoder":null"#, &format!(r#""decoder":{list}"#)),
            _ => long.replace(key, &format!(r#"{key}"junk":{list},"#)),
        };
        assert!(text.len() > 1 << 20);
        let refused = Tokenizer::from_json(text.as_bytes(), VOCABULARY, &[END]).unwrap_err();
        assert!(matches!(refused, EngineError::Tokenizer(_)), "{refused}");
    }
}

/// A tokenizer of all bytes in GPT-2's alphabet, whose texts are cut in this way.
fn byte_level(pre_tokenizer: &Value, normalizer: &Value) -> Value {
    let letters = (0..=u8::MAX).map(|byte| {
        let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let place = (0..byte).filter(|byte| !printable(byte)).count() as u32;
        let letter = if printable(&byte) {
            u32::from(byte)
        } else {
            256 + place
        };
        (char::from_u32(letter).unwrap().to_string(), json!(byte))
    });
    let vocab: serde_json::Map<String, Value> = letters.collect();
    with(&[
        ("/model/vocab", json!(vocab)),
        ("/model/merges", json!([])),
        ("/added_tokens", json!([])),
        ("/pre_tokenizer", pre_tokenizer.clone()),
        ("/normalizer", normalizer.clone()),
    ])
}

/// How a text of one letter of the world between Latin ones is cut and normalised, for each of them, as one
/// digest: it depends on the Unicode tables of the library, of its regular expressions and of the compiler.
fn digest(file: &Value) -> String {
    let library = tokenizers::Tokenizer::from_bytes(file.to_string()).unwrap();
    let mut digest = [0; 32];
    // The planes with letters, but for the 11,000 syllables of Hangul and most of the Han characters,
    // which are all alike.
    let letters = (0_u32..0x3_4ff)
        .chain(0xa000..0xac10)
        .chain(0xd7a0..0x1_6000)
        .chain(0x1_d000..0x1_fb00);
    for letter in letters.filter_map(char::from_u32) {
        let text = format!("a{letter}1 {letter}{letter}b");
        let mut text = tokenizers::NormalizedString::from(text);
        if let Some(normalizer) = library.get_normalizer() {
            tokenizers::Normalizer::normalize(normalizer, &mut text).unwrap();
        }
        let mut cut = tokenizers::PreTokenizedString::from(text);
        let pre_tokenizer = library.get_pre_tokenizer().unwrap();
        tokenizers::PreTokenizer::pre_tokenize(pre_tokenizer, &mut cut).unwrap();
        let splits = cut.get_splits(
            tokenizers::OffsetReferential::Normalized,
            tokenizers::OffsetType::Byte,
        );
        let cut: Vec<&str> = splits.iter().map(|(piece, _, _)| *piece).collect();
        digest = dovetail_commitment::tagged_hash("digest", &[&digest, cut.join("|").as_bytes()]);
    }
    hex::encode(digest)
}

#[test]
fn golden_digests_of_how_the_letters_of_the_world_are_cut() {
    let byte_level_of = |regex: bool| {
        json!({ "type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": regex })
    };
    let sequence = |first: Value, regex: bool| json!({ "type": "Sequence", "pretokenizers": [first, byte_level_of(regex)] });
    let digits = json!({ "type": "Digits", "individual_digits": true });
    let llama_3 = parts::pattern_of_llama_3();
    let split = json!({ "type": "Split", "pattern": { "Regex": llama_3 }, "behavior": "Isolated",
        "invert": false });
    let nfc = json!({ "type": "NFC" });
    let files = [
        byte_level(&sequence(digits, true), &Value::Null),
        byte_level(&sequence(split.clone(), false), &Value::Null),
        byte_level(&sequence(split, false), &nfc),
    ];
    files.iter().for_each(read_wide);
    // As SmolLM2, Llama 3 and Qwen 2 do it. Where one of them changes, honest workers of two builds disagree.
    let golden = [
        "66f2ad0a77ef3385f8eb7101ede202fe4039f188e64b840f4565cfbaa2f47d73",
        "a9af3d6940c7675ede4bdb47548d18cdfa6b0d55f3dd67375a13837123fb2fbc",
        "2b52d6a963249eee1cb698fffe8acb2621d7fd5bf4ad03e56a1d0c440d56691a",
    ];
    assert_eq!(files.map(|file| digest(&file)), golden);
}

/// It is one that is taken.
fn read_wide(file: &Value) {
    Tokenizer::from_json(file.to_string().as_bytes(), 256, &[0]).unwrap();
}

proptest! {
    #[test]
    fn every_text_survives_the_byte_tokenizer(text: Vec<u8>) {
        let tokenizer = Tokenizer::by_bytes();
        let tokens = tokenizer.encode(&text, true).expect("bytes always encode");
        prop_assert_eq!(tokenizer.decode(&tokens), text);
    }
}
