//! GGUF files of the same random weights.

use std::path::Path;

use super::{Recipe, Tensors, VOCABULARY};

/// A value in the metadata.
pub(crate) enum Value {
    Whole(u32),
    Number(f32),
    Text(String),
    Texts(Vec<String>),
    Wholes(Vec<i32>),
}

/// A file's parts, to be changed and written.
pub(crate) struct Gguf {
    pub(crate) version: u32,
    pub(crate) pairs: Vec<(String, Value)>,
    /// Shape with rows first, `ggml_type`, bytes.
    pub(crate) tensors: Vec<(String, Vec<usize>, u32, Vec<u8>)>,
}

impl Gguf {
    /// A recipe's checkpoint as llama.cpp's converter writes it, in F32, or its matrices in Q8_0.
    pub(crate) fn of(recipe: &Recipe, tensors: &Tensors, rounded: bool) -> Self {
        let architecture = match recipe.family {
            "Qwen2ForCausalLM" => "qwen2",
            _ => "llama",
        };
        let mut file = Self {
            version: 3,
            pairs: metadata(recipe, architecture),
            tensors: Vec::new(),
        };
        for (name, (shape, values)) in tensors {
            let mut values = values.clone();
            let turned = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
            if architecture == "llama" && turned {
                values = paired(&values, recipe.head_dim, shape[1]);
            }
            let (kind, bytes) = match rounded && shape.len() == 2 {
                true => (8, q8_0(&values)),
                false => (0, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
            };
            file.tensors
                .push((name_of(name), shape.clone(), kind, bytes));
        }
        file
    }

    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.pairs.retain(|(other, _)| other != key);
        self.pairs.push((key.to_owned(), value));
    }

    /// The whole file, and how long its head is.
    pub(crate) fn bytes(&self) -> (Vec<u8>, usize) {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            text(&mut file, key);
            put(&mut file, value);
        }
        let mut offset = 0_u64;
        for (name, shape, kind, bytes) in &self.tensors {
            text(&mut file, name);
            file.extend((shape.len() as u32).to_le_bytes());
            for length in shape.iter().rev() {
                file.extend((*length as u64).to_le_bytes());
            }
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset = (offset + bytes.len() as u64).next_multiple_of(32);
        }
        let head = file.len();
        for (_, _, _, bytes) in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(bytes);
        }
        (file, head)
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes().0).unwrap();
    }
}

/// All bytes in GPT-2's alphabet, and two control tokens.
fn tokens() -> Vec<String> {
    let plain = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut others = 256..;
    let letters = (0..256).map(|byte| match plain(byte) {
        true => byte,
        false => others.next().unwrap(),
    });
    let letters = letters.map(|letter| char::from_u32(letter).unwrap().to_string());
    let control = ["<|endoftext|>", "<|im_end|>"].map(str::to_owned);
    letters.chain(control).collect()
}

fn metadata(recipe: &Recipe, architecture: &str) -> Vec<(String, Value)> {
    assert_eq!(recipe.vocabulary, VOCABULARY);
    let whole = |n: usize| Value::Whole(u32::try_from(n).unwrap());
    let own = |key: &str, value| (format!("{architecture}.{key}"), value);
    let ggml = |key: &str, value| (format!("tokenizer.ggml.{key}"), value);
    let words = |text: &str| Value::Text(text.to_owned());
    let mut kinds = vec![1; 256];
    kinds.extend([3, 3]);
    vec![
        ("general.architecture".to_owned(), words(architecture)),
        ("general.name".to_owned(), words("random")),
        own("block_count", whole(recipe.layers)),
        own("context_length", Value::Whole(256)),
        own("embedding_length", whole(recipe.dim)),
        own("feed_forward_length", whole(recipe.hidden)),
        own("attention.head_count", whole(recipe.heads)),
        own("attention.head_count_kv", whole(recipe.kv_heads)),
        own("attention.key_length", whole(recipe.head_dim)),
        own("attention.layer_norm_rms_epsilon", Value::Number(1e-5)),
        own("rope.freq_base", Value::Number(10_000.0)),
        ggml("model", words("gpt2")),
        ggml("pre", words("smollm")),
        ggml("tokens", Value::Texts(tokens())),
        ggml("token_type", Value::Wholes(kinds)),
        ggml("merges", Value::Texts(Vec::new())),
        ggml("bos_token_id", Value::Whole(256)),
        ggml("eos_token_id", Value::Whole(257)),
        (
            "tokenizer.chat_template".to_owned(),
            words("{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"),
        ),
    ]
}

fn name_of(name: &str) -> String {
    let parts = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let name = name.to_owned();
    parts
        .iter()
        .fold(name, |name, (theirs, own)| name.replace(theirs, own))
}

/// What `LlamaModel.permute` of llama.cpp's converter does: the rows of a head's halves side by side.
fn paired(values: &[f32], head_dim: usize, columns: usize) -> Vec<f32> {
    let half = head_dim / 2;
    let heads = values.chunks_exact(head_dim * columns);
    let turned = heads.flat_map(|head| {
        let row = move |row: usize| &head[row * columns..][..columns];
        (0..half).flat_map(move |pair| [row(pair), row(pair + half)].concat())
    });
    turned.collect()
}

/// Blocks of a scale and 32 steps. The scale is a power of two, which is exact in 16 bits.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in values.as_chunks::<32>().0 {
        let peak = block
            .iter()
            .fold(0_f32, |peak, value| peak.max(value.abs()));
        let exponent = (peak / 127.0).log2().ceil().clamp(-14.0, 15.0) as i32;
        bytes.extend((((exponent + 15) as u16) << 10).to_le_bytes());
        let steps = block.map(|value| (value / 2_f32.powi(exponent)).round() as i8);
        bytes.extend(steps.map(i8::cast_unsigned));
    }
    bytes
}

fn text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn put(file: &mut Vec<u8>, value: &Value) {
    let list = |file: &mut Vec<u8>, kind: u32, length: usize| {
        file.extend(9_u32.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend((length as u64).to_le_bytes());
    };
    match value {
        Value::Whole(whole) => {
            file.extend(4_u32.to_le_bytes());
            file.extend(whole.to_le_bytes());
        }
        Value::Number(number) => {
            file.extend(6_u32.to_le_bytes());
            file.extend(number.to_le_bytes());
        }
        Value::Text(words) => {
            file.extend(8_u32.to_le_bytes());
            text(file, words);
        }
        Value::Texts(texts) => {
            list(file, 8, texts.len());
            texts.iter().for_each(|words| text(file, words));
        }
        Value::Wholes(wholes) => {
            list(file, 5, wholes.len());
            wholes.iter().for_each(|w| file.extend(w.to_le_bytes()));
        }
    }
}
