//! Sizes that are measured: those of models that people run.

use dovetail_engine::Architecture;

/// The sizes of a model, by its count of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Shape {
    /// 15 million, as the smallest of the TinyStories models.
    #[value(name = "15m")]
    M15,
    /// 110 million, as their largest.
    #[value(name = "110m")]
    M110,
    /// 1.1 billion, as TinyLlama.
    #[value(name = "1.1b")]
    B1,
}

impl Shape {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::M15 => "15m",
            Self::M110 => "110m",
            Self::B1 => "1.1b",
        }
    }

    pub(crate) fn architecture(self) -> Architecture {
        let (dim, hidden_dim, layers, heads, kv_heads, context_tokens) = match self {
            Self::M15 => (288, 768, 6, 6, 6, 512),
            Self::M110 => (768, 2048, 12, 12, 12, 1024),
            Self::B1 => (2048, 5632, 22, 32, 4, 2048),
        };
        Architecture {
            dim,
            hidden_dim,
            layers,
            heads,
            kv_heads,
            head_dim: dim / heads,
            vocabulary: 32_000,
            context_tokens,
            norm_epsilon_q32: 42_950,
            tied_head: false,
            attention_bias: false,
            mixed_down: true,
            turn: 1,
        }
    }
}
