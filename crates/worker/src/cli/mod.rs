//! The commands of `dovetail-worker`, one module each.

mod bench;
mod chat;
mod fetch;
mod hash;
mod model;
mod model_choice;
mod model_import;
mod model_quality;
mod model_render;
mod model_shape;
mod packaged;
mod run;
mod whole_file;

use clap::{Parser, Subcommand};
use dovetail_daemon::init_logging;

/// Runs models for a Dovetail pool and hashes for it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the inference worker.
    Run(run::RunArguments),
    /// Hash on the CPU as plain Sv2 firmware does, without the extension.
    Hash(hash::HashArguments),
    /// Talk to a model in this terminal. Lines are messages; where they come from a pipe, each is answered in its turn.
    Chat(chat::ChatArguments),
    /// Measure how fast this machine runs a model.
    Bench(bench::BenchArguments),
    /// Make, fetch and inspect model files.
    Model(model::ModelArguments),
}

/// Runs the command that the program was started with.
pub(crate) async fn run() -> anyhow::Result<()> {
    init_logging();
    match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments).await,
        Command::Hash(arguments) => {
            hash::run(arguments).await;
            Ok(())
        }
        Command::Chat(arguments) => tokio::task::block_in_place(|| chat::run(&arguments)),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Model(arguments) => model::run(arguments).await,
    }
}
