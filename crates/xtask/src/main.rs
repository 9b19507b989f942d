//! Dovetail's project commands. `cargo xtask demo` shows the main job; `cargo xtask test` passes
//! the tests. Each does its own set-up.

mod agent;
mod bench;
mod chat_templates;
mod demo;
mod openai_clients;
mod openclaw;
mod programs;
mod protobuf;
mod registries;
mod setup;
mod steps;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Dovetail's project commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the whole path on this machine: prompt, tokens, declared job, share, audit, payout,
    /// receipt.
    Demo(demo::DemoArguments),
    /// Formatting, lints and all tests.
    Test(suite::TestArguments),
    /// Measure speed and memory.
    Bench(bench::BenchArguments),
    /// Check what no compiler checks: dependencies between crates, sizes, dead files, links, commands, keys.
    Tidy,
    /// Generate the code of the gRPC interfaces again, after a change to the protobuf files.
    Protobuf,
}

fn main() -> ExitCode {
    // Every wait of the harness ends with an error then, and what was started is stopped.
    if let Err(error) = ctrlc::set_handler(dovetail_tests::process::interrupt) {
        eprintln!("Ctrl-C will not clean up: {error}");
    }
    let done = match Arguments::parse().command {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => suite::run(&arguments),
        Task::Bench(arguments) => bench::bench(&arguments),
        Task::Tidy => tidy::check(),
        Task::Protobuf => protobuf::generate(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
