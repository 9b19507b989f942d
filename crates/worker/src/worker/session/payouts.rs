//! A session's payouts: between the pool's messages and the wallet.

use std::time::Instant;

use dovetail_miner::stats::add;
use dovetail_sv2::OutboxError;
use dovetail_sv2::extension::{Invoice, PayoutResult, RequestInvoice, sign_invoice};

use super::Session;
use crate::wallet::PayoutEvent;
use crate::worker::Worker;
use crate::worker::session_failure::SessionFailure;

impl Worker {
    /// The pool wants to pay.
    pub(super) fn on_invoice_wanted(
        &mut self,
        session: &mut Session,
        request: &RequestInvoice,
    ) -> Result<(), SessionFailure> {
        if session.chatter.may_log() {
            tracing::info!(payout = %hex::encode(request.payout_id), msat = request.amount_msat, "the pool wants to pay");
        }
        let now = Instant::now();
        let Some(answer) = self.payouts.requested(session.index, request, now) else {
            return Ok(());
        };
        // One that was made before, or none.
        session.chatter.useless()?;
        self.on_payout_event(session, answer)?;
        Ok(())
    }

    /// The pool says how a payout ended. The wallet knows better.
    pub(super) fn on_payout(
        &mut self,
        session: &mut Session,
        result: &PayoutResult,
    ) -> Result<(), SessionFailure> {
        if !self.payouts.ended(session.index, result, Instant::now()) {
            session.chatter.useless()?;
        }
        if session.chatter.may_log() {
            tracing::info!(payout = %hex::encode(result.payout_id), paid = result.paid, "the pool says that the payout ended");
        }
        Ok(())
    }

    pub(super) fn on_payout_event(
        &self,
        session: &Session,
        event: PayoutEvent,
    ) -> Result<(), OutboxError> {
        match event {
            PayoutEvent::Invoice(pool, made) if pool == session.index => {
                let (payout_id, hash) = (made.payout_id, made.payment_hash);
                session.pool.send(&Invoice {
                    payout_id,
                    bolt11: made.bolt11,
                    signature: sign_invoice(&self.keys.pair, &payout_id, &hash),
                })
            }
            PayoutEvent::Refused(pool, error) if pool == session.index => session.pool.send(&error),
            // Its pool asks again on its next session.
            PayoutEvent::Invoice(..) | PayoutEvent::Refused(..) => Ok(()),
            PayoutEvent::Paid(msat) => {
                add(&self.stats.paid_msat, msat);
                Ok(())
            }
        }
    }
}
