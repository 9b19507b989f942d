//! The service on a real Postgres and a simulated network: nobody waits for another, and nothing is paid twice.

use std::time::{Duration, Instant};

use dovetail_ledger::{AttemptState, FeesBorneBy, PayoutState, Success};
use dovetail_lightning::FailureClass;
use dovetail_lightning::server::Wallet;
use dovetail_lightning::simulator::Fault;

use super::world::{EXPIRY_S, Manner, World, until};
use crate::config::LightningConfig;

const HONEST: Manner = Manner::Honest(EXPIRY_S);
/// How soon an honest payee is paid, whatever others do. A round is 50 ms, and machines are slow.
const PROMPT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_and_an_offer_are_paid_and_the_proofs_are_kept() {
    let world = World::new().await;
    let worker = world.worker(25_400, HONEST).await;
    let offer = world.offer(11_000).await;
    let running = world.run();
    world.until_received(25_000 + 11_000).await;
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 2)
        .await;
    assert_eq!(world.balance(&worker.account).await, (400, 0));
    assert_eq!(world.balance(&offer).await, (0, 0));
    let proven = "SELECT count(*) FROM attempts WHERE sha256(preimage) = payment_hash";
    assert_eq!(world.database.number(proven).await, 2);
    assert_eq!(world.heard.count("payout_paid"), 2);
    running.stop().await;
    world.check_books().await;
    world.drop().await;
}

/// Fault 5: the richest accounts were chosen, and nobody else was looked at.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_without_a_destination_stop_nobody() {
    let world = World::new().await;
    for n in 0..40 {
        let plain = format!("plain-miner-{n}");
        world.database.credit(&plain, 900_000).await;
    }
    let _worker = world.worker(10_000, HONEST).await;
    let running = world.run();
    world.until_received(10_000).await;
    running.stop().await;
    let payouts = world.database.number("SELECT count(*) FROM payouts");
    assert_eq!(payouts.await, 1);
    world.drop().await;
}

/// Fault 10: payouts were made one after the other, and each was watched for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn payees_that_hold_their_payments_delay_nobody() {
    let world = World::new().await;
    world.wallet.script([Fault::Hold; 40]);
    let _holders = world.workers(40, 50_000, HONEST).await;
    let running = world.run();
    let held = "SELECT count(*) FROM attempts WHERE state = 'dispatched'";
    world.until_number(held, 40).await;
    let start = Instant::now();
    let _honest = world.worker(10_000, HONEST).await;
    world.until_received(10_000).await;
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    assert_eq!(world.database.number(held).await, 40);
    running.stop().await;
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_give_no_invoice_delay_nobody() {
    let world = World::new().await;
    let silent = world.workers(60, 50_000, Manner::Silent).await;
    let refusing = world.workers(10, 50_000, Manner::Refuses).await;
    let running = world.run();
    let start = Instant::now();
    let _honest = world.worker(10_000, HONEST).await;
    world.until_received(10_000).await;
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    let account = &refusing[0].account;
    until("a class", async || world.class(account).await.is_some()).await;
    assert_eq!(world.class(account).await.as_deref(), Some("no_invoice"));
    running.stop().await;
    assert_eq!(
        world.database.number("SELECT count(*) FROM payouts").await,
        1
    );
    drop(silent);
    world.drop().await;
}

/// Fault 8: what the wallet refused once stopped the looking after all others.
#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_the_wallet_refuses_stops_nobody_and_is_paid_once_it_does_not() {
    let world = World::new().await;
    world.wallet.script([Fault::RefuseUnheard; 5]);
    let refused = world.worker(50_000, HONEST).await;
    let running = world.run();
    let account = &refused.account;
    until("a class", async || world.class(account).await.is_some()).await;
    assert_eq!(
        world.class(account).await.as_deref(),
        Some("wallet_refused")
    );
    let _honest = world.worker(10_000, HONEST).await;
    world.until_received(60_000).await;
    running.stop().await;
    // One attempt, told five times in vain.
    assert_eq!(
        world.database.number("SELECT count(*) FROM attempts").await,
        2
    );
    world.check_books().await;
    world.drop().await;
}

/// Fault 9: 121 payouts a minute for a payee without a route.
#[tokio::test(flavor = "multi_thread")]
async fn a_payee_without_a_route_is_tried_ever_more_seldom_with_the_same_invoice() {
    let mut world = World::new().await;
    world.pace.backoff = Duration::from_millis(200);
    world
        .wallet
        .script([Fault::Fail(FailureClass::NoRoute); 100]);
    let worker = world.worker(10_000, HONEST).await;
    let running = world.run();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let record = world.open(&worker.account).await;
    running.stop().await;
    // At 0, 0.1 to 0.2, 0.3 to 0.6, 0.7 to 1.4, 1.5 to 3, 3.1 to 6.2 seconds.
    let tries = record.attempts.len();
    assert!((3..=6).contains(&tries), "{tries}");
    let hash = record.attempts[0].payment_hash;
    for attempt in &record.attempts {
        assert_eq!(attempt.payment_hash, hash);
        assert_eq!(attempt.failure_class.as_deref(), Some("no_route"));
    }
    assert_eq!(record.standing.tries, u32::try_from(tries).unwrap());
    assert_eq!(world.balance(&worker.account).await, (0, 10_000));
    world.drop().await;
}

/// A payee may have cancelled it, and its invoice may live for a year.
#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_its_payee_refuses_is_given_up_before_it_ends_and_another_one_is_asked_for()
{
    const YEAR_S: u32 = 365 * 86_400;
    let mut world = World::new().await;
    world.pace.invoice_life_max = Duration::from_secs(2);
    world.pace.retry_life_min = Duration::ZERO;
    world
        .wallet
        .script([Fault::Fail(FailureClass::RefusedByPayee); 100]);
    let worker = world.worker(10_000, Manner::Honest(YEAR_S)).await;
    let running = world.run();
    let given_up = "SELECT count(*) FROM payouts WHERE state = 'failed' AND failure_class = 'refused_by_payee'";
    world.until_number(given_up, 1).await;
    world.wallet.end_script();
    world.until_received(10_000).await;
    running.stop().await;
    assert_eq!(world.balance(&worker.account).await, (0, 0));
    let invoices = "SELECT count(DISTINCT payment_hash) FROM attempts";
    assert!(world.database.number(invoices).await > 1);
    world.check_books().await;
    world.drop().await;
}

/// Fault 7: what the wallet had called failed arrived, and was paid again.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_success_while_the_invoice_is_tried_again_is_paid_once() {
    let world = World::new().await;
    let faults = [Fault::FailFirst, Fault::Hold];
    world.wallet.script(faults);
    let worker = world.worker(10_000, HONEST).await;
    let running = world.run();
    let held = "SELECT count(*) FROM attempts WHERE state = 'dispatched'";
    world.until_number(held, 1).await;
    let hash = world.open(&worker.account).await.attempts[0].payment_hash;
    world.wallet.release(hash.unwrap()).unwrap();
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 1)
        .await;
    running.stop().await;
    assert_eq!(world.received().await, 10_000);
    assert_eq!(world.balance(&worker.account).await, (0, 0));
    assert_eq!(world.heard.count("payout_late"), 0);
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_after_the_money_went_back_is_booked_as_a_loss_and_raises_an_alarm() {
    let mut world = World::new().await;
    world.pace.retry_life_min = Duration::from_secs(7_200);
    world.wallet.script([Fault::FailFirst]);
    let worker = world.worker(10_000, HONEST).await;
    let running = world.run();
    // Its invoice counts as ended at once, so the payout is given up and another one pays.
    world.until_received(10_000).await;
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 1)
        .await;
    let failed = world.ledger.payout_records(Some(&worker.account), false, 9);
    let failed = failed.await.unwrap();
    let failed = failed
        .iter()
        .find(|record| record.state == PayoutState::Failed)
        .unwrap();
    let hash = failed.attempts[0].payment_hash.unwrap();
    world.wallet.release(hash).unwrap();
    // Looked for after ten seconds for the first time.
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 2)
        .await;
    running.stop().await;
    assert_eq!(world.heard.count("payout_late"), 1);
    let loss = "SELECT debits_posted FROM accounts WHERE name = 'pool:loss'";
    assert_eq!(world.database.number(loss).await, 10_000);
    world.check_books().await;
    world.drop().await;
}

/// Fault 15: a crash between the note and the send left a payout pending for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_and_not_sent_is_sent_after_a_crash_and_paid_once() {
    let world = World::new().await;
    world.wallet.script([Fault::RefuseUnheard]);
    let worker = world.worker(10_000, HONEST).await;
    let running = world.run();
    let prepared = "SELECT count(*) FROM attempts WHERE state = 'prepared'";
    world.until_number(prepared, 1).await;
    running.kill().await;
    drop(worker);
    // Its worker is gone: the invoice is paid all the same.
    let running = world.run();
    world.until_received(10_000).await;
    running.stop().await;
    // And once more: the wallet has paid, and the ledger never heard.
    world.wallet.script([Fault::PayAndRefuse]);
    let _worker = world.worker(20_000, HONEST).await;
    let running = world.run();
    world.until_received(30_000).await;
    running.kill().await;
    let running = world.run();
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 2)
        .await;
    running.stop().await;
    assert_eq!(world.received().await, 30_000);
    assert_eq!(
        world.database.number("SELECT count(*) FROM attempts").await,
        2
    );
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_wallet_forgot_or_cannot_tell_waits_for_a_person_and_stops_nobody() {
    let world = World::new().await;
    world.wallet.script([Fault::Hold]);
    let forgotten = world.worker(10_000, HONEST).await;
    let running = world.run();
    let held = "SELECT count(*) FROM attempts WHERE state = 'dispatched'";
    world.until_number(held, 1).await;
    world.wallet.script([Fault::Review]);
    let unknown = world.worker(10_000, HONEST).await;
    let review = "SELECT count(*) FROM attempts WHERE state = 'review'";
    world.until_number(review, 1).await;
    let first = world.open(&forgotten.account).await;
    world.wallet.forget(first.attempts[0].id);
    world.until_number(review, 2).await;
    assert_eq!(world.heard.count("payout_review"), 2);
    let _honest = world.worker(10_000, HONEST).await;
    world.until_received(10_000).await;

    // A person may be wrong: the same invoice is tried again, which the wallet refuses as long as it does not know either.
    let second = world.open(&unknown.account).await;
    assert_eq!(second.attempts[0].state, AttemptState::Review);
    world.ledger.decide_failed(second.id).await.unwrap();
    let account = &unknown.account;
    let tried = async || world.open(account).await.attempts.len() == 2;
    until("the next attempt", tried).await;
    let wrong = world.ledger.decide_paid(first.id, [9; 32]).await;
    assert!(wrong.is_err());
    // It was paid after all, and its payee has the proof.
    let hash = first.attempts[0].payment_hash.unwrap();
    world.wallet.release(hash).unwrap();
    let proof = world.payees.preimage(hash).unwrap();
    let paid = world.ledger.decide_paid(first.id, proof).await.unwrap();
    assert_eq!(paid, Success::Paid);
    running.stop().await;
    assert_eq!(world.received().await, 20_000);
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_ends_soon_or_is_not_the_workers_or_was_used_is_refused() {
    let world = World::new().await;
    let soon = world.worker(10_000, Manner::Honest(599)).await;
    let unsigned = world.worker(10_000, Manner::Unsigned).await;
    let made = world.payees.create_invoice(10_000, "twice", EXPIRY_S);
    let repeats = Manner::Repeats(made.await.unwrap());
    let repeating = world.worker(20_000, repeats).await;
    let mut world = world;
    world.config = LightningConfig {
        payout_max_msat: 10_000,
        ..world.config
    };
    let running = world.run();
    world.until_received(10_000).await;
    for worker in [&soon, &unsigned, &repeating] {
        let refused = async || world.class(&worker.account).await.as_deref() == Some("bad_invoice");
        until("a refused invoice", refused).await;
    }
    running.stop().await;
    assert_eq!(world.received().await, 10_000);
    assert_eq!(world.balance(&repeating.account).await, (10_000, 0));
    assert_eq!(world.balance(&soon.account).await, (10_000, 0));
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_has_ended_is_given_up_and_a_new_one_is_asked_for() {
    let mut world = World::new().await;
    world.pace.invoice_life_min = Duration::ZERO;
    world.pace.retry_life_min = Duration::ZERO;
    world.wallet.script([Fault::Fail(FailureClass::NoRoute); 3]);
    let worker = world.worker(10_000, Manner::Honest(2)).await;
    world.pace.backoff = Duration::from_millis(600);
    let running = world.run();
    world.until_received(10_000).await;
    running.stop().await;
    let records = world.ledger.payout_records(Some(&worker.account), false, 9);
    let records = records.await.unwrap();
    let (newest, oldest) = (&records[0], records.last().unwrap());
    assert_eq!(newest.state, PayoutState::Paid);
    if records.len() > 1 {
        assert_eq!(oldest.state, PayoutState::Failed);
        assert_ne!(
            newest.attempts[0].payment_hash,
            oldest.attempts[0].payment_hash
        );
    }
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fees_are_within_their_limit_and_borne_as_configured() {
    let mut world = World::new().await;
    world.config.fees_borne_by = FeesBorneBy::Payee;
    // 1 sat + 0.5 % of 20,000 msat is 1,100 msat.
    world.wallet.script([Fault::Fee(1_101), Fault::Fee(1_100)]);
    let worker = world.worker(20_000, HONEST).await;
    let running = world.run();
    world.until_received(18_000).await;
    running.stop().await;
    let record = world.ledger.payout_records(Some(&worker.account), false, 9);
    let record = record.await.unwrap().remove(0);
    let class = record.attempts[0].failure_class.as_deref();
    assert_eq!(class, Some("fee_over_limit"));
    assert_eq!(record.attempts[1].fee, Some(World::amount(1_100)));
    assert_eq!(world.balance(&worker.account).await, (900, 0));
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_an_operator_found_is_booked() {
    let world = World::new().await;
    world.wallet.script([Fault::Review]);
    let offer = world.offer(10_000).await;
    let running = world.run();
    let review = "SELECT count(*) FROM attempts WHERE state = 'review'";
    world.until_number(review, 1).await;
    running.stop().await;
    let open = world.open(&offer).await;
    let paid = world.ledger.decide_paid(open.id, [5; 32]).await.unwrap();
    assert_eq!(paid, Success::Paid);
    world.drop().await;
}
