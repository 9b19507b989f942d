//! `dovetail-jd`: the job declarator.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use dovetail_jd::Config;

/// Checks the jobs that miners declare to a Dovetail pool.
#[derive(Debug, Parser)]
#[command(name = "dovetail-jd", version)]
struct Arguments {
    /// The configuration; see config/dovetail-jd.toml. Every key can be overridden through
    /// DOVETAIL_JD__SECTION__KEY.
    #[arg(long, default_value = "dovetail-jd.toml")]
    config: PathBuf,
    /// Check the configuration and the files that it names, and exit. Nothing is connected to or made.
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
    let config: Config = dovetail_daemon::load(&arguments.config, "DOVETAIL_JD")?;
    config
        .check()
        .map_err(|reason| anyhow::anyhow!("configuration: {reason}"))?;
    dovetail_daemon::warn_of_secrets(&arguments.config, "DOVETAIL_JD", config.secrets());
    if arguments.check_config {
        config.check_files()?;
        println!("the configuration is valid");
        return Ok(());
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(async {
            let shutdown = dovetail_daemon::shutdown_on_signal();
            Box::pin(dovetail_jd::run(config, shutdown, |address| {
                dovetail_daemon::announce_ready(serde_json::json!({
                    "declaration": address.to_string(),
                }));
            }))
            .await
        })
}
