//! The worker: it serves models to a pool's clients with [`dovetail_serving`], hashes with [`dovetail_miner`], and
//! claims the reward of what it served with a share whose job commits to it.
//!
//! [`worker`] wires the parts; [`claim`] is the way of one batch to its share; [`promises`] checks that the pool did not
//! choose the audit's sample.

pub mod claim;
pub mod config;
pub mod page;
pub mod promises;
pub mod stats;
pub mod wallet;
pub mod worker;
