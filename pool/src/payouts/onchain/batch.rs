//! A batch of the payouts that wait: chosen, composed, stored with its first transaction.

use std::time::{Duration, Instant};

use bitcoin::consensus;
use bitcoin::hashes::Hash;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction};
use dovetail_ledger::{NewOutput, NewTransaction, WaitingOutput};
use dovetail_onchain::{ChainTip, Coin, ComposeError, Composed, Payment, Request, Taken, compose};
use dovetail_telemetry::Event;

use super::begin::script_of;
use super::{OnchainError, OnchainPayouts, RETRY_TIME_MAX, total};

/// The class of an attempt that can never be paid: it is not tried again. That of one that has waited for too long.
const INVALID: &str = "invalid";
const EXPIRED: &str = "expired";
/// The classes of payees that wait: the pool's wallet has not enough, or the chain asks for more than was set aside.
const POOL_SHORT: &str = "pool_short";
const FEE_LIMIT: &str = "fee_limit";

/// One that can be paid.
struct Candidate {
    waiting: WaitingOutput,
    payment: Payment,
    fee_max: Amount,
}

impl OnchainPayouts {
    /// Makes a batch if it is time for one.
    pub(super) async fn make(&mut self, tip: ChainTip) -> Result<(), OnchainError> {
        if self.make_after.is_some_and(|after| Instant::now() < after) {
            return Ok(());
        }
        let config = &self.parts.config;
        let (outputs_max, interval_s) = (config.outputs_max, config.interval_s);
        let waiting = self.parts.ledger.waiting_outputs(outputs_max).await?;
        let longest = waiting.first().map_or(Duration::ZERO, |first| first.age);
        let is_full = waiting.len() >= usize::try_from(outputs_max).unwrap_or(usize::MAX);
        if waiting.is_empty() || (longest < Duration::from_secs(interval_s) && !is_full) {
            return Ok(());
        }
        let candidates = self.payable(waiting).await?;
        if candidates.is_empty() {
            return Ok(());
        }
        let made = self.make_of(candidates, tip).await;
        // The wallet is not searched for again at once, whatever stood in the way.
        let pause = Duration::from_secs(interval_s.max(1)).min(RETRY_TIME_MAX);
        self.make_after = match made {
            Ok(true) => None,
            _ => Some(Instant::now() + pause),
        };
        made.map(drop)
    }

    /// Those that can be paid; what cannot is called failed, and blocks nobody.
    async fn payable(&self, waiting: Vec<WaitingOutput>) -> Result<Vec<Candidate>, OnchainError> {
        let mut candidates = Vec::with_capacity(waiting.len());
        for waiting in waiting {
            let sat = |msat: i64| u64::try_from(msat / 1_000).map(Amount::from_sat).ok();
            let amount = sat(waiting.amount.get()).unwrap_or(Amount::ZERO);
            let is_whole = waiting.amount.get() % 1_000 == 0;
            let script = script_of(&waiting.address, self.parts.network, amount);
            let class = match (&script, waiting.has_expired) {
                (_, true) => EXPIRED,
                (Err(_), _) => INVALID,
                (Ok(_), false) if !is_whole => INVALID,
                (Ok(script), false) => {
                    candidates.push(Candidate {
                        payment: Payment {
                            script: script.clone(),
                            amount,
                        },
                        fee_max: sat(waiting.fee_max.get()).unwrap_or(Amount::ZERO),
                        waiting,
                    });
                    continue;
                }
            };
            tracing::warn!(payee = waiting.payee, class, "a payout cannot be made");
            let backoff = Some(self.parts.backoff);
            let ledger = &self.parts.ledger;
            ledger.note_failed(waiting.attempt, class, backoff).await?;
        }
        Ok(candidates)
    }

    /// Makes a batch of as many as the wallet can pay; `false` if that is none.
    async fn make_of(
        &mut self,
        mut candidates: Vec<Candidate>,
        tip: ChainTip,
    ) -> Result<bool, OnchainError> {
        let rate = self.fee_rate().await?;
        let (_, coins) = self.coins(&[]).await?;
        let composed = match self.compose_batch(&candidates, &coins, rate, tip) {
            Err(ComposeError::NotEnough { .. }) => {
                let has = total(coins.iter());
                let left = split_affordable(&mut candidates, has);
                self.tell_short(&left, has).await?;
                if candidates.is_empty() {
                    return Ok(false);
                }
                self.compose_batch(&candidates, &coins, rate, tip)
            }
            composed => {
                self.short = 0;
                composed
            }
        };
        let composed = match composed {
            Err(error @ ComposeError::TooCostly { .. }) => {
                self.note_waiting(&candidates, FEE_LIMIT).await?;
                return Err(error.into());
            }
            composed => composed?,
        };
        if let Taken::No(reason) = self.parts.node.would_take(&composed.transaction).await? {
            return Err(OnchainError::NotTaken(reason));
        }
        let outputs: Vec<NewOutput> = candidates
            .iter()
            .map(|candidate| NewOutput {
                attempt: candidate.waiting.attempt,
                script: candidate.payment.script.to_bytes(),
                amount_sat: candidate.waiting.amount.get() / 1_000,
            })
            .collect();
        let transaction = stored(&composed, tip)?;
        let ledger = &self.parts.ledger;
        let number = ledger.begin_batch(&outputs, &transaction).await?;
        tracing::info!(
            batch = number,
            payees = outputs.len(),
            "a batch of payouts on the chain is made"
        );
        if let Some(batch) = ledger.open_batch().await? {
            self.hand_out(&batch).await?;
        }
        Ok(true)
    }

    /// The rate is lowered to what was set aside, if that is enough for nodes.
    fn compose_batch(
        &self,
        candidates: &[Candidate],
        coins: &[Coin],
        rate: FeeRate,
        tip: ChainTip,
    ) -> Result<Composed, ComposeError> {
        let payments: Vec<Payment> = candidates
            .iter()
            .map(|candidate| candidate.payment.clone())
            .collect();
        let fee_max = candidates
            .iter()
            .map(|candidate| candidate.fee_max)
            .try_fold(Amount::ZERO, Amount::checked_add)
            .ok_or(ComposeError::Amount)?;
        let change = self.parts.keys.change_script(u64::from(tip.height));
        let request = Request {
            payments: &payments,
            required: &[],
            spare: coins,
            change: &change,
            fee_rate: rate,
            fee_max,
            replaces: None,
        };
        match compose(&self.parts.keys, &request) {
            Err(ComposeError::TooCostly { fee, fee_max }) if fee > Amount::ZERO => {
                let lower = rate.to_sat_per_kwu().saturating_mul(fee_max.to_sat()) / fee.to_sat();
                let fee_rate = FeeRate::from_sat_per_kwu(lower);
                match fee_rate >= FeeRate::BROADCAST_MIN {
                    true => compose(
                        &self.parts.keys,
                        &Request {
                            fee_rate,
                            ..request
                        },
                    ),
                    false => Err(ComposeError::TooCostly { fee, fee_max }),
                }
            }
            composed => composed,
        }
    }

    async fn tell_short(&mut self, left: &[Candidate], has: Amount) -> Result<(), OnchainError> {
        self.note_waiting(left, POOL_SHORT).await?;
        if self.short != left.len() {
            tracing::error!(
                payouts = left.len(),
                has_sat = has.to_sat(),
                address = %self.parts.keys.address(),
                "ALARM: the wallet on the chain has not enough for the payouts that wait; put money in"
            );
            self.parts.telemetry.emit(&Event::OnchainShort {
                payouts: left.len(),
                has_sat: has.to_sat(),
            });
        }
        self.short = left.len();
        Ok(())
    }

    async fn note_waiting(&self, who: &[Candidate], class: &str) -> Result<(), OnchainError> {
        let payees: Vec<String> = who
            .iter()
            .map(|candidate| candidate.waiting.payee.clone())
            .collect();
        Ok(self.parts.ledger.note_waiting(&payees, class).await?)
    }
}

/// Leaves those that so much pays for, the oldest first, each with all that its fee may be; returns the others.
fn split_affordable(candidates: &mut Vec<Candidate>, has: Amount) -> Vec<Candidate> {
    let mut rest = has;
    let (paid, left) = std::mem::take(candidates)
        .into_iter()
        .partition(|candidate| {
            let needs = candidate.payment.amount.checked_add(candidate.fee_max);
            let after = needs.and_then(|needs| rest.checked_sub(needs));
            rest = after.unwrap_or(rest);
            after.is_some()
        });
    *candidates = paid;
    left
}

/// As the ledger keeps it.
pub(super) fn stored(composed: &Composed, tip: ChainTip) -> Result<NewTransaction, OnchainError> {
    Ok(NewTransaction {
        txid: composed.transaction.compute_txid().to_byte_array(),
        raw: consensus::serialize(&composed.transaction),
        inputs: inputs_of(&composed.transaction)
            .map(outpoint_bytes)
            .collect(),
        fee_sat: i64::try_from(composed.fee.to_sat()).map_err(|_| ComposeError::Amount)?,
        tip_height: tip.height,
    })
}

pub(super) fn inputs_of(transaction: &Transaction) -> impl Iterator<Item = OutPoint> {
    transaction.input.iter().map(|input| input.previous_output)
}

fn outpoint_bytes(outpoint: OutPoint) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..32].copy_from_slice(&outpoint.txid.to_byte_array());
    bytes[32..].copy_from_slice(&outpoint.vout.to_le_bytes());
    bytes
}
