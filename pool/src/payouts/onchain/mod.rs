//! Paying on the chain, in batches. The ledger has each transaction, signed, before the node hears of it, and every later one
//! of its batch spends all that the earlier ones spend: so whatever is cut off anywhere, the same bytes are handed out
//! again, and a payee is paid once.
//!
//! The chain is the judge, not the node's memory: blocks are searched for the batch's transactions. `begin` makes an
//! attempt, `batch` a batch of those that wait, `follow` brings it into the chain, `search` finds it there.

mod batch;
mod begin;
#[cfg(test)]
mod faults;
mod follow;
#[cfg(test)]
mod scripted_node;
mod search;

use std::time::{Duration, Instant};

use bitcoin::{Amount, FeeRate, Network, OutPoint};
use dovetail_bitcoin_rpc::RpcClient;
use dovetail_ledger::{Ledger, LedgerError};
use dovetail_onchain::{ChainTip, Coin, ComposeError, Node, NodeError, WalletKeys};
use dovetail_telemetry::Telemetry;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::config::OnchainConfig;
use crate::mailboxes::Mailboxes;
use search::Search;

pub(super) use begin::{AddressRefusal, Terms};

/// Where nodes have no estimate, as on a new network: 1 sat/vB.
const FALLBACK_RATE: FeeRate = FeeRate::BROADCAST_MIN;
/// How long the wallet is not looked at again after it had not enough.
const RETRY_TIME_MAX: Duration = Duration::from_secs(600);

/// What payouts on the chain stand on.
pub(crate) struct OnchainParts {
    pub(crate) ledger: Ledger,
    pub(crate) node: Node,
    pub(crate) keys: WalletKeys,
    pub(crate) config: OnchainConfig,
    pub(crate) network: Network,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) telemetry: Telemetry,
    /// How long a payee waits after a first failure.
    pub(crate) backoff: Duration,
}

/// The service. What it remembers only saves questions.
pub(crate) struct OnchainPayouts {
    parts: OnchainParts,
    /// Up to where the chain was searched for the batch that is open, and for what contradicts it.
    search: Search,
    spender: Search,
    /// No batch is made before.
    make_after: Option<Instant>,
    /// No replacement is made below this height.
    replace_after: u32,
    /// What was last told of a wallet that has not enough: how many payouts wait for money.
    short: usize,
}

/// Why a round came to nothing. Nothing is lost: it is begun again.
#[derive(Debug, thiserror::Error)]
enum OnchainError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the node: {0}")]
    Node(#[from] NodeError),
    #[error("no transaction can be made: {0}")]
    Compose(#[from] ComposeError),
    #[error("onchain.rpc leads to a node of {node}, and this pool is on {configured}")]
    OtherNetwork { node: Network, configured: Network },
    #[error("the node is still fetching its chain")]
    Syncing,
    #[error("the node would not take the transaction: {0}")]
    NotTaken(String),
    #[error("what the ledger has of batch {0} does not decode")]
    Corrupt(i64),
}

/// The node that the operator's configuration names.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn node_of(config: &OnchainConfig) -> Result<Node, String> {
    let rpc = RpcClient::new(config.rpc.clone(), config.credentials()?);
    Ok(Node::new(rpc))
}

/// What the wallet has in the chain: what the ledger's obligations are held against.
///
/// # Errors
/// What the node says.
pub(crate) async fn holdings(node: &Node, keys: &WalletKeys) -> Result<Holdings, NodeError> {
    let coins = node.coins(keys).await?;
    let of = |is_immature: bool| {
        let found = coins
            .iter()
            .filter(move |found| found.is_immature == is_immature);
        total(found.map(|found| &found.coin))
    };
    Ok(Holdings {
        spendable: of(false),
        immature: of(true),
    })
}

/// What coins have; no sum of real ones is out of range.
fn total<'a>(coins: impl Iterator<Item = &'a Coin>) -> Amount {
    let values = coins.map(|coin| coin.output.value);
    values.fold(Amount::ZERO, |sum, value| {
        sum.checked_add(value).unwrap_or(Amount::MAX_MONEY)
    })
}

/// What the wallet has in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    /// Without blocks' rewards that have not matured ..
    pub(crate) spendable: Amount,
    /// .. which are these.
    pub(crate) immature: Amount,
}

impl OnchainPayouts {
    pub(crate) fn new(parts: OnchainParts) -> Self {
        Self {
            parts,
            search: Search::default(),
            spender: Search::default(),
            make_after: None,
            replace_after: 0,
            short: 0,
        }
    }

    /// Pays until `shutdown`. It may be cut off anywhere.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let address = self.parts.keys.address();
        tracing::info!(%address, "payouts on the chain are made from the wallet with this address for deposits");
        let mut ticks = interval(Duration::from_millis(self.parts.config.check_interval_ms));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = String::new();
        let paying = async {
            loop {
                ticks.tick().await;
                let said = match self.round().await {
                    Ok(()) => String::new(),
                    Err(error) => error.to_string(),
                };
                // A node that is away is said once, not each time.
                if !said.is_empty() && said != told {
                    tracing::warn!(reason = said, "payouts on the chain wait; nothing is lost");
                }
                told = said;
            }
        };
        shutdown.run_until_cancelled(paying).await;
    }

    /// Everything that can be done now.
    async fn round(&mut self) -> Result<(), OnchainError> {
        let tip = self.tip().await?;
        let mut watched = Ok(());
        for batch in self.parts.ledger.paid_batches().await? {
            // What is wrong with one that is paid keeps nobody else from being paid.
            watched = self.watch(&batch, tip).await.and(watched);
        }
        match self.parts.ledger.open_batch().await? {
            Some(batch) => self.follow(&batch, tip).await?,
            None => self.make(tip).await?,
        }
        watched
    }

    async fn tip(&self) -> Result<ChainTip, OnchainError> {
        let tip = self.parts.node.tip().await?;
        let configured = self.parts.network;
        if tip.network != configured {
            return Err(OnchainError::OtherNetwork {
                node: tip.network,
                configured,
            });
        }
        match tip.is_syncing {
            true => Err(OnchainError::Syncing),
            false => Ok(tip),
        }
    }

    /// What a transaction pays that is to be in the chain in time.
    async fn fee_rate(&self) -> Result<FeeRate, OnchainError> {
        let node = &self.parts.node;
        let estimate = node.fee_rate(self.parts.config.conf_target).await?;
        let least = node.relay_fees().await?.least;
        let rate = estimate.unwrap_or(FALLBACK_RATE).max(least);
        Ok(rate.min(self.fee_rate_max()))
    }

    fn fee_rate_max(&self) -> FeeRate {
        let max = u64::from(self.parts.config.fee_rate_max_sat_vb);
        FeeRate::from_sat_per_vb(max).unwrap_or(FeeRate::MAX)
    }

    /// The wallet's coins: those in `spent`, which a transaction of ours spends, and those that nothing spends.
    async fn coins(&self, spent: &[OutPoint]) -> Result<(Vec<Coin>, Vec<Coin>), OnchainError> {
        let node = &self.parts.node;
        let (mut required, mut spare) = (Vec::new(), Vec::new());
        for found in node.coins(&self.parts.keys).await? {
            let outpoint = found.coin.outpoint;
            if spent.contains(&outpoint) {
                required.push(found.coin);
            } else if !found.is_immature
                // A coin that a reorganisation may take away would take the batch with it.
                && found.confirmations >= self.parts.config.confirmations
                // What somebody spends by hand is not touched.
                && node.is_unspent(outpoint, true).await?
            {
                spare.push(found.coin);
            }
        }
        Ok((required, spare))
    }
}
