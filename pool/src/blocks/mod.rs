//! Blocks: put together from the bytes that were hashed, published, and counted once a node knows them.

mod publish;
mod solved_block;
mod submission;

pub(crate) use publish::{FoundBlock, publish};
pub(crate) use solved_block::{AssemblyError, HeaderFields, SolvedBlock, merkle_path};
pub(crate) use submission::Submission;
