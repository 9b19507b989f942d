//! Handing an attempt to LDK. The attempt is noted before, and what LDK answers after.

use std::sync::PoisonError;
use std::time::Duration;

use dovetail_lightning::{
    ATTEMPT_REUSED, FailureClass, HASH_IN_FLIGHT, Hash32, InvoicePayment, OfferPayment,
    PaymentStatus, Refusal,
};
use ldk_node::NodeError;
use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::constants::ChainHash;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::offers::offer::{Amount, Offer};
use ldk_node::lightning::routing::router::RouteParametersConfig;
use ldk_node::lightning_invoice::Bolt11Invoice;

use crate::failures::{self, Answer};
use crate::records::{Begun, State, Target};
use crate::recovery;
use crate::wallet::{LdkWallet, storage};

/// For how many blocks a node on an offer's route may hold the money: three days.
const OFFER_CLTV_MAX: u32 = 432;
/// A payment hash is not tried again before LDK has told, after a start, what it had not told before: an old failure that
/// is told again would be taken for the new attempt's.
const RETRY_AFTER_START: Duration = Duration::from_secs(10);

/// How long an answer waits for LDK's manager to reach the disk. It takes some milliseconds, unless it was there before we
/// looked.
const MANAGER_TIME_MAX: Duration = Duration::from_millis(500);

impl LdkWallet {
    /// Hands an invoice to LDK, or says how its attempt stands.
    pub(crate) fn pay_invoice(&self, payment: &InvoicePayment) -> Result<PaymentStatus, Refusal> {
        let (attempt, payment_hash) = (payment.attempt, payment.payment_hash);
        let target = Target::Invoice { payment_hash };
        self.one_at_a_time(attempt, target, |writes| {
            let invoice = match self.check_invoice(payment) {
                Ok(invoice) => invoice,
                Err(reason) => return self.fail_at_once(attempt, target, reason),
            };
            let amount_msat = invoice.amount_milli_satoshis().unwrap_or(0);
            if self.can_send_msat() < amount_msat {
                return self.fail_at_once(attempt, target, FailureClass::NoLiquidity);
            }
            if self.records().attempts_of(&payment_hash) > 0 {
                self.make_way_for_retry(payment_hash)?;
            }
            match self.begin(attempt, target, State::Noted)? {
                Begun::Now => {}
                obstacle => return begun_before(obstacle),
            }
            let route = route(payment.max_fee_msat, u32::from(payment.cltv_max));
            let sent = self.node.bolt11_payment().send(&invoice, Some(route));
            *writes = Some(self.watch.manager_writes());
            match sent {
                Ok(id) => self.note_sent(attempt, Hash32(id.0)),
                Err(NodeError::DuplicatePayment) => self.take_listed(attempt, payment_hash),
                Err(error) => self.note_error(attempt, Some(payment_hash), error, amount_msat),
            }
        })
    }

    /// Hands an offer to LDK, or says how its attempt stands.
    pub(crate) fn pay_offer_now(&self, payment: &OfferPayment) -> Result<PaymentStatus, Refusal> {
        let (attempt, amount_msat) = (payment.attempt, payment.amount_msat);
        let offer = payment.offer.parse::<Offer>().ok();
        // What is no offer has no id; that it is not paid is noted all the same.
        let target = offer
            .as_ref()
            .map_or(Target::Unreadable, |offer| Target::Offer {
                offer: Hash32(offer.id().0),
                amount_msat,
            });
        self.one_at_a_time(attempt, target, |writes| {
            let Some(offer) = offer else {
                return self.fail_at_once(attempt, target, FailureClass::Invalid);
            };
            if let Some(reason) = offer_fault(&offer, amount_msat, self.node.config().network) {
                return self.fail_at_once(attempt, target, reason);
            }
            if self.can_send_msat() < amount_msat {
                return self.fail_at_once(attempt, target, FailureClass::NoLiquidity);
            }
            match self.begin(attempt, target, State::Noted)? {
                Begun::Now => {}
                obstacle => return begun_before(obstacle),
            }
            // The id is LDK's and known only after: until it is noted, LDK's writes leave a mark.
            let mark = self.records().mark(&attempt);
            self.watch.begin(mark);
            let route = route(payment.max_fee_msat, OFFER_CLTV_MAX);
            let offers = self.node.bolt12_payment();
            // Without a note to the payee: some payees refuse one together with a blinded path.
            let sent = offers.send_using_amount(&offer, amount_msat, None, None, Some(route));
            *writes = Some(self.watch.manager_writes());
            let noted = match sent {
                Ok(id) => self.note_sent(attempt, Hash32(id.0)),
                Err(error) => self.note_error(attempt, None, error, amount_msat),
            };
            // What could not be noted stays watched.
            if noted.is_ok() {
                self.watch.end();
            }
            noted
        })
    }

    /// Hands an attempt over unless something stands against it, while no other is handed over. `hand_over` says how many
    /// writes of LDK's manager had begun when LDK had the payment.
    fn one_at_a_time(
        &self,
        attempt: Hash32,
        target: Target,
        hand_over: impl FnOnce(&mut Option<u64>) -> Result<PaymentStatus, Refusal>,
    ) -> Result<PaymentStatus, Refusal> {
        // Answered at once, also while another is handed over.
        if let Some(obstacle) = self.records().obstacle(&attempt, target) {
            return begun_before(obstacle);
        }
        let mut writes = None;
        let status = {
            let dispatching = self.dispatching.lock();
            let _held = dispatching.unwrap_or_else(PoisonError::into_inner);
            // The same may have been handed over just now: it must not be taken for a retry.
            if let Some(obstacle) = self.records().obstacle(&attempt, target) {
                return begun_before(obstacle);
            }
            hand_over(&mut writes)?
        };
        match (status, writes) {
            (PaymentStatus::Pending, Some(writes)) => {
                self.watch.wait_for_manager(writes, MANAGER_TIME_MAX);
                Ok(self.records().status(&attempt))
            }
            _ => Ok(status),
        }
    }

    fn check_invoice(&self, payment: &InvoicePayment) -> Result<Bolt11Invoice, FailureClass> {
        let invoice: Bolt11Invoice = payment.bolt11.parse().map_err(|_| FailureClass::Invalid)?;
        let hash: &[u8] = invoice.payment_hash().as_ref();
        let is_as_said = hash == payment.payment_hash.0
            && invoice.network() == self.node.config().network
            && invoice
                .amount_milli_satoshis()
                .is_some_and(|amount| amount > 0);
        match (is_as_said, invoice.is_expired()) {
            (false, _) => Err(FailureClass::Invalid),
            (true, true) => Err(FailureClass::Expired),
            (true, false) => Ok(invoice),
        }
    }

    /// What the usable channels can send now.
    pub(crate) fn can_send_msat(&self) -> u64 {
        let channels = self.node.list_channels();
        let usable = channels.iter().filter(|channel| channel.is_usable);
        usable.map(|channel| channel.outbound_capacity_msat).sum()
    }

    /// An earlier attempt of the hash is proven failed: LDK's list of payments shall not speak of it any more.
    fn make_way_for_retry(&self, hash: Hash32) -> Result<(), Refusal> {
        if self.started.elapsed() < RETRY_AFTER_START {
            return Err(Refusal::new(
                HASH_IN_FLIGHT,
                "the node has just started and may hear more of the earlier attempt: try again in 10 s",
            ));
        }
        let removed = self.node.remove_payment(&PaymentId(hash.0));
        removed.map_err(|error| Refusal::new("storage", error.to_string()))
    }

    fn begin(&self, attempt: Hash32, target: Target, state: State) -> Result<Begun, Refusal> {
        let begun = self.records().begin(attempt, target, state);
        begun.map_err(|error| storage(&error))
    }

    /// Notes an attempt that LDK need not hear of.
    fn fail_at_once(
        &self,
        attempt: Hash32,
        target: Target,
        reason: FailureClass,
    ) -> Result<PaymentStatus, Refusal> {
        match self.begin(attempt, target, State::Failed { reason })? {
            Begun::Now => Ok(PaymentStatus::Failed { reason }),
            obstacle => begun_before(obstacle),
        }
    }

    /// If the id cannot be noted, the payment is under way nonetheless: the answer is an error, and the next start decides.
    fn note_sent(&self, attempt: Hash32, id: Hash32) -> Result<PaymentStatus, Refusal> {
        let mut records = self.records();
        records
            .sent(&attempt, id)
            .map_err(|error| storage(&error))?;
        Ok(records.status(&attempt))
    }

    fn note_error(
        &self,
        attempt: Hash32,
        id: Option<Hash32>,
        error: NodeError,
        amount_msat: u64,
    ) -> Result<PaymentStatus, Refusal> {
        let answer = failures::of_call(error, self.can_send_msat() >= amount_msat);
        let mut records = self.records();
        match answer {
            Answer::Failed(reason) => records
                .settle(&attempt, State::Failed { reason })
                .map_err(|error| storage(&error))?,
            Answer::NotHeard => {
                records.forget(&attempt).map_err(|error| storage(&error))?;
                return Err(Refusal::new(
                    "not-running",
                    "the node is stopping or starting",
                ));
            }
            Answer::Uncertain => {
                tracing::warn!(%error, attempt = %hex::encode(attempt.0), "LDK cannot say whether a payment left");
                match id {
                    Some(id) => records.sent(&attempt, id),
                    // LDK would not say under which id: only its event can.
                    None => records.settle(&attempt, State::Review),
                }
                .map_err(|error| storage(&error))?;
            }
        }
        Ok(records.status(&attempt))
    }

    /// LDK has a payment of this hash already, which no record explains: it is this one's.
    fn take_listed(&self, attempt: Hash32, hash: Hash32) -> Result<PaymentStatus, Refusal> {
        let listed = self.node.payment(&PaymentId(hash.0));
        let mut records = self.records();
        match listed.as_ref().and_then(recovery::success) {
            Some(ending) => records.settle(&attempt, ending.state()),
            None => records.sent(&attempt, hash),
        }
        .map_err(|error| storage(&error))?;
        Ok(records.status(&attempt))
    }
}

/// Why the offer cannot be paid, if it cannot. One without an issuer's key, with blinded paths only, is as good as any.
fn offer_fault(offer: &Offer, amount_msat: u64, network: Network) -> Option<FailureClass> {
    let is_amount_right = match offer.amount() {
        None => true,
        Some(Amount::Bitcoin { amount_msats }) => amount_msats == amount_msat,
        Some(Amount::Currency { .. }) => false,
    };
    let is_payable = offer.supports_chain(ChainHash::using_genesis_block(network))
        && is_amount_right
        && amount_msat > 0
        && !offer.expects_quantity();
    match (is_payable, offer.is_expired()) {
        (false, _) => Some(FailureClass::Invalid),
        (true, true) => Some(FailureClass::Expired),
        (true, false) => None,
    }
}

fn begun_before(begun: Begun) -> Result<PaymentStatus, Refusal> {
    match begun {
        Begun::Before(status) => Ok(status),
        Begun::Reused => Err(Refusal::new(
            ATTEMPT_REUSED,
            "the attempt was made for another payment",
        )),
        Begun::HashInFlight => Err(Refusal::new(
            HASH_IN_FLIGHT,
            "an earlier attempt of this payment hash has no proven failure",
        )),
        Begun::Now => Ok(PaymentStatus::Pending),
    }
}

fn route(max_fee_msat: u64, cltv_max: u32) -> RouteParametersConfig {
    RouteParametersConfig {
        max_total_routing_fee_msat: Some(max_fee_msat),
        max_total_cltv_expiry_delta: cltv_max,
        ..RouteParametersConfig::default()
    }
}

#[cfg(test)]
mod tests;
