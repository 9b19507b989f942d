//! The job declarator: miners declare the jobs that they assembled themselves, and this server
//! checks that such a job would make a valid block, pays the pool and commits to what it says (Sv2
//! Job Declaration Protocol, specification section 6). Accepted jobs go into the ledger, where the
//! pool finds them. `dovetail-jd` runs it alone, the pool may run it inside itself; the pool also
//! uses its tokens and rules for the jobs that reach it.
//!
//! It hashes nothing, credits nothing, and knows no mining channel.

mod assembly;
pub mod batches;
pub mod coinbase;
pub mod config;
mod connection;
pub mod node;
pub mod payout_lists;
mod refusal;
mod rules;
mod run;
mod server;
mod shared;
mod solution;
pub mod token;
mod token_book;
pub mod transactions;

pub use config::Config;
pub use rules::is_version;
pub use run::run;
pub use server::{Declarator, Parts, warn_about};
