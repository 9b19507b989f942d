//! Which tensors a model file has: names, types, shapes and order follow from the manifest, and a file that differs in
//! one is refused.

use dovetail_commitment::tagged_hash;
use safetensors::Dtype;

use crate::manifest::Architecture;

/// The largest `tokenizer.json` of a supported model has some 20 MB.
pub(crate) const TOKENIZER_BYTES_MAX: usize = 32 << 20;
/// The name of the tokenizer's file among the tensors.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// The final norm's gains, where they are not part of a head.
pub(crate) const GAINS: &str = "model.norm.gain";

/// One tensor that a file must have.
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Spec {
    pub(crate) fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.dtype.bitsize() == 8 { 1 } else { 4 }
    }
}

/// The names of a model's tensors, in the order in which they are hashed, with their sizes in bytes.
pub fn tensor_names(arch: &Architecture) -> Vec<(String, usize)> {
    let specs = specs(arch).into_iter();
    specs
        .map(|spec| (spec.name.clone(), spec.bytes()))
        .collect()
}

/// All tensors of a model but its tokenizer, in the order in which they are hashed.
pub(crate) fn specs(arch: &Architecture) -> Vec<Spec> {
    let mut specs = Vec::new();
    let mut matrix = |name: &str, rows: usize, columns: usize, bias: bool| {
        let mut spec = |part: &str, dtype, shape| {
            specs.push(Spec {
                name: format!("{name}.{part}"),
                dtype,
                shape,
            });
        };
        spec("weight", Dtype::I8, vec![rows, columns]);
        spec("scale", Dtype::U32, vec![rows]);
        if bias {
            spec("bias", Dtype::I32, vec![rows]);
        }
    };
    let (dim, bias) = (arch.dim, arch.attention_bias);
    matrix("model.embed_tokens", arch.vocabulary, dim, false);
    for layer in 0..arch.layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}_proj");
        matrix(&name("self_attn.q"), arch.query_dim(), dim, bias);
        matrix(&name("self_attn.k"), arch.kv_dim(), dim, bias);
        matrix(&name("self_attn.v"), arch.kv_dim(), dim, bias);
        matrix(&name("self_attn.o"), dim, arch.query_dim(), false);
        matrix(&name("mlp.gate"), arch.hidden_dim, dim, false);
        matrix(&name("mlp.up"), arch.hidden_dim, dim, false);
        matrix(&name("mlp.down"), dim, arch.hidden_dim, false);
    }
    if arch.tied_head {
        specs.push(Spec {
            name: GAINS.to_owned(),
            dtype: Dtype::I32,
            shape: vec![dim],
        });
    } else {
        matrix("lm_head", arch.vocabulary, dim, false);
    }
    for name in ["rotary.cos", "rotary.sin"] {
        specs.push(Spec {
            name: name.to_owned(),
            dtype: Dtype::I32,
            shape: vec![arch.context_tokens, arch.head_dim / 2],
        });
    }
    specs
}

/// One tensor's part of what is hashed.
pub(crate) fn tensor_digest(name: &str, bytes: &[u8]) -> [u8; 32] {
    tagged_hash("dovetail/tensor", &[name.as_bytes(), &[0], bytes])
}
