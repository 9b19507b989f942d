//! Exact integer inference for Llama-family models: the same model, prompt and seed give the same
//! tokens and the same trace on every machine, bit for bit, on any number of threads, beside any
//! other sequences, generated or replayed.
//!
//! No floating point is used between prompt and output. `docs/engine.md` defines every operation;
//! the scalar kernel is its implementation, the others are speed-ups that equal it. The crate knows no
//! Bitcoin and does no I/O but reading and writing models.

#![cfg_attr(not(test), deny(clippy::float_arithmetic))]

mod arith;
mod attention;
mod cache;
mod completion;
mod error;
mod factor;
mod forward;
mod generation;
mod guides;
mod head;
mod kernels;
mod layout;
mod manifest;
mod matrix;
mod model;
mod parts;
mod prefix;
mod range;
mod reader;
mod record;
mod replay;
mod runtime;
mod sample;
mod scale;
pub mod speed;
mod tied;
pub mod tiny;
mod tokenizer;
mod turn;
mod vocabulary;

pub use completion::{Output, Request};
pub use dovetail_guide::GuideError;
pub use error::EngineError;
pub use generation::{Generation, run, step};
pub use head::Head;
pub use kernels::Kernel;
pub use layout::tensor_names;
pub use manifest::{Architecture, Manifest, TokenizerKind};
pub use model::Model;
pub use parts::Parts;
pub use prefix::Prefixes;
pub use range::{Range, Ranges, Stored};
pub use record::TRACE_POSITIONS;
pub use replay::{ReplayInput, forced_trace, measure_ranges, replay, teacher_forced};
pub use runtime::Runtime;
pub use scale::scale_bits;
pub use tokenizer::check_tokenizer;
pub use turn::Turn;
pub use vocabulary::Vocabulary;

/// The version of the arithmetic and of the trace. Any change of a bit of output is a new version.
pub const ENGINE_VERSION: u16 = 3;
