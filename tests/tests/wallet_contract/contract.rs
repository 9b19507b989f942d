//! What must hold of every pair of wallets.

use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::{
    ATTEMPT_REUSED, Client, ClientError, CreatedInvoice, FailureClass, HASH_IN_FLIGHT, Hash32,
    InvoicePayment, OfferPayment, PaymentStatus,
};

use crate::{AMOUNT_MSAT, CLTV_MAX, TIME_MAX, TOO_MUCH_MSAT};

/// Two wallets that can pay each other, and what of their network a test moves.
pub(crate) trait Pair {
    fn payer(&self) -> &Client;
    fn payee(&self) -> &Client;
    /// Whether they know offers of BOLT 12.
    fn knows_offers(&self) -> bool {
        true
    }
    /// From now on the payee takes nothing.
    fn freeze(&mut self);
    /// What is under way arrives; on the way there the payer's process dies, where it has one.
    async fn thaw(&mut self, payment_hash: Hash32);
}

/// Asks whatever the contract says, and counts what must have arrived.
pub(crate) struct Contract<P> {
    pub(crate) pair: P,
    payee_began_with: u64,
    due: u64,
    last_attempt: u8,
}

impl<P: Pair> Contract<P> {
    pub(crate) async fn new(pair: P) -> Self {
        let payee_began_with = pair.payee().balance().await.unwrap();
        Self {
            pair,
            payee_began_with,
            due: 0,
            last_attempt: 0,
        }
    }

    pub(crate) fn attempt(&mut self) -> Hash32 {
        self.last_attempt += 1;
        Hash32([self.last_attempt; 32])
    }

    async fn invoice(&self, amount_msat: u64, expiry_s: u32) -> CreatedInvoice {
        let payee = self.pair.payee();
        let made = payee.create_invoice(amount_msat, "payout", expiry_s).await;
        made.unwrap()
    }

    pub(crate) async fn payment(&mut self) -> InvoicePayment {
        let invoice = self.invoice(AMOUNT_MSAT, 3_600).await;
        self.payment_of(&invoice)
    }

    fn payment_of(&mut self, invoice: &CreatedInvoice) -> InvoicePayment {
        InvoicePayment {
            attempt: self.attempt(),
            payment_hash: invoice.payment_hash,
            bolt11: invoice.bolt11.clone(),
            max_fee_msat: 1_000,
            cltv_max: CLTV_MAX,
        }
    }

    pub(crate) async fn pay(&self, payment: &InvoicePayment) -> Result<PaymentStatus, ClientError> {
        self.pair.payer().pay(payment.clone()).await
    }

    pub(crate) async fn status(&self, attempt: Hash32) -> PaymentStatus {
        self.pair.payer().payment(attempt.0).await.unwrap()
    }

    /// Waits for the end of an attempt.
    async fn end(&self, attempt: Hash32) -> PaymentStatus {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let status = self.status(attempt).await;
            if status != PaymentStatus::Pending {
                return status;
            }
            assert!(Instant::now() < deadline, "the payment does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a success and looks at its proof. Returns the payment hash.
    pub(crate) async fn success(&mut self, attempt: Hash32) -> Hash32 {
        let status = self.end(attempt).await;
        let PaymentStatus::Succeeded {
            preimage,
            payment_hash,
            ..
        } = status
        else {
            panic!("{status:?} is no success");
        };
        assert_eq!(
            sha256::Hash::hash(&preimage.0).to_byte_array(),
            payment_hash.0
        );
        self.due += AMOUNT_MSAT;
        payment_hash
    }

    /// The payee has what was due, and not a msat more.
    pub(crate) async fn settle_up(&self) {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let has = self.pair.payee().balance().await.unwrap();
            let received = has - self.payee_began_with;
            assert!(received <= self.due, "{received} msat for {} due", self.due);
            if received == self.due {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{received} of {} msat came",
                self.due
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What must hold of every wallet.
    pub(crate) async fn hold(&mut self) {
        self.an_invoice_is_paid_once().await;
        self.a_failed_hash_is_tried_again_under_another_name().await;
        match self.pair.knows_offers() {
            true => self.an_offer_is_paid_once_per_attempt().await,
            false => self.an_offer_is_refused().await,
        }
        self.what_cannot_be_paid_fails_for_its_reason().await;
        self.what_is_held_is_pending_and_sent_once().await;
    }

    async fn an_invoice_is_paid_once(&mut self) {
        let payment = self.payment().await;
        assert_eq!(self.status(payment.attempt).await, PaymentStatus::Unknown);
        let (one, other) = tokio::join!(self.pay(&payment), self.pay(&payment));
        for status in [one.unwrap(), other.unwrap()] {
            assert!(
                !matches!(status, PaymentStatus::Failed { .. }),
                "{status:?}"
            );
        }
        assert_eq!(self.success(payment.attempt).await, payment.payment_hash);
        let ended = self.status(payment.attempt).await;
        assert_eq!(self.pay(&payment).await.unwrap(), ended);

        let mut again = payment.clone();
        again.attempt = self.attempt();
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        assert_eq!(self.status(again.attempt).await, PaymentStatus::Unknown);
        let mut another = self.payment().await;
        another.attempt = payment.attempt;
        assert_refused(self.pay(&another).await, ATTEMPT_REUSED);
        self.settle_up().await;
    }

    async fn a_failed_hash_is_tried_again_under_another_name(&mut self) {
        let mut payment = self.payment().await;
        payment.cltv_max = 1;
        self.pay(&payment).await.unwrap();
        let no_route = PaymentStatus::failed(FailureClass::NoRoute);
        assert_eq!(self.end(payment.attempt).await, no_route);
        let first = payment.attempt;
        payment.attempt = self.attempt();
        payment.cltv_max = CLTV_MAX;
        self.retry(&payment).await;
        self.success(payment.attempt).await;
        assert_eq!(self.status(first).await, no_route);
        self.settle_up().await;
    }

    /// A node that has just started may ask for some seconds' patience.
    async fn retry(&self, payment: &InvoicePayment) {
        let deadline = Instant::now() + TIME_MAX;
        while let Err(error) = self.pay(payment).await {
            let ClientError::Refused(refusal) = error else {
                panic!("{error}");
            };
            assert_eq!(refusal.code, HASH_IN_FLIGHT);
            assert!(Instant::now() < deadline, "{refusal}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn an_offer_is_paid_once_per_attempt(&mut self) {
        let offer = self
            .pair
            .payee()
            .create_offer("payouts")
            .await
            .unwrap()
            .offer;
        let mut hashes = Vec::new();
        for _ in 0..2 {
            let payment = OfferPayment {
                attempt: self.attempt(),
                offer: offer.clone(),
                amount_msat: AMOUNT_MSAT,
                max_fee_msat: 1_000,
            };
            let payer = self.pair.payer();
            payer.pay_offer(payment.clone()).await.unwrap();
            payer.pay_offer(payment.clone()).await.unwrap();
            hashes.push(self.success(payment.attempt).await);
            let other = OfferPayment {
                amount_msat: AMOUNT_MSAT + 1,
                ..payment
            };
            let reused = self.pair.payer().pay_offer(other).await;
            assert_refused(reused, ATTEMPT_REUSED);
        }
        assert_ne!(hashes[0], hashes[1]);
        self.settle_up().await;
    }

    async fn an_offer_is_refused(&mut self) {
        let made = self.pair.payee().create_offer("payouts").await;
        let Err(ClientError::Refused(refusal)) = made else {
            panic!("{made:?} where a refusal was due");
        };
        assert_eq!(refusal.code, "unsupported");
        let payment = OfferPayment {
            attempt: self.attempt(),
            offer: "lno1pgqppmsrse80qf0aara4slvcjxrvu6j2rp5ftmjy4yntlsmsutpkvkt6878s".to_owned(),
            amount_msat: AMOUNT_MSAT,
            max_fee_msat: 1_000,
        };
        let status = self.pair.payer().pay_offer(payment).await.unwrap();
        assert_eq!(status, PaymentStatus::failed(FailureClass::Invalid));
    }

    async fn what_cannot_be_paid_fails_for_its_reason(&mut self) {
        let junk = OfferPayment {
            attempt: self.attempt(),
            offer: "lno1junk".to_owned(),
            amount_msat: AMOUNT_MSAT,
            max_fee_msat: 1_000,
        };
        let status = self.pair.payer().pay_offer(junk.clone()).await.unwrap();
        assert_eq!(status, PaymentStatus::failed(FailureClass::Invalid));
        let again = self.pair.payer().pay_offer(junk).await.unwrap();
        assert_eq!(again, status);

        let invoice = self.invoice(TOO_MUCH_MSAT, 3_600).await;
        let payment = self.payment_of(&invoice);
        self.pay(&payment).await.unwrap();
        let no_liquidity = PaymentStatus::failed(FailureClass::NoLiquidity);
        assert_eq!(self.end(payment.attempt).await, no_liquidity);

        let invoice = self.invoice(AMOUNT_MSAT, 1).await;
        let payment = self.payment_of(&invoice);
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        self.pay(&payment).await.unwrap();
        let expired = PaymentStatus::failed(FailureClass::Expired);
        assert_eq!(self.end(payment.attempt).await, expired);
        self.settle_up().await;
    }

    async fn what_is_held_is_pending_and_sent_once(&mut self) {
        let payment = self.payment().await;
        self.pair.freeze();
        let status = self.pay(&payment).await.unwrap();
        assert_eq!(status, PaymentStatus::Pending);
        let mut again = payment.clone();
        again.attempt = self.attempt();
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        self.pair.thaw(payment.payment_hash).await;
        self.success(payment.attempt).await;
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        self.settle_up().await;
    }
}

pub(crate) fn assert_refused(answer: Result<PaymentStatus, ClientError>, code: &str) {
    match answer {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, code),
        answer => panic!("{answer:?} where {code} was due"),
    }
}
