//! Blocks: put together from the bytes that were hashed, published, and counted once a node knows them.

mod assembly;
mod found_block;

pub(crate) use assembly::{AssemblyError, HeaderFields, assemble, merkle_path};
pub(crate) use found_block::{publish, resume};
