//! `dovetail-worker`: the inference worker, a plain hasher, and tools for model files.

mod bench_cmd;
mod chat;
mod fetch_cmd;
mod model_choice;
mod model_cmd;
mod model_import;
mod model_quality;
mod model_shape;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::{Parser, Subcommand};
use dovetail_daemon::{announce_ready, init_logging, load, shutdown_on_signal};
use dovetail_sv2::AuthorityPublicKey;
use dovetail_worker::config::Config;
use dovetail_worker::hasher::{self, HasherOptions, HasherStats};
use dovetail_worker::worker::Worker;

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
    Run {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Check the configuration and exit.
        #[arg(long)]
        check_config: bool,
    },
    /// Hash on the CPU as plain Sv2 firmware does, without the extension.
    Hash {
        /// host:port of the pool's mining port.
        #[arg(long)]
        pool: String,
        /// The pool's authority public key; without it the pool is not authenticated.
        #[arg(long)]
        authority_key: Option<AuthorityPublicKey>,
        /// Whom the hashes are credited to.
        #[arg(long)]
        user: String,
        /// Threads that hash.
        #[arg(long, default_value_t = 1)]
        threads: u16,
    },
    /// Talk to a model in this terminal. Lines are messages; where they come from a pipe, each is answered in its turn.
    Chat(chat::ChatArguments),
    /// Measure how fast this machine runs a model.
    Bench(bench_cmd::BenchArguments),
    /// Make, fetch and inspect model files.
    Model(model_cmd::ModelArguments),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    init_logging();
    match Arguments::parse().command {
        Command::Run {
            config,
            check_config,
        } => run(&config, check_config).await,
        Command::Hash {
            pool,
            authority_key,
            user,
            threads,
        } => {
            let options = HasherOptions {
                address: pool,
                authority: authority_key,
                user,
                threads,
            };
            announce_ready(serde_json::json!({ "hashing": options.address }));
            hasher::run(
                options,
                Arc::new(HasherStats::default()),
                shutdown_on_signal(),
            )
            .await;
            Ok(())
        }
        Command::Chat(arguments) => tokio::task::block_in_place(|| chat::run(&arguments)),
        Command::Bench(arguments) => bench_cmd::run(&arguments),
        Command::Model(arguments) => model_cmd::run(arguments).await,
    }
}

async fn run(path: &std::path::Path, check_config: bool) -> anyhow::Result<()> {
    let config: Config = load(path, "DOVETAIL_WORKER")?;
    config.validate()?;
    if check_config {
        println!("the configuration is valid");
        return Ok(());
    }
    let shutdown = shutdown_on_signal();
    let started = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        started = Worker::start(config, &shutdown) => started,
    };
    let worker = started.context("the worker did not start")?;
    let announced = AtomicBool::new(false);
    let ended = worker
        .run(shutdown, |worker| {
            if !announced.swap(true, Ordering::Relaxed) {
                let mut ready = serde_json::json!({ "worker": worker.keys().name });
                if let Some((address, key)) = worker.firmware_port() {
                    ready["downstream"] = address.to_string().into();
                    ready["authority_public_key"] = key.to_string().into();
                }
                if let Some(address) = worker.page() {
                    ready["page"] = address.to_string().into();
                }
                announce_ready(ready);
            }
        })
        .await;
    ended.context("the worker stopped")
}
