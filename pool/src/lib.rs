//! The pool daemon: Sv2 mining with extension 0x4149, the audit, the ledger, payouts, and the
//! agents' gRPC door, wired together.
//!
//! Reading order for a share: `mining::connection` takes the frame, `mining::shares` checks the
//! header, `settle` runs the audit (`audit`, whose replays `validation` does) and commits to the ledger,
//! `mining::shares` answers.

mod appeals;
mod audit;
pub mod config;
mod credit;
mod declaring;
mod dispatch;
mod downloads;
mod events;
mod grpc;
#[cfg(test)]
mod honest_tests;
mod mining;
mod models;
mod payouts;
mod refusals;
mod run;
mod settle;
#[cfg(test)]
mod settle_tests;
mod shared;
#[cfg(test)]
mod test_ground;
mod turns;
mod validation;

pub use appeals::print_audits;
pub use config::Config;
pub use run::{Addresses, run};
pub use validation::{ValidatorOptions, serve_validator};
