//! Where a pool pays an account, and changing it. A pool is a stranger: its words are bounded, and what is signed is made
//! here, of what the owner asked for.

use bitcoin::Network;
use dovetail_api::connection::PoolAddress;
use dovetail_api::payouts_v1::{self as v1, payouts_client::PayoutsClient};
use dovetail_api::{ID_BYTES, words};
use dovetail_payee::{PayToKind, Statement};
use serde::Serialize;
use tonic::Request;
use tonic::transport::Channel;

use crate::AgentError;
use crate::client::{CALL_TIME_MAX, open, within};

/// The largest answer: some short texts, and an account's name.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// How an account is paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// By what; empty if the pool named nothing that is known here.
    pub kind: &'static str,
    /// Where to, in part.
    pub destination: String,
    /// The Bitcoin address for what cannot be paid over Lightning, in part. Empty: none.
    pub fallback: String,
    /// From which balance on; 0: the pool's least.
    pub threshold_msat: i64,
    /// When.
    pub schedule: String,
    /// When it was stated, in seconds of Unix time; 0: the account's name says so.
    pub made_unix: u64,
    /// From when on it holds.
    pub active_from_unix: u64,
}

/// What a pool says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaidWhere {
    /// The key that statements name the pool by.
    pub pool_key: [u8; 32],
    /// The pool's network.
    pub network: Network,
    /// How long a change waits, in seconds.
    pub hold_s: i64,
    /// What is paid at least.
    pub threshold_min_msat: i64,
    /// How it is paid now, if it is.
    pub active: Option<Terms>,
    /// What will hold.
    pub pending: Option<Terms>,
    /// How often in a row paying it has failed.
    pub tries: u32,
    /// Why, the last time; empty without a failure.
    pub failure_class: String,
    /// When it is tried next; 0 without a failure.
    pub next_try_unix: u64,
    /// Whether the account can state where it is paid.
    pub can_be_set: bool,
}

/// A connection to one pool, for payees.
#[derive(Clone, Debug)]
pub struct PayeeClient {
    url: String,
    inner: PayoutsClient<Channel>,
}

impl PayeeClient {
    /// Connects to the address of a pool, as [`crate::AgentClient::connect`] does.
    ///
    /// # Errors
    /// [`AgentError::Address`], [`AgentError::Unreachable`] and [`AgentError::Tls`].
    pub async fn connect(pool: impl Into<PoolAddress>) -> Result<Self, AgentError> {
        let (url, channel) = open(&pool.into()).await?;
        let inner = PayoutsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Ok(Self { url, inner })
    }

    /// How the account is paid.
    ///
    /// # Errors
    /// What calls fail with.
    pub async fn paid_where(&self, account: &str) -> Result<PaidWhere, AgentError> {
        let request = unary(v1::GetDestinationRequest {
            account: account.to_owned(),
        });
        let mut inner = self.inner.clone();
        let call = inner.get_destination(request);
        let answer = within(&self.url, CALL_TIME_MAX, call).await?;
        let pool_key = <[u8; ID_BYTES]>::try_from(&*answer.pool_key)
            .map_err(|_| AgentError::Protocol("its key has not 32 bytes".to_owned()))?;
        let network = answer
            .network
            .parse()
            .map_err(|_| AgentError::Protocol("it is of a network that nobody knows".to_owned()))?;
        Ok(PaidWhere {
            pool_key,
            network,
            hold_s: answer.hold_s,
            threshold_min_msat: answer.threshold_min_msat,
            active: answer.active.map(terms),
            pending: answer.pending.map(terms),
            tries: answer.tries,
            failure_class: words::word(&answer.failure_class),
            next_try_unix: answer.next_try_unix,
            can_be_set: answer.can_be_set,
        })
    }

    /// Has the pool take the statement.
    ///
    /// # Errors
    /// What calls fail with.
    pub async fn state(&self, statement: &Statement, proof: &[u8]) -> Result<Terms, AgentError> {
        let threshold = statement.threshold_msat.map(i64::try_from).transpose();
        let threshold = threshold
            .map_err(|_| AgentError::Protocol("a threshold is out of range".to_owned()))?;
        let request = unary(v1::SetDestinationRequest {
            account: statement.account.clone(),
            kind: kind_view(statement.pay_to.kind()).into(),
            destination: statement.pay_to.value().to_owned(),
            fallback: statement.fallback.clone().unwrap_or_default(),
            threshold_msat: threshold.unwrap_or(0),
            schedule: statement.schedule.to_string(),
            made_unix: statement.made_unix,
            proof: proof.to_vec(),
        });
        let mut inner = self.inner.clone();
        let call = inner.set_destination(request);
        let answer = within(&self.url, CALL_TIME_MAX, call).await?;
        let taken = answer.terms.map(terms);
        taken.ok_or_else(|| AgentError::Protocol("it holds no terms".to_owned()))
    }
}

fn unary<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIME_MAX);
    request
}

fn kind_view(kind: PayToKind) -> v1::DestinationKind {
    match kind {
        PayToKind::Worker => v1::DestinationKind::Worker,
        PayToKind::Bolt12 => v1::DestinationKind::Bolt12,
        PayToKind::LightningAddress => v1::DestinationKind::LightningAddress,
        PayToKind::Onchain => v1::DestinationKind::Onchain,
    }
}

fn terms(terms: v1::Terms) -> Terms {
    let kind = match terms.kind() {
        v1::DestinationKind::Unspecified => "",
        v1::DestinationKind::Worker => PayToKind::Worker.name(),
        v1::DestinationKind::Bolt12 => PayToKind::Bolt12.name(),
        v1::DestinationKind::LightningAddress => PayToKind::LightningAddress.name(),
        v1::DestinationKind::Onchain => PayToKind::Onchain.name(),
    };
    Terms {
        kind,
        destination: words::message(&terms.destination),
        fallback: words::message(&terms.fallback),
        threshold_msat: terms.threshold_msat,
        schedule: words::word(&terms.schedule),
        made_unix: terms.made_unix,
        active_from_unix: terms.active_from_unix,
    }
}
