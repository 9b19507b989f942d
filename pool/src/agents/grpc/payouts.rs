//! Where an account is paid, and how its owner changes that: `dovetail.payouts.v1`.
//!
//! Anybody may ask, so few are answered at a time. What is stated goes to the ledger only once its proof holds.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use dovetail_api::codes::Code;
use dovetail_api::payouts_v1::{
    self as v1,
    payouts_server::{Payouts, PayoutsServer},
};
use dovetail_ledger::{DestinationRecord, Ledger, StatementRefusal};
use dovetail_payee::{
    AGE_S_MAX, CLOCK_S_MAX, Owner, PayTo, PayToKind, Schedule, Statement, THRESHOLD_MSAT_MAX,
};
use dovetail_units::time::unix_now;
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use super::status::unavailable;
use super::{check_account, turn};
use crate::config::Config;
use crate::payouts::destination::{Pays, destination_class, way_of_name};

/// How many are answered at a time: each takes one of the ledger's connections for milliseconds.
const TURNS_MAX: usize = 4;
/// How long a caller waits for its turn.
const TURN_TIME_MAX: Duration = Duration::from_secs(5);
/// The longest request: an offer of 4 KiB, an account, an address and a proof.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// The service.
#[derive(Clone)]
pub(crate) struct PayoutsService {
    ledger: Ledger,
    /// What statements name this pool by.
    pool_key: [u8; 32],
    network: Network,
    hold: Duration,
    threshold_min_msat: i64,
    pays: Pays,
    turns: Arc<Semaphore>,
}

impl PayoutsService {
    pub(crate) fn new(ledger: Ledger, pool_key: [u8; 32], config: &Config) -> Self {
        Self {
            ledger,
            pool_key,
            network: config.mining.network,
            hold: config.destinations.hold(),
            threshold_min_msat: config.lightning.payout_threshold_msat,
            pays: Pays::of(config),
            turns: Arc::new(Semaphore::new(TURNS_MAX)),
        }
    }

    /// The gRPC service.
    pub(crate) fn into_service(self) -> PayoutsServer<Self> {
        PayoutsServer::new(self).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, Status> {
        let full =
            || Code::PayoutsFull.status("too many are asking about payouts; try again later");
        turn(&self.turns, TURN_TIME_MAX, full).await
    }

    /// What is asked for, if it has the form of a statement that this pool could take.
    fn statement(&self, asked: v1::SetDestinationRequest) -> Result<Statement, Status> {
        let kind = kind_of(asked.kind())?;
        if !self.pays.by(kind) {
            return Err(invalid(
                "this pool does not pay to destinations of this kind",
            ));
        }
        let pay_to = PayTo::parse(kind, &asked.destination, self.network);
        let pay_to = pay_to.map_err(|error| invalid(&format!("the destination: {error}")))?;
        let fallback = match &*asked.fallback {
            "" => None,
            _ if !self.pays.onchain => {
                return Err(invalid(
                    "this pool pays nothing on-chain: leave the fallback out",
                ));
            }
            address => {
                let address = PayTo::parse(PayToKind::Onchain, address, self.network);
                let address =
                    address.map_err(|error| invalid(&format!("the fallback: {error}")))?;
                Some(address.value().to_owned())
            }
        };
        let schedule = match &*asked.schedule {
            "" => Schedule::AsEarned,
            schedule => schedule
                .parse()
                .map_err(|error| invalid(&format!("the schedule: {error}")))?,
        };
        Ok(Statement {
            pool: self.pool_key,
            network: self.network,
            account: asked.account,
            pay_to,
            fallback,
            threshold_msat: self.threshold(asked.threshold_msat)?,
            schedule,
            made_unix: asked.made_unix,
        })
    }

    fn threshold(&self, msat: i64) -> Result<Option<u64>, Status> {
        if msat == 0 {
            return Ok(None);
        }
        let least = self.threshold_min_msat;
        let threshold = u64::try_from(msat).ok();
        match threshold.filter(|msat| *msat <= THRESHOLD_MSAT_MAX) {
            Some(threshold) if msat >= least => Ok(Some(threshold)),
            _ => Err(invalid(&format!(
                "a threshold is 0, or {least} to {THRESHOLD_MSAT_MAX} msat here"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Payouts for PayoutsService {
    async fn get_destination(
        &self,
        request: Request<v1::GetDestinationRequest>,
    ) -> Result<Response<v1::GetDestinationResponse>, Status> {
        let account = request.into_inner().account;
        check_account(&account)?;
        let _turn = self.turn().await?;
        let stated = self.ledger.destinations(&account).await;
        let stated = stated.map_err(|error| unavailable(&error))?;
        let standing = self.ledger.payee_standing(&account).await;
        let standing = standing.map_err(|error| unavailable(&error))?;
        let standing = standing.unwrap_or_default();
        let class = match stated.active {
            Some(_) => None,
            None => destination_class(&account, self.pays),
        };
        let active = match &stated.active {
            Some(active) => Some(terms(active)),
            None => way_of_name(&account)
                .filter(|way| self.pays.by(way.kind()))
                .map(|way| terms_of_name(&way)),
        };
        let has_failed = standing.tries > 0;
        Ok(Response::new(v1::GetDestinationResponse {
            pool_key: self.pool_key.to_vec(),
            network: self.network.to_string(),
            hold_s: i64::try_from(self.hold.as_secs()).unwrap_or(i64::MAX),
            threshold_min_msat: self.threshold_min_msat,
            active,
            pending: stated.pending.as_ref().map(terms),
            tries: standing.tries,
            failure_class: class
                .map(str::to_owned)
                .or(standing.failure_class)
                .unwrap_or_default(),
            next_try_unix: match has_failed && class.is_none() {
                true => standing.next_try_unix,
                false => 0,
            },
            can_be_set: Owner::of(&account, self.network).is_ok(),
        }))
    }

    async fn set_destination(
        &self,
        request: Request<v1::SetDestinationRequest>,
    ) -> Result<Response<v1::SetDestinationResponse>, Status> {
        let mut asked = request.into_inner();
        check_account(&asked.account)?;
        // The account's own spelling: what miners are credited under.
        if let Some(way) = way_of_name(&asked.account) {
            asked.account = way.value().to_owned();
        }
        Owner::of(&asked.account, self.network)
            .map_err(|error| Code::DestinationFixed.status(error.to_string()))?;
        let proof = std::mem::take(&mut asked.proof);
        let statement = self.statement(asked)?;
        let now = unix_now();
        let made = statement.made_unix;
        if made > now.saturating_add(CLOCK_S_MAX) || made < now.saturating_sub(AGE_S_MAX) {
            return Err(Code::StatementInvalid.status(
                "the statement was made more than a day ago, or in the future: look at the clock and make a new one",
            ));
        }
        let _turn = self.turn().await?;
        statement
            .verify(&proof)
            .map_err(|error| Code::StatementInvalid.status(error.to_string()))?;
        let taken = self.ledger.state_destination(&statement, &proof, self.hold);
        let taken = taken.await.map_err(refusal)?;
        tracing::info!(
            account = statement.account,
            kind = statement.pay_to.kind().name(),
            active_from_unix = taken.active_from_unix,
            "an account has stated where it is paid"
        );
        Ok(Response::new(v1::SetDestinationResponse {
            terms: Some(terms(&taken)),
        }))
    }
}

fn invalid(message: &str) -> Status {
    Code::DestinationInvalid.status(message)
}

fn refusal(refusal: StatementRefusal) -> Status {
    let code = match &refusal {
        StatementRefusal::AccountUnknown => Code::AccountUnknown,
        StatementRefusal::Stale => Code::StatementStale,
        StatementRefusal::TooMany => Code::StatementsFull,
        StatementRefusal::Ledger(error) => return unavailable(error),
    };
    code.status(refusal.to_string())
}

fn kind_of(kind: v1::DestinationKind) -> Result<PayToKind, Status> {
    Ok(match kind {
        v1::DestinationKind::Unspecified => {
            return Err(Code::ArgumentInvalid.status("kind is not one that there is"));
        }
        v1::DestinationKind::Worker => PayToKind::Worker,
        v1::DestinationKind::Bolt12 => PayToKind::Bolt12,
        v1::DestinationKind::LightningAddress => PayToKind::LightningAddress,
        v1::DestinationKind::Onchain => PayToKind::Onchain,
    })
}

fn kind_view(kind: PayToKind) -> v1::DestinationKind {
    match kind {
        PayToKind::Worker => v1::DestinationKind::Worker,
        PayToKind::Bolt12 => v1::DestinationKind::Bolt12,
        PayToKind::LightningAddress => v1::DestinationKind::LightningAddress,
        PayToKind::Onchain => v1::DestinationKind::Onchain,
    }
}

fn terms(record: &DestinationRecord) -> v1::Terms {
    let fallback = record.fallback.clone();
    v1::Terms {
        kind: kind_view(record.pay_to.kind()).into(),
        destination: record.pay_to.masked(),
        fallback: fallback
            .map(|address| PayTo::kept(PayToKind::Onchain, address).masked())
            .unwrap_or_default(),
        threshold_msat: record.threshold.map_or(0, |msat| msat.get()),
        schedule: record.schedule.to_string(),
        made_unix: record.made_unix,
        active_from_unix: record.active_from_unix,
    }
}

/// The name is known to whoever asks.
fn terms_of_name(way: &PayTo) -> v1::Terms {
    v1::Terms {
        kind: kind_view(way.kind()).into(),
        destination: way.value().to_owned(),
        schedule: Schedule::AsEarned.to_string(),
        ..v1::Terms::default()
    }
}

#[cfg(test)]
mod tests;
