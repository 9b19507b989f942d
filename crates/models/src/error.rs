//! Why a checkpoint is refused.

use std::path::PathBuf;

use dovetail_engine::EngineError;

/// Refusals of a checkpoint, by what its owner can do about them. They name files, tensors and limits.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a clone without Git LFS.
    #[error("{0} is a Git LFS pointer, not the file itself; run `git lfs pull` in the folder")]
    LfsPointer(String),
    /// A checkpoint in a form that is not read, for reasons of safety or effort.
    #[error("the folder has {found} but no {wanted}; {remedy}")]
    OtherForm {
        /// What is there.
        found: &'static str,
        /// What is read.
        wanted: &'static str,
        /// How to get it.
        remedy: &'static str,
    },
    /// A folder around a GGUF file.
    #[error("the folder has no config.json, but {0}; name that file")]
    GgufInFolder(String),
    /// The chat template is not one that can be read.
    #[error("the chat template does not parse (line {0})")]
    Template(usize),
    /// A file is not what its name says, or is cut off.
    #[error("{file} is corrupt: {reason}")]
    Corrupt {
        /// Its name in the folder.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file, or a part of one, is longer than any that is in use.
    #[error("{file} has {bytes} bytes where at most {max} are taken")]
    TooLong {
        /// Its name in the folder.
        file: String,
        /// How long it is, or says it is.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The index names a shard that does not lie in the folder itself.
    #[error("the index names {0:?}, which is no file name of this folder")]
    LeavesFolder(String),
    /// Not a family of models that the engine runs.
    #[error(
        "the architecture {0:?} is none of LlamaForCausalLM, Qwen2ForCausalLM, MistralForCausalLM"
    )]
    Architecture(String),
    /// The feed-forward layers use something other than SiLU.
    #[error("the activation {0:?} is not silu")]
    Activation(String),
    /// A bias that the engine has no place for.
    #[error("{0} is set; only the biases of Qwen2's queries, keys and values are supported")]
    Bias(&'static str),
    /// A way to turn positions into angles that is not known here.
    #[error("rotary positions: {0}")]
    Rope(String),
    /// The weights were quantised already.
    #[error("the checkpoint is quantised; import the one it was made from (F32, F16 or BF16)")]
    Quantised,
    /// Attention is limited to a window that the context does not fit in.
    #[error(
        "attention has a sliding window of {window} tokens; take a context of at most that, not {context}"
    )]
    SlidingWindow {
        /// The window.
        window: usize,
        /// The context asked for.
        context: usize,
    },
    /// Something else in `config.json` that the engine cannot do.
    #[error("config.json: {0}")]
    Config(String),
    /// Nobody named the model.
    #[error(
        "the model has no name: no usable _name_or_path in config.json, or general.name in a GGUF file; give one with --name"
    )]
    NoName,
    /// The context asked for is longer than the model was made for.
    #[error("a context of {context} tokens was asked for; the model has {max}")]
    Context {
        /// Asked for.
        context: usize,
        /// The model's.
        max: usize,
    },
    /// A tensor is missing.
    #[error("the tensor {0} is missing")]
    TensorMissing(String),
    /// A tensor that no supported model has: what it does would be lost.
    #[error("the tensor {0} is not one that a model of this architecture has")]
    TensorExtra(String),
    /// A tensor has another shape than `config.json` says.
    #[error("the tensor {tensor} has the shape {found:?}, not {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// What follows from `config.json`.
        expected: Vec<usize>,
        /// What the file says.
        found: Vec<usize>,
    },
    /// A GGUF file's metadata say what is not supported, or do not fit each other.
    #[error("the file's {key} {reason}")]
    Metadata {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor has a type that is not read.
    #[error(
        "the tensor {tensor} has the type {dtype}; F32, F16 and BF16 are supported, in a GGUF file also Q4_0, \
        Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K"
    )]
    Dtype {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error("the tensor {0} has a weight that is no finite number")]
    NotFinite(String),
    /// A weight is larger than the engine's scales can say.
    #[error("the tensor {0} has a weight that is too large")]
    TooLarge(String),
    /// An adapter that cannot be merged into the checkpoint as it was meant.
    #[error("the adapter {0}")]
    Adapter(String),
    /// The tokenizer does not parse.
    #[error("the tokenizer does not parse: {0}")]
    Tokenizer(String),
    /// The tokenizer has tokens that the model does not.
    #[error("the tokenizer has a token {token}, the model only {vocabulary} tokens")]
    Vocabulary {
        /// The largest token of the tokenizer.
        token: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// Neither `generation_config.json` nor `config.json` names a token that ends an output.
    #[error("no token that ends an output is named (eos_token_id)")]
    NoEndToken,
    /// What the engine says about sizes, names and the finished file.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl ImportError {
    pub(crate) fn corrupt(file: &str, reason: impl ToString) -> Self {
        Self::Corrupt {
            file: file.to_owned(),
            reason: reason.to_string(),
        }
    }
}
