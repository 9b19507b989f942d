//! The catalogue of cheats: each is tried over the wire against a running pool and refused with a code
//! of its own. Where a replay proves it, it costs the cheat. In every case an honest worker on the same
//! pool has a batch under way, and is credited for it afterwards.
//!
//! Cases share a pool as long as they overlap in time, and take turns on it. Where the
//! embedded chain cannot do what a cheat needs, the case takes place on Bitcoin Core.

#![allow(clippy::unwrap_used)]

#[path = "../scripted_worker/mod.rs"]
mod scripted_worker;

#[path = "../declaration/coins.rs"]
mod coins;

mod acknowledgements;
mod batches;
mod bitcoin_core;
mod claims;
mod double_claims;
mod expiry;
mod fixture;
mod header_spaces;
mod identity;
mod inference;
mod invoices;
mod kept_credit;
mod payment;
mod pool_built_jobs;
mod reassignment;
mod share_withholding;
mod transcripts;
mod value;
