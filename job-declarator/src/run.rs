//! `dovetail-jd` from its configuration to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use dovetail_daemon::announce_not_ready;
use dovetail_ledger::Ledger;
use dovetail_sv2::IdentityRules;
use dovetail_sv2::listener::BoundPort;
use dovetail_templates::block_publisher::{BlockPublisher, PublisherOptions, Sink};
use dovetail_templates::{Readiness, TemplateHandle};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, token_key};
use crate::payout_lists;
use crate::server::{Declarator, Parts, warn_about};
use crate::transactions::TransactionStore;

/// Runs the declarator until `shutdown`; `ready` is called with the address it listens on: once it is ready, and whenever
/// it is ready again.
///
/// # Errors
/// Whatever keeps it from starting, in words for its operator.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl Fn(SocketAddr),
) -> anyhow::Result<()> {
    config
        .check()
        .map_err(|reason| anyhow!("configuration: {reason}"))?;
    let declaration = &config.declaration;
    let keys = declaration.authority()?;
    let payout = declaration
        .payout()
        .map_err(|reason| anyhow!("configuration: {reason}"))?;
    let network = declaration.network;
    let token_key = token_key(&config.declaration.token_key).context("declaration.token_key")?;
    let ledger = open_ledger(&config).await?;
    // The last blocks go out after the last connection has ended.
    let stop_last = CancellationToken::new();
    let source = config.templates.source;
    warn_about(&source);
    let templates = dovetail_templates::start_on(network, source, stop_last.clone())
        .context("cannot start the template source")?;
    let sinks = dovetail_templates::open_sinks(&config.templates.block_sinks, &stop_last)
        .context("cannot start templates.block_sinks")?;
    payout.tell(network);
    let dir = config.declaration.blocks_dir.clone();
    let blocks = start_blocks(dir, templates.clone(), sinks, shutdown.clone()).await;
    payout_lists::read(&ledger, &payout)
        .await
        .context("cannot read the ledger's payout lists")?;
    let reading = payout_lists::keep_reading(ledger.clone(), payout.clone(), shutdown.clone());
    tokio::spawn(reading);
    let port = BoundPort::bind(config.declaration.listen)
        .with_context(|| format!("cannot listen on {}", config.declaration.listen))?;
    let has_work = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        has_work = templates.ready(announce_not_ready) => has_work,
    };
    has_work.context("the declarator cannot start on this node")?;
    let listener = port.listen().context("cannot listen")?;
    let address = listener.local_addr()?;
    ready(address);
    let declarator = Declarator::new(Parts {
        keys,
        cert_validity_s: config.declaration.cert_validity_s,
        identities: IdentityRules {
            network,
            plain_names: declaration.plain_names,
        },
        payout,
        token_key,
        coinbase_only: config.declaration.coinbase_only,
        limits: config.declaration.limits,
        ledger,
        node: Arc::new(templates.clone()),
        blocks: blocks.clone(),
        transactions: TransactionStore::default(),
    });
    let telling = templates.tell_readiness(|readiness| match readiness {
        Readiness::Ready => ready(address),
        Readiness::NotReady(reason) => announce_not_ready(reason),
    });
    let serving = declarator.serve(listener, shutdown);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => {}
        () = telling => serving.await,
    }
    blocks.stopped().await;
    stop_last.cancel();
    templates.stopped().await;
    Ok(())
}

async fn open_ledger(config: &Config) -> anyhow::Result<Ledger> {
    let ledger = Ledger::connect(&config.ledger.url.read()?, config.ledger.connections_max)
        .await
        .context("cannot connect to Postgres: is ledger.url right and the server running?")?;
    ledger
        .migrate()
        .await
        .context("cannot migrate the ledger")?;
    Ok(ledger)
}

/// Blocks of an earlier run go on by themselves; the pool notes what comes of them.
async fn start_blocks(
    dir: Option<PathBuf>,
    templates: TemplateHandle,
    sinks: Vec<Sink>,
    shutdown: CancellationToken,
) -> BlockPublisher {
    if dir.is_none() {
        tracing::warn!(
            "no declaration.blocks_dir: a block that the node does not take at once is lost at a restart"
        );
    }
    let options = PublisherOptions {
        templates,
        sinks,
        dir,
        solves_templates: false,
        shutdown,
    };
    BlockPublisher::start(options).await.0
}
