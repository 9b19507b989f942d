//! `dovetail-regtest`: the embedded regtest chain, served as an Sv2 Template Provider. SIGUSR1 takes
//! its last block back, for trying what a reorganisation does.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Parser;
use dovetail_sv2::{AuthorityKeys, AuthoritySecretKey};
use dovetail_templates::{DEFAULT_BITS, SourceConfig, TemplateHandle, start, tdp_server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// An embedded regtest chain as an Sv2 Template Provider, for first runs and tests. On SIGUSR1 it takes
/// its last block back.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one, which the ready line names.
    #[arg(
        long,
        default_value = "127.0.0.1:8442",
        env = "DOVETAIL_REGTEST_LISTEN"
    )]
    listen: SocketAddr,
    /// The secret authority key (base58check); without one a fresh key is made for this run. Other
    /// users of the machine can read arguments, so prefer the environment.
    // Parsed in `main`: clap repeats a value that its parser refuses, and this one is a secret.
    #[arg(
        long,
        env = "DOVETAIL_REGTEST_AUTHORITY_SECRET_KEY",
        hide_env_values = true
    )]
    authority_secret_key: Option<String>,
    /// The compact target of every block, in hexadecimal.
    #[arg(long, env = "DOVETAIL_REGTEST_BITS", value_parser = compact_bits)]
    bits: Option<u32>,
}

fn compact_bits(text: &str) -> Result<u32, std::num::ParseIntError> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    dovetail_daemon::init_logging();
    let keys = match arguments.authority_secret_key {
        Some(secret) => {
            let secret: AuthoritySecretKey =
                secret.parse().context("the authority key is no key")?;
            AuthorityKeys::from_secret(secret)
        }
        None => AuthorityKeys::generate(),
    };
    let bits = arguments.bits.unwrap_or(DEFAULT_BITS);
    let shutdown = dovetail_daemon::shutdown_on_signal();
    let source = start(SourceConfig::embedded_with_bits(bits), shutdown.clone())?;
    let undo = tokio::spawn(undo_on_signal(source.clone()));
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    dovetail_daemon::announce_ready(serde_json::json!({
        "tdp": listener.local_addr()?.to_string(),
        "authority_public_key": keys.public().to_string(),
    }));
    tdp_server::serve(listener, keys, source.clone(), shutdown).await;
    undo.abort();
    source.stopped().await;
    Ok(())
}

async fn undo_on_signal(source: TemplateHandle) {
    let Ok(mut signals) = signal(SignalKind::user_defined1()) else {
        return tracing::warn!("cannot listen to SIGUSR1");
    };
    while signals.recv().await.is_some() {
        if let Err(error) = source.undo_block().await {
            tracing::warn!(%error, "the block was not taken back");
        }
    }
}
