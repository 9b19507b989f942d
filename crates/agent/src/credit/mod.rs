//! A miner's part of a block: fetched from the pool that divided it ([`CreditClient`]), kept in a file
//! ([`CreditFile`]), and checked offline ([`check`]). The rules, and what the check shows, are `dovetail_rewards`'.

mod client;
mod file;
mod report;

pub use client::CreditClient;
pub use file::{
    BlockHash, BlockState, CREDIT_FILE_BYTES_MAX, CreditFile, HexBytes, KeptBlock, KeptLeaf,
    KeptWindow, WINDOW_SLICES_MAX,
};
pub use report::{CreditCheck, CreditLine, CreditReport, PartSummary, check};
