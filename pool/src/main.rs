//! `dovetail-pool`: the pool daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use dovetail_pool::Config;

/// A Stratum V2 mining pool whose miners also run language models.
#[derive(Debug, Parser)]
#[command(name = "dovetail-pool", version)]
struct Arguments {
    /// The configuration; see config/dovetail-pool.toml. Every key can be overridden through
    /// DOVETAIL_POOL__SECTION__KEY.
    #[arg(long, default_value = "dovetail-pool.toml")]
    config: PathBuf,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
}

fn main() -> ExitCode {
    dovetail_daemon::init_logging();
    match start(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config: Config = dovetail_daemon::load(&arguments.config, "DOVETAIL_POOL")?;
    config
        .check()
        .map_err(|reason| anyhow::anyhow!("configuration: {reason}"))?;
    if arguments.check_config {
        println!("the configuration is valid");
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(async {
            let shutdown = dovetail_daemon::shutdown_on_signal();
            Box::pin(dovetail_pool::run(config, shutdown, |mining, grpc| {
                dovetail_daemon::announce_ready(serde_json::json!({
                    "mining": mining.to_string(),
                    "grpc": grpc.to_string(),
                }));
            }))
            .await
        })
}
