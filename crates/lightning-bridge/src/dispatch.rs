//! Handing an attempt to a node, and what follows from the node's answers. The attempt is noted before the node hears of it.
//!
//! What decides is the node's own list of payments: that a command failed says that the node tries no more, not that nothing
//! is on its way.

use std::future::Future;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::{
    ATTEMPT_REUSED, FailureClass, HASH_IN_FLIGHT, Hash32, InvoicePayment, OfferPayment,
    PaymentStatus, Refusal,
};
use dovetail_units::time::unix_now;
use lightning_invoice::Bolt11Invoice;

use crate::bridge::{Bridge, storage};
use crate::node::{Found, Node, Order, Paid, Sent};
use crate::records::{Begun, New, Record, State, Target};

/// For how many blocks a node on an offer's route may hold the money: three days.
const OFFER_CLTV_MAX: u32 = 432;
/// How long an answer waits for a payment's end. The client waits for 20 s.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// A node's command ends after the time for its routes; this much later at the latest, it is surely over.
const COMMAND_MARGIN: Duration = Duration::from_secs(10);
/// How many payments may be handed over at once. The pool works on 32.
const RUNNING_MAX: usize = 256;

impl<N: Node> Bridge<N> {
    /// Runs a payment to its end even if the client hangs up, and answers after a while at the latest.
    pub(crate) async fn in_the_background<F>(
        &self,
        attempt: Hash32,
        work: impl FnOnce(Self) -> F,
    ) -> Result<PaymentStatus, Refusal>
    where
        F: Future<Output = Result<PaymentStatus, Refusal>> + Send + 'static,
    {
        let task = tokio::spawn(work(self.clone()));
        match tokio::time::timeout(ANSWER_WAIT, task).await {
            Ok(ended) => {
                ended.map_err(|_| Refusal::new("internal", "the payment's task did not end"))?
            }
            // Its task goes on.
            Err(_) => Ok(self.records().status(&attempt)),
        }
    }

    /// Hands an invoice to the node, or says how its attempt stands.
    pub(crate) async fn pay_invoice(
        &self,
        payment: InvoicePayment,
    ) -> Result<PaymentStatus, Refusal> {
        let (attempt, payment_hash) = (payment.attempt, payment.payment_hash);
        let target = Target::Invoice { payment_hash };
        if let Some(obstacle) = self.records().obstacle(&attempt, target) {
            return begun_before(obstacle);
        }
        let amount_msat = match self.check_invoice(&payment) {
            Ok(amount_msat) => amount_msat,
            Err(reason) => return self.fail_at_once(attempt, target, reason),
        };
        let node = self.node();
        let room = node.can_send_msat().await;
        if room.map_err(|error| error.refusal())? < amount_msat {
            return self.fail_at_once(attempt, target, FailureClass::NoLiquidity);
        }
        // Somebody else may have paid it over this node, or an older folder of records is in use.
        let found = node.look_up(payment_hash, amount_msat).await;
        let found = found.map_err(|error| error.refusal())?;
        let order = Order {
            invoice: payment.bolt11,
            payment_hash,
            max_fee_msat: payment.max_fee_msat,
            cltv_max: u32::from(payment.cltv_max),
            retry_for: self.shared.retry_for,
        };
        let _running = self.run(attempt)?;
        let new = New {
            attempt,
            target,
            amount_msat,
            state: self.sent_now(),
        };
        match self.begin(new)? {
            Begun::Now => {}
            obstacle => return begun_before(obstacle),
        }
        match found {
            Found::Nothing | Found::Failed(_) => self.hand_over(attempt, &order).await,
            Found::Pending => Ok(PaymentStatus::Pending),
            Found::Paid(paid) => self.settle_paid(attempt, payment_hash, paid),
        }
    }

    /// Asks an offer's payee for an invoice and hands that to the node, or says how the attempt stands.
    pub(crate) async fn pay_an_offer(
        &self,
        payment: OfferPayment,
    ) -> Result<PaymentStatus, Refusal> {
        let (attempt, amount_msat) = (payment.attempt, payment.amount_msat);
        let target = Target::Offer {
            offer: Hash32(sha256::Hash::hash(payment.offer.as_bytes()).to_byte_array()),
            amount_msat,
        };
        if let Some(obstacle) = self.records().obstacle(&attempt, target) {
            return begun_before(obstacle);
        }
        let room = self.node().can_send_msat().await;
        if room.map_err(|error| error.refusal())? < amount_msat {
            return self.fail_at_once(attempt, target, FailureClass::NoLiquidity);
        }
        let _running = self.run(attempt)?;
        let new = New {
            attempt,
            target,
            amount_msat,
            state: State::Asked,
        };
        match self.begin(new)? {
            Begun::Now => {}
            obstacle => return begun_before(obstacle),
        }
        match self.invoice_of(&payment).await {
            Ok(order) => self.hand_over(attempt, &order).await,
            // Nothing is sent before the invoice is noted, so each failure here is proven.
            Err(reason) => self.settle(attempt, State::Failed { reason }),
        }
    }

    /// The invoice of an offer, noted with its payment hash.
    async fn invoice_of(&self, payment: &OfferPayment) -> Result<Order, FailureClass> {
        let node = self.node();
        let invoice = node.fetch_invoice(&payment.offer, payment.amount_msat);
        let invoice = invoice.await?;
        if invoice.amount_msat != payment.amount_msat {
            return Err(FailureClass::Invalid);
        }
        let payment_hash = invoice.payment_hash;
        let found = node.look_up(payment_hash, payment.amount_msat).await;
        if found.map_err(|_| FailureClass::Other)? != Found::Nothing {
            tracing::warn!(attempt = %hex::encode(payment.attempt.0), "an offer's payee gave an invoice that was used before");
            return Err(FailureClass::Invalid);
        }
        let over = self.over_unix();
        let noted = self
            .records()
            .invoiced(&payment.attempt, payment_hash, over);
        match noted {
            Ok(true) => Ok(Order {
                invoice: invoice.bolt12,
                payment_hash,
                max_fee_msat: payment.max_fee_msat,
                cltv_max: OFFER_CLTV_MAX,
                retry_for: self.shared.retry_for,
            }),
            Ok(false) => Err(FailureClass::Invalid),
            Err(error) => {
                tracing::error!(%error, "cannot note an offer's invoice: it is not paid");
                Err(FailureClass::Other)
            }
        }
    }

    /// Tells the node to pay what is noted, and concludes from how its command ended.
    async fn hand_over(&self, attempt: Hash32, order: &Order) -> Result<PaymentStatus, Refusal> {
        let limit = order.retry_for + COMMAND_MARGIN;
        let sent = tokio::time::timeout(limit, self.node().send(order)).await;
        match sent.unwrap_or_else(|_| Sent::Unclear("no answer in time".to_owned())) {
            Sent::Paid(paid) => self.settle_paid(attempt, order.payment_hash, paid),
            Sent::GaveUp(reason) => {
                let over_unix = self.over_unix();
                let gave_up = Some(reason);
                self.settle(attempt, State::Sent { over_unix, gave_up })?;
                self.ask_the_list(attempt).await
            }
            Sent::Unclear(why) => {
                tracing::warn!(attempt = %hex::encode(attempt.0), why, "a payment's command did not end clearly: the node's list will tell");
                self.ask_the_list(attempt).await
            }
        }
    }

    /// How an attempt stands. The node's list is asked about what has not ended, and about a failure that may have become a
    /// success since.
    pub(crate) async fn status(&self, attempt: Hash32) -> Result<PaymentStatus, Refusal> {
        let status = self.records().status(&attempt);
        let is_decided = matches!(
            status,
            PaymentStatus::Unknown | PaymentStatus::Succeeded { .. }
        );
        if is_decided || self.running().contains(&attempt) {
            return Ok(status);
        }
        self.ask_the_list(attempt).await
    }

    async fn ask_the_list(&self, attempt: Hash32) -> Result<PaymentStatus, Refusal> {
        let record = {
            let records = self.records();
            match records.get(&attempt) {
                Some(record) if records.is_current(record) => record.clone(),
                _ => return Ok(records.status(&attempt)),
            }
        };
        let Some(payment_hash) = record.sent_hash else {
            return Ok(record.status());
        };
        match self.node().look_up(payment_hash, record.amount_msat).await {
            Ok(Found::Paid(paid)) => self.settle_paid(attempt, payment_hash, paid),
            Ok(Found::Pending) => Ok(self.records().status(&attempt)),
            Ok(Found::Nothing) => self.not_on_its_way(&record, None),
            Ok(Found::Failed(reason)) => self.not_on_its_way(&record, reason),
            Err(error) => {
                tracing::debug!(%error, attempt = %hex::encode(attempt.0), "the node does not say how a payment stands");
                Ok(self.records().status(&attempt))
            }
        }
    }

    /// The list says that nothing of this hash is on its way. That is a proven failure once the command has ended.
    fn not_on_its_way(
        &self,
        record: &Record,
        reason: Option<FailureClass>,
    ) -> Result<PaymentStatus, Refusal> {
        let State::Sent { over_unix, gave_up } = record.state else {
            return Ok(self.records().status(&record.attempt));
        };
        if gave_up.is_none() && unix_now() <= over_unix {
            return Ok(PaymentStatus::Pending);
        }
        let reason = reason.or(gave_up).unwrap_or(FailureClass::Other);
        tracing::info!(attempt = %hex::encode(record.attempt.0), reason = reason.name(), "payment failed");
        self.settle(record.attempt, State::Failed { reason })
    }

    /// Checks the proof of a success, and notes it.
    fn settle_paid(
        &self,
        attempt: Hash32,
        payment_hash: Hash32,
        paid: Paid,
    ) -> Result<PaymentStatus, Refusal> {
        let Paid { fee_msat, preimage } = paid;
        if sha256::Hash::hash(&preimage.0).to_byte_array() != payment_hash.0 {
            tracing::error!(attempt = %hex::encode(attempt.0), "the node calls a payment paid and has no proof of it: it needs review");
            return self.settle(attempt, State::Review);
        }
        tracing::info!(attempt = %hex::encode(attempt.0), fee_msat, "payment succeeded");
        let state = State::Succeeded {
            fee_msat,
            preimage,
            payment_hash,
        };
        self.settle(attempt, state)
    }

    fn settle(&self, attempt: Hash32, state: State) -> Result<PaymentStatus, Refusal> {
        let mut records = self.records();
        let settled = records.settle(&attempt, state);
        settled.map_err(|error| storage(&error))?;
        Ok(records.status(&attempt))
    }

    fn begin(&self, new: New) -> Result<Begun, Refusal> {
        let begun = self.records().begin(new);
        begun.map_err(|error| storage(&error))
    }

    /// Notes an attempt that the node need not hear of.
    fn fail_at_once(
        &self,
        attempt: Hash32,
        target: Target,
        reason: FailureClass,
    ) -> Result<PaymentStatus, Refusal> {
        let new = New {
            attempt,
            target,
            amount_msat: 0,
            state: State::Failed { reason },
        };
        match self.begin(new)? {
            Begun::Now => Ok(PaymentStatus::Failed { reason }),
            obstacle => begun_before(obstacle),
        }
    }

    /// The amount of an invoice that can be paid.
    fn check_invoice(&self, payment: &InvoicePayment) -> Result<u64, FailureClass> {
        let invoice: Bolt11Invoice = payment.bolt11.parse().map_err(|_| FailureClass::Invalid)?;
        let hash: &[u8] = invoice.payment_hash().as_ref();
        let amount_msat = invoice.amount_milli_satoshis().unwrap_or(0);
        let is_as_said = hash == payment.payment_hash.0
            && invoice.network() == self.shared.network
            && amount_msat > 0;
        match (is_as_said, invoice.is_expired()) {
            (false, _) => Err(FailureClass::Invalid),
            (true, true) => Err(FailureClass::Expired),
            // No route is as short as what the payee alone asks for.
            (true, false) if invoice.min_final_cltv_expiry_delta() > payment.cltv_max.into() => {
                Err(FailureClass::NoRoute)
            }
            (true, false) => Ok(amount_msat),
        }
    }

    fn sent_now(&self) -> State {
        State::Sent {
            over_unix: self.over_unix(),
            gave_up: None,
        }
    }

    fn over_unix(&self) -> u64 {
        let time = self.shared.retry_for + COMMAND_MARGIN;
        unix_now().saturating_add(time.as_secs() + 1)
    }

    /// Keeps the list out of it while this process waits for the command: until the value is dropped.
    fn run(&self, attempt: Hash32) -> Result<Running<N>, Refusal> {
        let mut running = self.running();
        if running.len() >= RUNNING_MAX {
            return Err(Refusal::new(
                "busy",
                "too many payments are handed over at once: try again",
            ));
        }
        let is_first = running.insert(attempt);
        Ok(Running {
            bridge: self.clone(),
            attempt: is_first.then_some(attempt),
        })
    }
}

struct Running<N: Node> {
    bridge: Bridge<N>,
    /// `None` if another task runs it.
    attempt: Option<Hash32>,
}

impl<N: Node> Drop for Running<N> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt {
            self.bridge.running().remove(&attempt);
        }
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
