//! Exact integer inference for Llama-family models: the same model, prompt and seed give the same
//! tokens and the same trace on every machine, bit for bit.
//!
//! No floating point is used between prompt and output. `docs/engine.md` defines every operation;
//! this crate is its scalar implementation. It knows no Bitcoin and does no I/O but reading a model.

#![cfg_attr(not(test), deny(clippy::float_arithmetic))]

mod arith;
mod error;
mod format;
mod forward;
mod generate;
mod matrix;
mod model;
mod sample;
pub mod tiny;
mod tokenizer;

pub use error::EngineError;
pub use generate::{Generation, Output, Request, TRACE_POSITIONS, replay, run};
pub use model::{Architecture, Manifest, Model};

/// The version of the arithmetic and of the trace. Any change of a bit of output is a new version.
pub const ENGINE_VERSION: u16 = 1;
