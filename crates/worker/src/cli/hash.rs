//! `dovetail-worker hash`: hashes on the CPU as plain Sv2 firmware does.

use std::sync::Arc;

use clap::Args;
use dovetail_daemon::{announce_ready, shutdown_on_signal};
use dovetail_miner::hasher::{self, HasherOptions, HasherStats};
use dovetail_sv2::AuthorityPublicKey;

/// Hash on the CPU as plain Sv2 firmware does, without the extension.
#[derive(Debug, Args)]
pub(crate) struct HashArguments {
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
}

/// Hashes until it is told to stop.
pub(crate) async fn run(arguments: HashArguments) {
    let options = HasherOptions {
        address: arguments.pool,
        authority: arguments.authority_key,
        user: arguments.user,
        threads: arguments.threads,
    };
    announce_ready(serde_json::json!({ "hashing": options.address }));
    let stats = Arc::new(HasherStats::default());
    hasher::run(options, stats, shutdown_on_signal()).await;
}
