//! Models from elsewhere: imports checkpoints of Hugging Face's layout and GGUF files for the engine, and measures
//! what that costs in quality.
//!
//! What a worker runs is made here once; nothing here runs while it works, so floating point is allowed,
//! but in the importer only operations that every machine rounds alike. The crate knows no Bitcoin, no
//! sockets, and nothing of the network. docs/models.md explains it.

mod adapter;
mod affine;
mod balance;
mod checkpoint;
mod config;
mod encoding;
mod error;
mod folder;
mod gguf;
mod import;
pub mod quality;
mod quantise;
pub mod random;
pub mod reference;
mod rope;
mod rotation;
mod sample;
mod shift;
mod text;

pub use adapter::AdapterReport;
pub use error::ImportError;
pub use gguf::GgufParts;
pub use import::{
    IMPORT_VERSION, ImportOptions, ImportReport, Imported, MatrixError, Progress, import,
};
pub use quality::{Quality, QualityError, Sequence, quality, quality_of};
pub use shift::saturation_notes;
