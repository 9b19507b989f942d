//! `cargo xtask bench`: measurements, beside a peer's in the same run where there is one.

mod agent;
mod audit;
mod clerk;
mod engine;
mod ledger;
pub(crate) mod outside;
mod peer;
mod real_model;
mod report;
mod rounds;

use clap::{Args, Subcommand};

use agent::AgentArguments;
use audit::AuditArguments;
use clerk::ClerkArguments;
use engine::EngineArguments;
use ledger::LedgerArguments;

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
}

/// Runs the measurement.
pub(crate) fn bench(arguments: &BenchArguments) -> anyhow::Result<()> {
    match &arguments.what {
        What::Engine(arguments) => engine::measure(arguments),
        What::Agent(arguments) => agent::measure(arguments),
        What::Audit(arguments) => audit::measure(arguments),
        What::Clerk(arguments) => clerk::measure(arguments),
        What::Ledger(arguments) => ledger::measure(arguments),
    }
}
