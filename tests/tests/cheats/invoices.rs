//! Whose invoice it is: the money goes to the key that has earned it, whoever has its connection.

use dovetail_lightning::Client;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::{Bytes, Invoice, PayoutResult, RequestInvoice, sign_invoice};
use dovetail_tests::scenario::Options;

use crate::fixture::{BATCH_MSAT, Case, options};
use crate::scripted_worker::ScriptedWorker;

const EXPIRY_S: u32 = 3_600;
const REFUSED: &str = "does not carry the worker's signature over its payment hash";

/// An invoice for what the pool asks for now, signed as `sign` says for the payout's id and the payment hash.
async fn answer(
    cheat: &mut ScriptedWorker,
    wallet: &Client,
    sign: impl FnOnce(&[u8; 32], &[u8; 32]) -> [u8; 64],
) {
    let request: RequestInvoice = cheat.wire.receive().await;
    let made = wallet.create_invoice(request.amount_msat, "a payout", EXPIRY_S);
    let made = made.await.unwrap();
    let invoice = Invoice {
        payout_id: request.payout_id,
        bolt11: Bytes(made.bolt11.into_bytes()),
        signature: sign(&request.payout_id, &made.payment_hash.0),
    };
    cheat.wire.send(&invoice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_its_worker_has_not_signed() {
    let options = Options {
        maturity_s: 0,
        ..options()
    };
    let case = Case::on_new_pool(options).await;
    let wallet = Client::new(case.fixture.scenario().file("worker.sock"));
    let mut cheat = case.worker().await;
    let batch = case.batch(&mut cheat).await;
    cheat.claim(&batch.root).await.credited();

    // The connection is the worker's. Its key has signed nothing, something else, or another payment; or another key has
    // signed.
    let (own, other) = (cheat.keys.pair, WorkerKeys::generate().pair);
    answer(&mut cheat, &wallet, |_, _| [0; 64]).await;
    answer(&mut cheat, &wallet, |id, hash| {
        sign_invoice(&other, id, hash)
    })
    .await;
    answer(&mut cheat, &wallet, |id, _| {
        sign_invoice(&own, id, &[7; 32])
    })
    .await;
    answer(&mut cheat, &wallet, |_, hash| {
        sign_invoice(&own, &[7; 32], hash)
    })
    .await;
    // That the pool asks again shows that it is done with the invoice before: it paid none of them.
    let request: RequestInvoice = cheat.wire.receive().await;
    let log = case.fixture.scenario().pool.log();
    assert_eq!(log.matches(REFUSED).count(), 4, "{log}");
    assert_eq!(case.fixture.number("SELECT count(*) FROM payouts"), 0);
    let amount = i64::try_from(request.amount_msat).unwrap();
    assert!(amount >= BATCH_MSAT, "{amount}");

    // The same worker's own invoice is paid.
    let made = wallet.create_invoice(request.amount_msat, "a payout", EXPIRY_S);
    let made = made.await.unwrap();
    let invoice = Invoice {
        payout_id: request.payout_id,
        signature: sign_invoice(&own, &request.payout_id, &made.payment_hash.0),
        bolt11: Bytes(made.bolt11.into_bytes()),
    };
    cheat.wire.send(&invoice).await;
    let paid: PayoutResult = cheat.wire.receive().await;
    assert!(paid.paid);
    let sum = "SELECT sum(amount_msat) FROM payouts WHERE state = 'paid'";
    assert_eq!(case.fixture.number(sum), amount);
    // The honest worker gives no invoices; what it has earned waits for it.
    case.end().await;
}
