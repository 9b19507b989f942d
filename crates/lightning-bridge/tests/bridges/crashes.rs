//! A bridge that is killed with -9 between its record and the node's answer, wherever the node stands then: nothing is paid
//! twice, nothing is forgotten, and what failed can be paid again.

use std::time::Duration;

use dovetail_lightning::{
    ATTEMPT_REUSED, FailureClass, HASH_IN_FLIGHT, Hash32, InvoicePayment, OfferPayment,
    PaymentStatus,
};

use crate::contract::{Pair, assert_refused};
use crate::core_lightning::CoreLightning;
use crate::door::Door;
use crate::lnd::Lnd;
use crate::network::{Fault, Network, Standing};
use crate::pair::Bridges;
use crate::{AMOUNT_MSAT, CLTV_MAX, TIME_MAX};

/// How long a bridge lets a command run that it does not see: its time for routes and a margin.
const RETRY_FOR: u32 = 1;
/// Long enough for a record and a question, on a busy machine.
const SOON: Duration = Duration::from_millis(1_500);

pub(crate) fn payment(network: &Network, attempt: u8) -> InvoicePayment {
    let (bolt11, payment_hash) = network.invoice(1, AMOUNT_MSAT, 3_600);
    InvoicePayment {
        attempt: Hash32([attempt; 32]),
        payment_hash,
        bolt11,
        max_fee_msat: 1_000,
        cltv_max: CLTV_MAX,
    }
}

/// Pays with a fault, kills the bridge when its record is there, starts it again and waits for the end.
async fn killed<D: Door + Sync + 'static>(fault: Fault, is_paid: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Bridges::<D>::start_with(dir.path(), RETRY_FOR).await;
    let mut payment = payment(&pair.network, 1);
    pair.network.set_fault(fault);
    let client = pair.payer().clone();
    let asked = tokio::spawn({
        let payment = payment.clone();
        async move { client.pay(payment).await }
    });
    tokio::time::sleep(SOON).await;
    pair.payer.kill();
    // The bridge died with the question, or had answered before.
    if let Ok(status) = asked.await.unwrap() {
        assert_ne!(status, PaymentStatus::Unknown);
    }
    pair.payer.start_again();
    let again = pair.payer().pay(payment.clone()).await.unwrap();
    assert!(
        !matches!(again, PaymentStatus::Unknown | PaymentStatus::Failed { .. }),
        "{again:?}"
    );
    let ended = pair.end(payment.attempt, TIME_MAX).await;
    let hash = payment.payment_hash;
    payment.attempt = Hash32([2; 32]);
    match ended {
        PaymentStatus::Succeeded { fee_msat, .. } if is_paid => {
            assert_eq!(fee_msat, crate::network::FEE_MSAT);
            assert_refused(pair.payer().pay(payment).await, HASH_IN_FLIGHT);
        }
        PaymentStatus::Failed { .. } if !is_paid => {
            assert_eq!(pair.network.times_moved(hash), 0);
            pair.payer().pay(payment.clone()).await.unwrap();
            let retried = pair.end(payment.attempt, TIME_MAX).await;
            assert!(
                matches!(retried, PaymentStatus::Succeeded { .. }),
                "{retried:?}"
            );
        }
        status => panic!("{status:?} after {fault:?}"),
    }
    assert_eq!(pair.network.times_moved(hash), 1, "{fault:?}");
}

async fn killed_everywhere<D: Door + Sync + 'static>() {
    tokio::join!(
        killed::<D>(Fault::Silent, false),
        killed::<D>(Fault::PaidAndSilent, true),
        killed::<D>(Fault::PaidLater(SOON * 2), true),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_to_core_lightning_pays_once() {
    killed_everywhere::<CoreLightning>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_bridge_to_lnd_pays_once() {
    killed_everywhere::<Lnd>().await;
}

/// A record as it is before the node hears of the attempt.
fn noted(payment: &InvoicePayment) -> String {
    let hash = payment.payment_hash;
    serde_json::json!({
        "attempt": payment.attempt, "number": 1_000, "amount_msat": AMOUNT_MSAT,
        "target": { "kind": "invoice", "payment_hash": hash },
        "sent_hash": hash, "state": "sent", "over_unix": 1, "gave_up": null,
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_without_a_payment_fail_and_a_damaged_one_waits_for_its_proof() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Bridges::<CoreLightning>::start_with(dir.path(), RETRY_FOR).await;
    let [unsent, damaged, lost] = [1, 2, 3].map(|n| payment(&pair.network, n));
    pair.payer.kill();
    let write = |payment: &InvoicePayment, text: &str| {
        let [attempt, hash] = [payment.attempt, payment.payment_hash].map(|it| hex::encode(it.0));
        let file = pair.attempts().join(format!("{attempt}-{hash}.json"));
        std::fs::write(file, text).unwrap();
    };
    write(&unsent, &noted(&unsent));
    write(&damaged, "{");
    write(&lost, "{");
    // The damaged record's payment had been sent, and has arrived; of the lost one's the node knows nothing.
    pair.network.pay(0, &damaged.bolt11, 1_000).unwrap();
    pair.payer.start_again();
    let status = pair.end(unsent.attempt, TIME_MAX).await;
    assert_eq!(status, PaymentStatus::failed(FailureClass::Other));
    let status = pair.end(damaged.attempt, TIME_MAX).await;
    assert!(
        matches!(status, PaymentStatus::Succeeded { .. }),
        "{status:?}"
    );
    let status = pair.end(lost.attempt, TIME_MAX).await;
    assert_eq!(status, PaymentStatus::Review);
    let again = InvoicePayment {
        attempt: Hash32([4; 32]),
        ..lost
    };
    assert_refused(pair.payer().pay(again).await, HASH_IN_FLIGHT);
    assert_eq!(pair.network.times_moved(lost.payment_hash), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_is_paid_once_although_its_payer_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Bridges::<CoreLightning>::start_with(dir.path(), RETRY_FOR).await;
    let offer = pair.payee().create_offer("payouts").await.unwrap().offer;
    let payment = OfferPayment {
        attempt: Hash32([1; 32]),
        offer,
        amount_msat: AMOUNT_MSAT,
        max_fee_msat: 1_000,
    };
    pair.network.set_fault(Fault::PaidAndSilent);
    let status = pair.payer().pay_offer(payment.clone()).await.unwrap();
    assert_eq!(status, PaymentStatus::Pending);
    pair.payer.kill();
    pair.payer.start_again();
    pair.payer().pay_offer(payment.clone()).await.unwrap();
    let status = pair.end(payment.attempt, TIME_MAX).await;
    let PaymentStatus::Succeeded { payment_hash, .. } = status else {
        panic!("{status:?}");
    };
    assert_eq!(pair.network.times_moved(payment_hash), 1);
    let other = OfferPayment {
        amount_msat: AMOUNT_MSAT + 1,
        ..payment
    };
    assert_refused(pair.payer().pay_offer(other).await, ATTEMPT_REUSED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_arrives_after_all_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<CoreLightning>::start_with(dir.path(), RETRY_FOR).await;
    let payment = payment(&pair.network, 1);
    pair.network.hold();
    let client = pair.payer().clone();
    let asked = tokio::spawn({
        let payment = payment.clone();
        async move { client.pay(payment).await }
    });
    tokio::time::sleep(SOON).await;
    pair.network.turn(0, payment.payment_hash, Standing::Failed);
    let refused = PaymentStatus::failed(FailureClass::RefusedByPayee);
    assert_eq!(asked.await.unwrap().unwrap(), refused);
    let attempt = payment.attempt.0;
    assert_eq!(pair.payer().payment(attempt).await.unwrap(), refused);
    let arrives = Standing::Complete(dovetail_lightning::Preimage([0; 32]));
    pair.network.turn(0, payment.payment_hash, arrives);
    let status = pair.payer().payment(attempt).await.unwrap();
    assert!(
        matches!(status, PaymentStatus::Succeeded { .. }),
        "{status:?}"
    );
}
