//! `config.json`: which model this is, of those that the engine runs. Whatever would change the result
//! and is not understood is refused.

use dovetail_engine::Architecture;
use serde::{Deserialize, Deserializer};

use crate::error::ImportError;
use crate::folder::Folder;
use crate::gguf::Gguf;
use crate::rope::{Rope, RopeFields};

/// `config.json` has some kilobytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// The context that is taken where none is asked for: the tables and a worker's caches grow with it.
const CONTEXT_DEFAULT: usize = 8192;
/// The feed-forward width must be a multiple of this for the engine to mix it.
const MIX_BLOCK: usize = 64;

/// What `config.json` says. Other keys are no concern of inference.
#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(rename = "_name_or_path")]
    name_or_path: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeFields>,
    rope_parameters: Option<RopeFields>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<serde::de::IgnoredAny>,
    #[serde(default, deserialize_with = "written")]
    sliding_window: Option<Option<usize>>,
    #[serde(default)]
    use_sliding_window: Option<bool>,
    layer_types: Option<Vec<String>>,
    eos_token_id: Option<EndTokens>,
}

/// One token or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum EndTokens {
    /// One.
    One(u32),
    /// Several.
    Several(Vec<u32>),
}

impl EndTokens {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(token) => vec![token],
            Self::Several(tokens) => tokens,
        }
    }
}

/// A checkpoint's sizes and rules, understood.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where its makers had it: an address or a folder.
    pub(crate) name_or_path: Option<String>,
    pub(crate) dim: usize,
    pub(crate) hidden_dim: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context_max: usize,
    /// Positions that attention reaches back, where fewer than all.
    pub(crate) window: Option<usize>,
    pub(crate) norm_epsilon: f64,
    pub(crate) tied_head: bool,
    pub(crate) attention_bias: bool,
    pub(crate) rope: Rope,
    pub(crate) end_tokens: Vec<u32>,
}

impl Config {
    /// Reads a checkpoint's configuration.
    pub(crate) fn read(folder: &Folder) -> Result<Self, ImportError> {
        if !folder.has("config.json")
            && let Some(name) = folder.gguf_beside()
        {
            return Err(ImportError::GgufInFolder(name));
        }
        let mut config = Self::parse(&folder.read("config.json", CONFIG_BYTES_MAX)?)?;
        if let Some(divisors) = folder.gguf().map(Gguf::rope_divisors)
            && !divisors.is_empty()
        {
            config.rope.divide(divisors, config.head_dim)?;
        }
        Ok(config)
    }

    /// Parses `config.json`.
    fn parse(json: &[u8]) -> Result<Self, ImportError> {
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|error| ImportError::corrupt("config.json", error))?;
        let family = match raw.architectures.as_deref() {
            Some([family]) => family.as_str(),
            _ => "",
        };
        let (attention_bias, windowed) = match family {
            "LlamaForCausalLM" => (false, false),
            "MistralForCausalLM" => (false, true),
            "Qwen2ForCausalLM" => (true, raw.use_sliding_window == Some(true)),
            other => return Err(ImportError::Architecture(other.to_owned())),
        };
        raw.refuse_what_is_unknown()?;
        let rope = Rope::new(
            raw.rope_theta,
            raw.rope_scaling.as_ref(),
            raw.rope_parameters.as_ref(),
        )?;
        if raw.num_attention_heads == 0 {
            return Err(ImportError::Config("it has no heads".into()));
        }
        let config = Self {
            name_or_path: raw.name_or_path.clone(),
            dim: raw.hidden_size,
            hidden_dim: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim: raw
                .head_dim
                .unwrap_or(raw.hidden_size / raw.num_attention_heads),
            vocabulary: raw.vocab_size,
            context_max: raw.max_position_embeddings,
            window: raw.window(family).filter(|_| windowed),
            norm_epsilon: raw.rms_norm_eps,
            tied_head: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias,
            rope,
            end_tokens: raw.eos_token_id.map_or_else(Vec::new, EndTokens::into_vec),
        };
        config.check_sizes()?;
        Ok(config)
    }

    /// Bounds that keep every later product and allocation small enough to be made; the engine's own
    /// bounds are checked with its own code once the model is put together.
    fn check_sizes(&self) -> Result<(), ImportError> {
        let sizes = [
            ("hidden_size", self.dim, 16_384),
            ("intermediate_size", self.hidden_dim, 32_768),
            ("num_hidden_layers", self.layers, 128),
            ("num_attention_heads", self.heads, 256),
            ("num_key_value_heads", self.kv_heads, 256),
            ("head_dim", self.head_dim, 256),
            ("vocab_size", self.vocabulary, 1 << 18),
        ];
        for (name, size, max) in sizes {
            if !(1..=max).contains(&size) {
                return Err(ImportError::Config(format!(
                    "{name} is {size}; the engine takes 1 to {max}"
                )));
            }
        }
        if self.context_max == 0 {
            return Err(ImportError::Config("max_position_embeddings is 0".into()));
        }
        if !self.heads.is_multiple_of(self.kv_heads) || !self.head_dim.is_multiple_of(2) {
            return Err(ImportError::Config(
                "the heads do not fit each other, or their width is odd".into(),
            ));
        }
        if self.query_dim() > 32_768 {
            return Err(ImportError::Config(
                "all heads together are wider than 32768".into(),
            ));
        }
        if !(0.0..0.5).contains(&self.norm_epsilon) {
            return Err(ImportError::Config("rms_norm_eps is out of bounds".into()));
        }
        Ok(())
    }

    pub(crate) fn query_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    pub(crate) fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The name that was given, or the last part of what the file calls the model.
    pub(crate) fn name(&self, given: Option<&str>) -> Result<String, ImportError> {
        if let Some(name) = given {
            return Ok(name.to_owned());
        }
        let path = self.name_or_path.as_deref().unwrap_or_default();
        let mut parts = path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']);
        let name = parts.next().unwrap_or_default();
        let is_name = !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
        let name = is_name.then(|| name.to_owned());
        name.ok_or(ImportError::NoName)
    }

    /// The context to import: what is asked for, or a default.
    pub(crate) fn context(&self, asked: Option<usize>) -> Result<usize, ImportError> {
        let context = asked.unwrap_or(self.context_max.min(CONTEXT_DEFAULT));
        if !(1..=self.context_max.min(1 << 17)).contains(&context) {
            return Err(ImportError::Context {
                context,
                max: self.context_max.min(1 << 17),
            });
        }
        match self.window {
            Some(window) if window < context => Err(ImportError::SlidingWindow { window, context }),
            _ => Ok(context),
        }
    }

    /// The engine's sizes. `residual_scale` is what the residual stream is multiplied by.
    pub(crate) fn architecture(
        &self,
        context_tokens: usize,
        residual_scale: f64,
        mixed: bool,
    ) -> Architecture {
        let epsilon = self.norm_epsilon * residual_scale * residual_scale * 4_294_967_296.0;
        Architecture {
            dim: self.dim,
            hidden_dim: self.hidden_dim,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocabulary: self.vocabulary,
            context_tokens,
            // Below 2^31 by the check above.
            norm_epsilon_q32: epsilon.round() as u32,
            tied_head: self.tied_head,
            attention_bias: self.attention_bias,
            mixed_down: mixed && self.hidden_dim.is_multiple_of(MIX_BLOCK),
            turn: 1,
        }
    }
}

/// What a key says where it is written at all, be it null.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Raw {
    /// Where the key is left out, Hugging Face's library has a default for Mistral.
    fn window(&self, family: &str) -> Option<usize> {
        let default = (family == "MistralForCausalLM").then_some(4096);
        self.sliding_window.unwrap_or(default)
    }

    fn refuse_what_is_unknown(&self) -> Result<(), ImportError> {
        if self.quantization_config.is_some() {
            return Err(ImportError::Quantised);
        }
        if self.hidden_act != "silu" {
            return Err(ImportError::Activation(self.hidden_act.clone()));
        }
        if self.mlp_bias == Some(true) {
            return Err(ImportError::Bias("mlp_bias"));
        }
        // Llama's attention_bias is one of the output projection too.
        if self.attention_bias == Some(true) {
            return Err(ImportError::Bias("attention_bias"));
        }
        if self
            .partial_rotary_factor
            .is_some_and(|factor| factor != 1.0)
        {
            return Err(ImportError::Rope("only a part of each head turns".into()));
        }
        let full = |kind: &String| kind == "full_attention" || kind == "sliding_attention";
        if let Some(kind) = self.layer_types.iter().flatten().find(|kind| !full(kind)) {
            return Err(ImportError::Config(format!("layers of the type {kind:?}")));
        }
        Ok(())
    }
}
