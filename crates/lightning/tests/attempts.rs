//! What a wallet promises about attempts, also when the network does what networks do.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::simulator::{self, Fault, SimulatedWallet};
use dovetail_lightning::{
    Client, ClientError, CreatedInvoice, FailureClass, HASH_IN_FLIGHT, Hash32, InvoicePayment,
    OfferPayment, PaymentStatus, server,
};
use tokio_util::sync::CancellationToken;

const BALANCE_MSAT: u64 = 1_000_000;

struct Fixture {
    wallet: SimulatedWallet,
    payer: Client,
    payee: Client,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let wallets = simulator::wallets(2, BALANCE_MSAT);
        let wallet = wallets[0].clone();
        let clients: Vec<_> = wallets
            .into_iter()
            .enumerate()
            .map(|(n, wallet)| {
                let path = dir.path().join(format!("{n}.sock"));
                let listener = server::bind(&path).unwrap();
                tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()));
                Client::new(path)
            })
            .collect();
        let [payer, payee] = clients.try_into().unwrap();
        Self {
            wallet,
            payer,
            payee,
            shutdown,
            _dir: dir,
        }
    }

    async fn invoice(&self) -> CreatedInvoice {
        let made = self.payee.create_invoice(100_000, "payout", 600).await;
        made.unwrap()
    }

    async fn received(&self) -> u64 {
        self.payee.balance().await.unwrap() - BALANCE_MSAT
    }

    async fn status(&self, n: u8) -> PaymentStatus {
        self.payer.payment([n; 32]).await.unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn attempt(n: u8, invoice: &CreatedInvoice) -> InvoicePayment {
    InvoicePayment {
        attempt: Hash32([n; 32]),
        payment_hash: invoice.payment_hash,
        bolt11: invoice.bolt11.clone(),
        max_fee_msat: 10,
        cltv_max: 432,
    }
}

fn is_refused(answer: Result<PaymentStatus, ClientError>, code: &str) -> bool {
    matches!(answer, Err(ClientError::Refused(refusal)) if refusal.code == code)
}

#[tokio::test]
async fn an_invoice_is_paid_again_only_after_a_proven_failure() {
    let fixture = Fixture::start();
    let invoice = fixture.invoice().await;
    fixture.wallet.script([Fault::Hold]);
    let held = fixture.payer.pay(attempt(1, &invoice)).await.unwrap();
    assert_eq!(held, PaymentStatus::Pending);
    let second = fixture.payer.pay(attempt(2, &invoice)).await;
    assert!(is_refused(second, HASH_IN_FLIGHT));
    assert_eq!(fixture.status(2).await, PaymentStatus::Unknown);

    let reason = FailureClass::RefusedByPayee;
    let given_back = fixture.wallet.give_back(invoice.payment_hash.0, reason);
    assert_eq!(given_back, Some([1; 32]));
    assert_eq!(fixture.status(1).await, PaymentStatus::failed(reason));
    let third = fixture.payer.pay(attempt(3, &invoice)).await.unwrap();
    assert!(matches!(third, PaymentStatus::Succeeded { .. }));
    let fourth = fixture.payer.pay(attempt(4, &invoice)).await;
    assert!(is_refused(fourth, HASH_IN_FLIGHT));
    assert_eq!(fixture.received().await, 100_000);
}

#[tokio::test]
async fn a_success_that_comes_late_is_that_of_the_attempt_under_way_or_of_the_newest() {
    let fixture = Fixture::start();
    let invoice = fixture.invoice().await;
    let hash = invoice.payment_hash.0;
    fixture.wallet.script([Fault::FailFirst, Fault::Hold]);
    let failed = fixture.payer.pay(attempt(1, &invoice)).await.unwrap();
    assert!(matches!(failed, PaymentStatus::Failed { .. }));
    fixture.payer.pay(attempt(2, &invoice)).await.unwrap();
    assert_eq!(fixture.wallet.release(hash), Some([2; 32]));
    assert!(matches!(
        fixture.status(2).await,
        PaymentStatus::Succeeded { .. }
    ));
    assert_eq!(fixture.wallet.release(hash), None);

    let other = fixture.invoice().await;
    fixture.wallet.script([Fault::FailFirst]);
    fixture.payer.pay(attempt(3, &other)).await.unwrap();
    let released = fixture.wallet.release(other.payment_hash.0);
    assert_eq!(released, Some([3; 32]));
    let PaymentStatus::Succeeded { preimage, .. } = fixture.status(3).await else {
        panic!("a failed attempt became no success");
    };
    let hash = sha256::Hash::hash(&preimage.0).to_byte_array();
    assert_eq!(hash, other.payment_hash.0);
    assert_eq!(fixture.received().await, 200_000);
}

/// A payee gives back what it holds, never what it has taken: a wallet that called this failed would have lost money that
/// no ledger can find.
#[tokio::test]
async fn what_has_arrived_does_not_come_back() {
    let fixture = Fixture::start();
    let invoice = fixture.invoice().await;
    let hash = invoice.payment_hash.0;
    fixture.wallet.script([Fault::Hold]);
    fixture.payer.pay(attempt(1, &invoice)).await.unwrap();
    assert_eq!(fixture.wallet.release(hash), Some([1; 32]));
    let reason = FailureClass::RefusedByPayee;
    assert_eq!(fixture.wallet.give_back(hash, reason), None);
    let succeeded = |status| matches!(status, PaymentStatus::Succeeded { .. });
    assert!(succeeded(fixture.status(1).await));
    // Nor if the wallet has forgotten that it was there.
    fixture.wallet.forget([1; 32]);
    assert_eq!(fixture.wallet.give_back(hash, reason), None);
    assert_eq!(fixture.status(1).await, PaymentStatus::Unknown);
    assert_eq!(fixture.received().await, 100_000);
}

#[tokio::test]
async fn what_was_refused_unheard_is_unknown_and_what_was_paid_with_an_error_is_known() {
    let fixture = Fixture::start();
    let invoice = fixture.invoice().await;
    let faults = [Fault::RefuseUnheard, Fault::PayAndRefuse];
    fixture.wallet.script(faults);
    let unheard = fixture.payer.pay(attempt(1, &invoice)).await;
    assert!(is_refused(unheard, "storage"));
    assert_eq!(fixture.status(1).await, PaymentStatus::Unknown);
    let paid = fixture.payer.pay(attempt(1, &invoice)).await;
    assert!(is_refused(paid, "node"));
    let again = fixture.payer.pay(attempt(1, &invoice)).await.unwrap();
    assert!(matches!(again, PaymentStatus::Succeeded { .. }));
    assert_eq!(fixture.received().await, 100_000);
}

#[tokio::test]
async fn a_fee_over_the_limit_and_a_name_used_for_another_payment_are_refused() {
    let fixture = Fixture::start();
    let invoice = fixture.invoice().await;
    fixture.wallet.script([Fault::Fee(11), Fault::Fee(10)]);
    let dear = fixture.payer.pay(attempt(1, &invoice)).await.unwrap();
    assert_eq!(dear, PaymentStatus::failed(FailureClass::FeeOverLimit));
    let paid = fixture.payer.pay(attempt(2, &invoice)).await.unwrap();
    assert!(matches!(
        paid,
        PaymentStatus::Succeeded { fee_msat: 10, .. }
    ));
    let other = fixture.invoice().await;
    let reused = fixture.payer.pay(attempt(2, &other)).await;
    assert!(is_refused(reused, dovetail_lightning::ATTEMPT_REUSED));
    assert_eq!(fixture.received().await, 100_000);
    let left = fixture.payer.balance().await.unwrap();
    assert_eq!(left, BALANCE_MSAT - 100_010);
}

#[tokio::test]
async fn an_offer_is_paid_once_for_each_attempt_and_its_hash_is_told_with_the_proof() {
    let fixture = Fixture::start();
    let offer = fixture.payee.create_offer("payouts").await.unwrap().offer;
    let payment = |n: u8| OfferPayment {
        attempt: Hash32([n; 32]),
        offer: offer.clone(),
        amount_msat: 70_000,
        max_fee_msat: 0,
    };
    for n in [1, 1, 2] {
        let PaymentStatus::Succeeded {
            preimage,
            payment_hash,
            ..
        } = fixture.payer.pay_offer(payment(n)).await.unwrap()
        else {
            panic!("an offer that can be paid was not");
        };
        let hash = sha256::Hash::hash(&preimage.0).to_byte_array();
        assert_eq!(hash, payment_hash.0);
    }
    assert_eq!(fixture.received().await, 140_000);
    let another = OfferPayment {
        amount_msat: 1,
        ..payment(1)
    };
    let reused = fixture.payer.pay_offer(another).await;
    assert!(is_refused(reused, dovetail_lightning::ATTEMPT_REUSED));
    let nobodys = OfferPayment {
        offer: format!("lno1{}", "q".repeat(90)),
        ..payment(3)
    };
    let invalid = fixture.payer.pay_offer(nobodys).await.unwrap();
    assert_eq!(invalid, PaymentStatus::failed(FailureClass::Invalid));
}
