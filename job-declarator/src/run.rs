//! Start-up, the listener, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use dovetail_ledger::Ledger;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, declaration_flags};
use dovetail_sv2::{
    AuthorityKeys, AuthorityPublicKey, AuthoritySecretKey, Listener, Outbox, accept, setup,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, DeclarationConfig};
use crate::connection::{Connection, Ended, Shared};

/// How many frames may wait for one miner: it is sent one answer per question.
const OUTBOX_MAX: usize = 64;
/// A frame may carry a block's transactions.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024 - 1;

/// Runs the declarator until `shutdown`; `ready` is called once, with the address it listens on.
///
/// # Errors
/// Whatever keeps it from starting, in words for its operator.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    config
        .check()
        .map_err(|reason| anyhow!("configuration: {reason}"))?;
    let keys = authority_keys(&config.declaration)?;
    let ledger = Ledger::connect(&config.ledger.url.read()?, config.ledger.connections_max)
        .await
        .context("cannot connect to Postgres: is ledger.url right and the server running?")?;
    ledger
        .migrate()
        .await
        .context("cannot migrate the ledger")?;
    let templates = config
        .templates
        .clone()
        .map(|source| dovetail_templates::start(source, shutdown.clone()))
        .transpose()
        .context("cannot start the template source")?;
    let listener = TcpListener::bind(config.declaration.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.declaration.listen))?;
    ready(listener.local_addr()?);
    let shared = Arc::new(Shared {
        config: config.declaration,
        ledger,
        templates,
    });
    serve(listener, keys, shared, shutdown).await;
    Ok(())
}

fn authority_keys(config: &DeclarationConfig) -> anyhow::Result<AuthorityKeys> {
    let public: AuthorityPublicKey = config
        .authority_public_key
        .parse()
        .context("declaration.authority_public_key")?;
    let secret: AuthoritySecretKey = config
        .authority_secret_key
        .read()?
        .parse()
        .context("declaration.authority_secret_key")?;
    AuthorityKeys::new(secret, public).context("declaration: the authority keys")
}

async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    let listener = Listener::new(listener, shared.config.connections_max);
    let keys = Arc::new(keys);
    let tracker = TaskTracker::new();
    while let Some((stream, place)) = listener.next(&shutdown).await {
        let (shared, keys, shutdown) = (Arc::clone(&shared), Arc::clone(&keys), shutdown.clone());
        tracker.spawn(async move {
            match serve_one(stream, &keys, shared, &shutdown).await {
                Ok(Ended::Closed) => tracing::debug!("declaration client gone"),
                Ok(ended) => tracing::warn!(%ended, "a declaration client was dropped"),
                Err(error) => tracing::debug!("a declaration client was not set up: {error:#}"),
            }
            drop(place);
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn serve_one(
    stream: TcpStream,
    keys: &AuthorityKeys,
    shared: Arc<Shared>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Ended> {
    let validity = Duration::from_secs(shared.config.cert_validity_s);
    let (mut reader, mut writer) = accept(stream, keys, validity).await?;
    let policy = ServerPolicy {
        protocol: SetupProtocol::JobDeclarationProtocol,
        supported_flags: declaration_flags::DECLARE_TX_DATA,
        required_flags: declaration_flags::DECLARE_TX_DATA,
        success_flags: 0,
    };
    setup::serve(&mut reader, &mut writer, &policy).await?;
    reader.set_payload_bytes_max(PAYLOAD_BYTES_MAX);
    let token = shutdown.child_token();
    let (outbox, writing) = Outbox::spawn(writer, OUTBOX_MAX, token.clone());
    let mut connection = Connection::new(shared, outbox);
    let ended = Box::pin(connection.run(reader, &token)).await;
    drop(connection);
    let _ = writing.await;
    Ok(ended)
}
