//! `dovetail-worker run`: the inference worker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::Args;
use dovetail_console::print_line;
use dovetail_daemon::{announce_ready, load, shutdown_on_signal};
use dovetail_worker::config::Config;
use dovetail_worker::worker::Worker;

/// Run the inference worker.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The configuration file.
    #[arg(long)]
    config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let config: Config = load(&arguments.config, "DOVETAIL_WORKER")?;
    config.validate()?;
    if arguments.check_config {
        print_line("the configuration is valid")?;
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
