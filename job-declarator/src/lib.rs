//! The job declarator: miners declare the jobs that they assembled themselves, and this daemon
//! checks that such a job pays the pool and commits to what it says (Sv2 Job Declaration Protocol,
//! specification section 6). Accepted jobs go into the ledger, where the pool finds them.
//!
//! It hashes nothing, credits nothing, and knows no mining channel.

mod check;
pub mod config;
mod connection;
mod run;
mod solution;
mod tokens;

pub use config::Config;
pub use run::run;
