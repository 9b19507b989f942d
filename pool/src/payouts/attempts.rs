//! An attempt's way: told to the wallet, looked at, booked.

use dovetail_ledger::{Attempt, AttemptState, LedgerError, Proof, Rail};
use dovetail_lightning::{
    ClientError, HASH_IN_FLIGHT, Hash32, InvoicePayment, OfferPayment, PaymentStatus,
};
use dovetail_telemetry::Event;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;

use super::decide::{Step, decide, is_worth_a_retry};
use super::told::{PaidOut, tell_worker};
use super::{PayoutError, Payouts, pace};

/// The class of a payee whose payment the wallet would not even note.
const WALLET_REFUSED: &str = "wallet_refused";
/// Why a payout is given up of which nothing else is known.
const EXPIRED: &str = "expired";
/// Why an attempt is in review: what the wallet calls a proof proves nothing.
const BAD_PROOF: &str = "bad_proof";

impl Payouts {
    /// Asks the wallet what became of the attempt, and does what follows.
    pub(super) async fn check(&self, attempt: Attempt) -> Result<(), PayoutError> {
        let status = match self.wallet()?.payment(attempt.id).await {
            Ok(status) => status,
            Err(error) => {
                self.look_again(&attempt).await?;
                return Err(error.into());
            }
        };
        match decide(&attempt, &status, unix_now(), self.parts.pace.unheard) {
            Step::Dispatch => self.dispatch(attempt).await,
            step => self.apply(&attempt, step).await,
        }
    }

    /// Makes the next attempt of a payout, or gives it up if its invoice has ended.
    pub(super) async fn retry(&self, last: Attempt) -> Result<(), PayoutError> {
        let (ledger, pace) = (&self.parts.ledger, &self.parts.pace);
        if is_worth_a_retry(&last, unix_now(), pace.retry_life_min) {
            if last.rail != Rail::Onchain {
                self.wallet()?;
            }
            let next = ledger.prepare_attempt(last.payout, rand::random(), pace.lease);
            let next = next.await?;
            return match next.rail {
                // It waits for a batch.
                Rail::Onchain => Ok(()),
                Rail::Bolt11 | Rail::Bolt12 => self.dispatch(next).await,
            };
        }
        let class = last.failure_class.as_deref().unwrap_or(EXPIRED);
        ledger.give_payout_up(last.payout, class).await?;
        tell_worker(&self.parts.mailboxes, &last.payee, last.payout, false);
        Ok(())
    }

    /// Tells the wallet to pay. The ledger has the attempt as prepared. Whatever goes wrong here, the attempt is looked at
    /// again.
    pub(super) async fn dispatch(&self, attempt: Attempt) -> Result<(), PayoutError> {
        let status = match self.tell_wallet(&attempt).await {
            Ok(status) => status,
            Err(error) => {
                self.undispatched(&attempt, &error).await?;
                return Err(error);
            }
        };
        match decide(&attempt, &status, unix_now(), self.parts.pace.unheard) {
            // It was told already; that it knows nothing of it shows when it is asked.
            Step::Dispatch => Ok(self.look_again(&attempt).await?),
            step => self.apply(&attempt, step).await,
        }
    }

    async fn tell_wallet(&self, attempt: &Attempt) -> Result<PaymentStatus, PayoutError> {
        let unsigned = |msat: Msat| u64::try_from(msat.get()).map_err(|_| PayoutError::Amount);
        let max_fee_msat = unsigned(attempt.fee_max)?;
        let wallet = self.wallet()?;
        let answer = match (attempt.rail, attempt.payment_hash) {
            (Rail::Bolt11, Some(payment_hash)) => {
                let payment = InvoicePayment {
                    attempt: Hash32(attempt.id),
                    payment_hash: Hash32(payment_hash),
                    bolt11: attempt.destination.clone(),
                    max_fee_msat,
                    cltv_max: attempt.cltv_max,
                };
                wallet.pay(payment).await
            }
            (Rail::Bolt11, None) | (Rail::Onchain, _) => {
                return Err(LedgerError::Corrupt("attempt").into());
            }
            (Rail::Bolt12, _) => {
                let payment = OfferPayment {
                    attempt: Hash32(attempt.id),
                    offer: attempt.destination.clone(),
                    amount_msat: unsigned(attempt.amount)?,
                    max_fee_msat,
                };
                wallet.pay_offer(payment).await
            }
        };
        Ok(answer?)
    }

    /// The wallet did not answer, or refused: whether it has noted the attempt shows when it is asked.
    async fn undispatched(
        &self,
        attempt: &Attempt,
        error: &PayoutError,
    ) -> Result<(), PayoutError> {
        let ledger = &self.parts.ledger;
        match error {
            // An attempt of this invoice that was called failed is none: it is under way, or has paid.
            PayoutError::Wallet(ClientError::Refused(refusal))
                if refusal.code == HASH_IN_FLIGHT =>
            {
                ledger.recheck_failed_attempts(attempt.payout).await?;
            }
            PayoutError::Wallet(ClientError::Refused(_)) => {
                let backoff = self.parts.pace.backoff;
                let put_off = ledger.put_payee_off(&attempt.payee, WALLET_REFUSED, backoff);
                put_off.await?;
            }
            _ => {}
        }
        Ok(self.look_again(attempt).await?)
    }

    async fn look_again(&self, attempt: &Attempt) -> Result<(), LedgerError> {
        let check_in = pace::next_check(attempt.state, attempt.age);
        self.parts.ledger.note_checked(attempt.id, check_in).await
    }

    async fn apply(&self, attempt: &Attempt, step: Step) -> Result<(), PayoutError> {
        let ledger = &self.parts.ledger;
        match step {
            Step::Wait | Step::Dispatch => self.look_again(attempt).await?,
            Step::NoteDispatched => {
                let check_in = pace::next_check(AttemptState::Dispatched, attempt.age);
                let check_in = check_in.unwrap_or(self.parts.pace.lease);
                ledger.note_dispatched(attempt.id, check_in).await?;
            }
            Step::Succeed(proof) => self.succeed(attempt, &proof).await?,
            Step::Fail(class) => {
                tracing::info!(payee = attempt.payee, class, "an attempt to pay has failed");
                let backoff = self.parts.pace.backoff;
                ledger.note_failed(attempt.id, class, Some(backoff)).await?;
            }
            Step::Review(reason) => self.review(attempt, reason).await?,
        }
        Ok(())
    }

    /// Books a success and tells the worker.
    async fn succeed(&self, attempt: &Attempt, proof: &Proof) -> Result<(), PayoutError> {
        let booked = self.parts.ledger.note_succeeded(attempt.id, proof).await;
        let success = match booked {
            Ok(success) => success,
            Err(LedgerError::Refused(_) | LedgerError::Conflict(_))
                if matches!(
                    attempt.state,
                    AttemptState::Prepared | AttemptState::Dispatched
                ) =>
            {
                return self.review(attempt, BAD_PROOF).await;
            }
            Err(error) => {
                self.look_again(attempt).await?;
                return Err(error.into());
            }
        };
        let paid = PaidOut {
            payout: attempt.payout,
            payee: &attempt.payee,
            amount: attempt.amount,
            fee: proof.fee,
            rail: &self.rail,
            alarm: "a payment that the wallet had called failed has arrived; find out why before you pay on",
        };
        paid.tell(success, &self.parts.telemetry, &self.parts.mailboxes);
        Ok(())
    }

    async fn review(&self, attempt: &Attempt, reason: &'static str) -> Result<(), PayoutError> {
        let check_in = pace::next_check(AttemptState::Review, attempt.age);
        let check_in = check_in.unwrap_or(self.parts.pace.lease);
        let ledger = &self.parts.ledger;
        ledger.note_review(attempt.id, reason, check_in).await?;
        let payout = hex::encode(attempt.payout);
        tracing::error!(
            payout,
            payee = attempt.payee,
            reason,
            "ALARM: nobody can tell what became of a payment; see `dovetail-pool payouts`, and decide"
        );
        self.parts.telemetry.emit(&Event::PayoutReview {
            payout: &payout,
            worker: &attempt.payee,
            amount_msat: attempt.amount,
            reason,
        });
        Ok(())
    }
}
