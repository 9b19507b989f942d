//! `cargo xtask bench`: measurements, beside a peer's in the same run where there is one.

mod agent;
mod audit;
mod clerk;
mod contender;
mod elf;
mod engine;
mod ledger;
mod medians;
pub(crate) mod outside;
mod peer;
mod pool;
mod real_model;
mod report;
mod rounds;
mod start;

use clap::{Args, Subcommand};

use agent::AgentArguments;
use audit::AuditArguments;
use clerk::ClerkArguments;
use engine::EngineArguments;
use ledger::LedgerArguments;
use pool::PoolArguments;
use start::StartArguments;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The engine: decode, replay and memory, beside llama.cpp's Q8_0 on the same shapes and on a real model.
    Engine(EngineArguments),
    /// What an agent waits for: the first token and those after it, through a pool and its worker, beside the engine alone.
    Agent(AgentArguments),
    /// The audit: seconds of replay per second of generating, at full audit and at the floor.
    Audit(AuditArguments),
    /// The small model clerk: its answers to invoices and stock sheets that it has not seen, marked
    /// field by field.
    Clerk(ClerkArguments),
    /// The ledger: shares committed a second, beside what Postgres takes by COPY.
    Ledger(LedgerArguments),
    /// The pool under load, beside the Stratum Reference Implementation's: shares, idle connections, a new block, churn.
    Pool(PoolArguments),
    /// The release programs: their size, and how long they take to start.
    Start(StartArguments),
}

/// Runs the measurement.
pub(crate) fn bench(arguments: &BenchArguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Engine(arguments) => engine::measure(arguments),
        What::Agent(arguments) => agent::measure(arguments),
        What::Audit(arguments) => audit::measure(arguments),
        What::Clerk(arguments) => clerk::measure(arguments),
        What::Ledger(arguments) => ledger::measure(arguments),
        What::Pool(arguments) => pool::measure(arguments),
        What::Start(arguments) => start::measure(arguments),
    }
}
