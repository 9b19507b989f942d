//! What a share claims beside its hash: the batch is audited, and share and batch are committed together.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod claim;
#[cfg(test)]
mod cost_tests;
mod failed_audits;
#[cfg(test)]
mod honest_tests;
mod mismatch;
mod receipts;
pub(crate) mod settle;
#[cfg(test)]
mod settle_tests;
mod settled;
pub(crate) mod suspects;
#[cfg(test)]
mod value_tests;

pub use failed_audits::print_audits;
