//! The server: who may connect, and one task for each who does. `dovetail-jd` runs it as a process,
//! the pool inside itself.

use std::sync::Arc;
use std::time::Duration;

use dovetail_ledger::Ledger;
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, declaration_flags};
use dovetail_sv2::{AuthorityKeys, IdentityRules, PlaceLimits, Server};
use dovetail_templates::block_publisher::BlockPublisher;
use dovetail_templates::{Payout, SourceConfig};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::connection;
use crate::node::Node;
use crate::rules::Rules;
use crate::shared::Shared;
use crate::token::TokenKey;
use crate::token_book::TotalRate;
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
    /// Whom miners may declare jobs for.
    pub identities: IdentityRules,
    /// What declared jobs must pay.
    pub payout: Payout,
    /// The key that tokens are authenticated with.
    pub token_key: TokenKey,
    /// Whether miners may keep their transactions to themselves.
    pub coinbase_only: bool,
    /// What miners may ask for.
    pub limits: Limits,
    /// Where declared jobs go.
    pub ledger: Ledger,
    /// The node that judges blocks.
    pub node: Arc<dyn Node>,
    /// Where solved blocks go.
    pub blocks: BlockPublisher,
    /// Where declared transactions are held.
    pub transactions: TransactionStore,
}

/// A declarator that is yet to serve.
pub struct Declarator {
    shared: Arc<Shared>,
    server: Server,
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
        let server = Server {
            keys: parts.keys,
            certificate_validity: Duration::from_secs(parts.cert_validity_s),
            policy: ServerPolicy {
                protocol: SetupProtocol::JobDeclarationProtocol,
                supported_flags: declaration_flags::DECLARE_TX_DATA,
                required_flags: match parts.coinbase_only {
                    true => 0,
                    false => declaration_flags::DECLARE_TX_DATA,
                },
                success_flags: |_| 0,
            },
            // Who says nothing for an hour is dropped (`connection.rs`); a miner may rightly declare nothing for longer
            // than that, and in coinbase-only mode declares nothing at all, so there are no other deadlines.
            places: PlaceLimits {
                per_address_max: limits.connections_per_address_max,
                per_network_max: limits.connections_per_network_max,
                ..PlaceLimits::total(limits.connections_max)
            },
            outbox_max: OUTBOX_MAX,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
        };
        let rules = Rules {
            payout: parts.payout,
            token_key: parts.token_key,
            token_lifetime_s: limits.token_lifetime_s,
            ledger: parts.ledger,
            node: parts.node,
            turns: Semaphore::new(limits.checks_max),
            check_time_max: Duration::from_secs(limits.check_time_max_s),
        };
        Self {
            shared: Arc::new(Shared {
                identities: parts.identities,
                limits,
                rules,
                total: TotalRate::new(limits.tokens_per_minute_total),
                transactions: parts.transactions,
                blocks: parts.blocks,
                tracker: TaskTracker::new(),
            }),
            server,
        }
    }

    /// Serves miners until `shutdown`; returns when the last connection has ended.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let Self { shared, server } = self;
        let tracker = shared.tracker.clone();
        let serve = move |client| connection::serve(Arc::clone(&shared), client);
        server.run(listener, &tracker, &shutdown, serve).await;
        tracker.close();
        tracker.wait().await;
    }
}
