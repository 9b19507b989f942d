//! Exact integer inference for Llama-family models: the same model, prompt and seed give the same
//! tokens and the same trace on every machine, bit for bit, on any number of threads, beside any
//! other sequences, generated or replayed.
//!
//! No floating point is used between prompt and output. `docs/engine.md` defines every operation;
//! the scalar kernel is its implementation, the others are speed-ups that equal it. The crate knows no
//! Bitcoin and does no I/O but reading and writing models.

#![cfg_attr(not(test), deny(clippy::float_arithmetic))]

mod arith;
mod cache;
mod error;
mod format;
mod forward;
mod generate;
mod head;
mod kernels;
mod matrix;
mod model;
mod prefix;
mod record;
mod runtime;
mod sample;
mod scale;
pub mod speed;
pub mod tiny;
mod tokenizer;

pub use error::EngineError;
pub use format::{Parts, scale_bits, tensor_names};
pub use generate::{
    Claim, Generation, Output, Request, forced_trace, replay, run, step, teacher_forced,
};
pub use head::Head;
pub use kernels::Kernel;
pub use model::{Architecture, Manifest, Model, TokenizerKind};
pub use prefix::Prefixes;
pub use record::TRACE_POSITIONS;
pub use runtime::Runtime;

/// The version of the arithmetic and of the trace. Any change of a bit of output is a new version.
pub const ENGINE_VERSION: u16 = 2;
