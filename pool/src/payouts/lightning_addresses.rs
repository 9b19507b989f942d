//! Payees that are paid without a connection, at a real HTTPS host, and where they have stated to be paid.

use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use dovetail_ledger::Rail;
use dovetail_lnurl::test_host::{Asked, Page, TestHost};
use dovetail_lnurl::{Lnurl, LnurlOptions};
use dovetail_payee::{PayTo, PayToKind, Schedule, Statement};
use dovetail_units::time::unix_now;

use super::world::{EXPIRY_S, Manner, World, until};

const METADATA: &str = r#"[["text/plain","a wallet"]]"#;
const CALLBACK: &str = "https://wallet.example/callback";
const NAMES: [&str; 2] = ["wallet.example", "slow.wallet.example"];

/// The host of the payees' wallet.
async fn host(world: &World) -> TestHost {
    let payees = world.payees.clone();
    let hash = sha256::Hash::hash(METADATA.as_bytes()).to_byte_array();
    TestHost::start(
        move |asked: &Asked| match (asked.amount_msat(), &*asked.host) {
            (_, "slow.wallet.example") => Page {
                after: Duration::from_secs(60),
                ..Page::of("{}")
            },
            (None, _) => Page::pay_request(CALLBACK, METADATA, 1_000_000_000),
            (Some(amount), _) => {
                let made = payees.create_invoice_for_hash(amount, hash, EXPIRY_S);
                Page::invoice(&made.unwrap().bolt11)
            }
        },
    )
    .await
    .unwrap()
}

async fn world() -> (World, TestHost) {
    let mut world = World::new().await;
    let host = host(&world).await;
    world.lnurl = Some(Lnurl::new(host.options(&NAMES)).unwrap());
    (world, host)
}

/// It holds at once.
async fn state(world: &World, account: &str, kind: PayToKind, value: &str) {
    let statement = Statement {
        pool: [7; 32],
        network: Network::Regtest,
        account: account.to_owned(),
        pay_to: PayTo::kept(kind, value.to_owned()),
        fallback: None,
        threshold_msat: None,
        schedule: Schedule::AsEarned,
        made_unix: unix_now(),
    };
    let stated = world
        .ledger
        .state_destination(&statement, &[1; 64], Duration::ZERO);
    stated.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lightning_address_is_paid_at_its_host_and_the_proof_is_kept() {
    let (world, host) = world().await;
    world.database.credit("you@wallet.example", 25_400).await;
    let running = world.run();
    world.until_received(25_000).await;
    world
        .until_number("SELECT count(*) FROM payouts WHERE state = 'paid'", 1)
        .await;
    running.stop().await;
    let record = world.ledger.payout_records(None, false, 9).await;
    let attempt = record.unwrap().remove(0).attempts.remove(0);
    assert_eq!(attempt.rail, Rail::Bolt11);
    assert_eq!(world.balance("you@wallet.example").await, (400, 0));
    let proven = "SELECT count(*) FROM attempts WHERE sha256(preimage) = payment_hash";
    assert_eq!(world.database.number(proven).await, 1);
    assert_eq!(host.asked(), 2);
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payees_are_paid_where_they_have_stated_whoever_is_connected() {
    let (world, _host) = world().await;
    let worker = world.worker(20_000, Manner::Silent).await;
    let other = world.worker(1, Manner::Honest(EXPIRY_S)).await;
    let address = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    world.database.credit(address, 11_000).await;
    let kind = PayToKind::LightningAddress;
    state(&world, &worker.account, kind, "you@wallet.example").await;
    state(&world, address, PayToKind::Worker, &other.account).await;
    let running = world.run();
    world.until_received(31_000).await;
    running.stop().await;
    world.check_books().await;
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_lies_pays_nobody_and_its_payee_sees_why() {
    let (world, host) = world().await;
    world.database.credit("you@wallet.example", 20_000).await;
    let class = async |class: &str| {
        let seen = async || world.class("you@wallet.example").await.as_deref() == Some(class);
        until(class, seen).await;
    };
    let payees = world.payees.clone();
    host.answer(move |asked| match asked.amount_msat() {
        None => Page::pay_request(CALLBACK, METADATA, 1_000_000_000),
        Some(amount) => {
            let made = payees.create_invoice_for_hash(amount, [1; 32], EXPIRY_S);
            Page::invoice(&made.unwrap().bolt11)
        }
    });
    let running = world.run();
    class("bad_invoice").await;
    host.answer(|_| Page::of(r#"{"status":"ERROR","reason":"\u001b[31mgone"}"#));
    class("no_invoice").await;
    host.answer(|_| Page::elsewhere("http://169.254.169.254/"));
    class("address_unreachable").await;
    running.stop().await;
    let payouts = world.database.number("SELECT count(*) FROM payouts");
    assert_eq!(payouts.await, 0);
    assert_eq!(world.balance("you@wallet.example").await, (20_000, 0));
    world.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_answer_slowly_delay_neither_workers_nor_other_hosts() {
    let (mut world, host) = world().await;
    world.lnurl = Some(
        Lnurl::new(LnurlOptions {
            time_max: Duration::from_secs(30),
            ..host.options(&NAMES)
        })
        .unwrap(),
    );
    for n in 0..100 {
        let slow = format!("n{n}@slow.wallet.example");
        world.database.credit(&slow, 900_000).await;
    }
    let running = world.run();
    until("the slow host", async || host.asked() >= 8).await;
    let start = Instant::now();
    let _worker = world.worker(10_000, Manner::Honest(EXPIRY_S)).await;
    world.database.credit("you@wallet.example", 11_000).await;
    world.until_received(21_000).await;
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert!(
        host.asked() < 20,
        "one host has a few places: {}",
        host.asked()
    );
    running.stop().await;
    world.check_books().await;
    world.drop().await;
}
