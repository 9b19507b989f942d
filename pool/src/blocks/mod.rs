//! Blocks: put together from the bytes that were hashed, published, and counted once a node knows them. Those that only
//! their miner can publish are looked for on the chain.

mod assembly;
mod coinbase_only_records;
mod followed;
mod found_block;
mod found_on_chain;
pub(crate) mod payout_lists;
mod rewards;

pub(crate) use assembly::{AssemblyError, HeaderFields, assemble, merkle_path};
pub use coinbase_only_records::print_coinbase_only;
pub(crate) use followed::follow_on_chain;
pub(crate) use found_block::{publish, resume};
pub(crate) use rewards::follow_rewards;
