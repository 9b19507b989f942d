//! The pool daemon: Sv2 mining with extension 0x4149, the audit, the ledger, payouts, and the
//! agents' gRPC door, wired together.
//!
//! Reading order for a share: `mining::connection` takes the frame, `mining::shares` checks the
//! header, `settle` runs the audit (`audit`) and commits to the ledger, `mining::shares` answers.

mod audit;
pub mod config;
mod credit;
mod dispatch;
mod downloads;
mod events;
mod grpc;
mod identity;
mod mining;
mod payouts;
mod refusals;
mod run;
mod settle;
mod shared;

pub use config::Config;
pub use run::run;
