//! A job declarator inside the pool, where one is asked for: the server of `dovetail-jd` on a port
//! of this process, with the pool's own keys, ledger and templates.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use dovetail_jd::{Declarator, Parts};
use dovetail_ledger::Ledger;
use dovetail_sv2::AuthorityKeys;
use dovetail_sv2::listener::BoundPort;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Connections to Postgres for declarations: their megabytes stay out of the way of shares.
const LEDGER_CONNECTIONS_MAX: u32 = 4;

/// Opens its port and starts it on the pool's tracker; returns where it listens, or `None` if none is configured.
///
/// # Errors
/// A port that cannot be opened, or a Postgres that does not answer.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    port: Option<BoundPort>,
    keys: AuthorityKeys,
    shutdown: CancellationToken,
) -> anyhow::Result<Option<SocketAddr>> {
    let config = &shared.config.job_declarator;
    let Some(port) = port else {
        return Ok(None);
    };
    let url = shared.config.ledger.url.read()?;
    let ledger = Ledger::connect(&url, LEDGER_CONNECTIONS_MAX)
        .await
        .context("cannot connect to Postgres for declarations")?;
    let listener = port.listen().context("cannot open job_declarator.listen")?;
    let local = listener.local_addr()?;
    dovetail_jd::warn_about(&shared.config.templates.source);
    let declarator = Declarator::new(Parts {
        keys,
        cert_validity_s: shared.config.mining.cert_validity_s,
        identities: shared.config.mining.identity_rules(),
        payout: shared.payout.clone(),
        token_key: shared.token_key.clone(),
        coinbase_only: config.coinbase_only,
        limits: config.limits,
        ledger,
        node: Arc::new(shared.templates.clone()),
        blocks: shared.blocks.clone(),
        transactions: shared.transactions.clone(),
    });
    shared.tracker.spawn(declarator.serve(listener, shutdown));
    Ok(Some(local))
}
