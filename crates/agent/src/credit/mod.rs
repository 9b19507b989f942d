//! A miner's part of a block: fetched from the pool that divided it ([`CreditClient`]), kept in a file
//! ([`CreditFile`]), and checked offline ([`check`]); and shares of all accounts that a block
//! has chosen ([`CreditClient::sample`]). The rules, and what the check shows, are `dovetail_rewards`'.

mod client;
mod file;
mod report;
mod sample;

pub use client::CreditClient;
pub use file::{
    BlockHash, BlockState, CREDIT_FILE_BYTES_MAX, CreditFile, HexBytes, KeptBlock, KeptLeaf,
    KeptRule, KeptStatement, KeptWindow, WINDOW_SLICES_MAX,
};
pub use report::{CreditCheck, CreditLine, CreditReport, PartSummary, check};
pub use sample::{FailedPoint, SampleCheck, SampleLine, SampleReport, SampleTerms};
