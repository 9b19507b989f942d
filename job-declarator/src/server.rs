//! The server: who may connect, and one task for each who does. `dovetail-jd` runs it as a process,
//! the pool inside itself.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::ScriptBuf;
use dovetail_ledger::Ledger;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, declaration_flags};
use dovetail_sv2::{AuthorityKeys, Listener, Outbox, accept, setup};
use dovetail_templates::SourceConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::connection::{Connection, Ended};
use crate::node::Node;
use crate::rules::Rules;
use crate::token::TokenKey;
use crate::tokens::TotalRate;
use crate::transactions::TransactionStore;

/// How many frames may wait for one miner: it is sent one answer per question.
const OUTBOX_MAX: usize = 64;
/// A frame may carry a block's transactions.
const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What a declarator needs.
pub struct Parts {
    /// The authority that miners check the server by.
    pub keys: AuthorityKeys,
    /// How long the certificate shown in the Noise handshake is valid, in seconds.
    pub cert_validity_s: u64,
    /// The script that every declared job must pay.
    pub payout_script: ScriptBuf,
    /// The key that tokens are authenticated with.
    pub token_key: TokenKey,
    /// Whether miners may keep their transactions to themselves.
    pub coinbase_only: bool,
    /// What miners may ask for.
    pub limits: Limits,
    /// Where declared jobs go.
    pub ledger: Ledger,
    /// The node that judges blocks and takes them.
    pub node: Arc<dyn Node>,
    /// Where declared transactions are held.
    pub transactions: TransactionStore,
}

/// A declarator that is yet to serve.
pub struct Declarator {
    shared: Arc<Shared>,
    keys: Arc<AuthorityKeys>,
    cert_validity: Duration,
    coinbase_only: bool,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    pub(crate) total: TotalRate,
    pub(crate) transactions: TransactionStore,
    /// Connections, and blocks on their way to the node.
    pub(crate) tracker: TaskTracker,
}

/// Tells the operator where a source can say nothing about whole blocks.
pub fn warn_about(source: &SourceConfig) {
    if matches!(source, SourceConfig::TemplateProvider { .. }) {
        tracing::warn!(
            "a template provider cannot judge blocks: declared transactions are not checked, and \
             their fees are taken on trust up to the pool's own"
        );
    }
}

impl Declarator {
    /// A declarator of these parts.
    pub fn new(parts: Parts) -> Self {
        let limits = parts.limits;
        let rules = Rules {
            payout_script: parts.payout_script,
            token_key: parts.token_key,
            token_lifetime_s: limits.token_lifetime_s,
            ledger: parts.ledger,
            node: parts.node,
            turns: Semaphore::new(limits.checks_max),
            check_time_max: Duration::from_secs(limits.check_time_max_s),
        };
        Self {
            shared: Arc::new(Shared {
                limits,
                rules,
                total: TotalRate::new(limits.tokens_per_minute_total),
                transactions: parts.transactions,
                tracker: TaskTracker::new(),
            }),
            keys: Arc::new(parts.keys),
            cert_validity: Duration::from_secs(parts.cert_validity_s),
            coinbase_only: parts.coinbase_only,
        }
    }

    /// Serves miners until `shutdown`; returns when the last connection has ended and every block
    /// is out.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let listener = Listener::new(listener, self.shared.limits.connections_max);
        let server = Arc::new(self);
        while let Some((stream, place)) = listener.next(&shutdown).await {
            let (connection, shutdown) = (Arc::clone(&server), shutdown.clone());
            server.shared.tracker.spawn(async move {
                match connection.serve_one(stream, &shutdown).await {
                    Ok(Ended::Closed) => tracing::debug!("declaration client gone"),
                    Ok(ended) => tracing::warn!(%ended, "a declaration client was dropped"),
                    Err(error) => {
                        tracing::debug!("a declaration client was not set up: {error:#}");
                    }
                }
                drop(place);
            });
        }
        server.shared.tracker.close();
        server.shared.tracker.wait().await;
    }

    async fn serve_one(
        &self,
        stream: TcpStream,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let (mut reader, mut writer) = accept(stream, &self.keys, self.cert_validity).await?;
        let required_flags = match self.coinbase_only {
            true => 0,
            false => declaration_flags::DECLARE_TX_DATA,
        };
        let policy = ServerPolicy {
            protocol: SetupProtocol::JobDeclarationProtocol,
            supported_flags: declaration_flags::DECLARE_TX_DATA,
            required_flags,
            success_flags: 0,
        };
        let request = setup::serve(&mut reader, &mut writer, &policy).await?;
        let full_template = request.flags & declaration_flags::DECLARE_TX_DATA != 0;
        reader.set_payload_bytes_max(PAYLOAD_BYTES_MAX);
        let token = shutdown.child_token();
        let (outbox, writing) = Outbox::spawn(writer, OUTBOX_MAX, token.clone());
        let mut connection = Connection::new(Arc::clone(&self.shared), outbox, full_template);
        let ended = Box::pin(connection.run(reader, &token)).await;
        drop(connection);
        let _ = writing.await;
        Ok(ended)
    }
}
