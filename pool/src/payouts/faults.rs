//! `payout_faults`: the service's own code on a real Postgres and a wallet behind its socket, from a seed. The wallet pays
//! and errs, refuses, holds, lies about failures, forgets and cannot tell; the pool is killed at any await of any of its
//! jobs and starts again. Then everything is brought to an end, and the books are held against what moved.
//!
//! `DOVETAIL_PAYOUT_SEEDS` sets how many seeds are run, `DOVETAIL_TEST_SEED` the first of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dovetail_ledger::{AttemptState, LedgerError, PayoutRecord, PayoutState};
use dovetail_lightning::FailureClass;
use dovetail_lightning::simulator::Fault;
use dovetail_units::SplitMix64;
use futures::future::join_all;

use super::world::{EXPIRY_S, Manner, World};
use super::{PayoutParts, Payouts};

const SEEDS: u64 = 40;
/// Rounds of a seed while faults come, and how long everything may take to end then.
const FAULTY_ROUNDS: usize = 6;
const ENDING_TIME_MAX: Duration = Duration::from_secs(20);
/// Within so many polls a round dies, if it does. A round of a few jobs takes about as many.
const AWAITS_MAX: u64 = 200;

/// A future that is cut off after so many polls.
struct CutOff<F> {
    inner: Pin<Box<F>>,
    polls: u64,
}

impl<F: Future> Future for CutOff<F> {
    /// Whether it came to its end.
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.polls == 0 {
            return Poll::Ready(false);
        }
        self.polls -= 1;
        self.inner.as_mut().poll(context).map(|_| true)
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// A pool that has just started, with connections of its own: they die with it.
async fn start(world: &World) -> Payouts {
    let ledger = world.database.ledger().await;
    let parts = PayoutParts {
        ledger,
        ..world.parts()
    };
    let payouts = Payouts::start(parts).await;
    // Failed attempts are looked at in each round here, and a payee that is tried without a pause has many.
    payouts.checks.add_permits(256);
    payouts
}

/// Every job that is due, at the same time. The process may die at any await of any of them, and starts again then.
async fn round(world: &World, payouts: Payouts, random: &mut SplitMix64, may_die: bool) -> Payouts {
    let all = async {
        let jobs = payouts.due().await;
        join_all(jobs.into_iter().map(|job| payouts.work(job))).await;
    };
    let polls = match may_die && random.below(4) != 0 {
        true => random.below(AWAITS_MAX),
        false => u64::MAX,
    };
    let cut = CutOff {
        inner: Box::pin(all),
        polls,
    };
    if cut.await {
        return payouts;
    }
    drop(payouts);
    start(world).await
}

async fn records(world: &World) -> Vec<PayoutRecord> {
    world.ledger.payout_records(None, false, 12).await.unwrap()
}

/// The hash of an attempt: an offer's only the wallet knows.
fn hash_of(world: &World, attempt: &dovetail_ledger::AttemptRecord) -> Option<[u8; 32]> {
    attempt
        .payment_hash
        .or_else(|| world.wallet.payment_hash(attempt.id))
}

/// Something happens to one of the newest attempts: it arrives, comes back, or the wallet forgets it.
async fn happen(world: &World, random: &mut SplitMix64) {
    for record in records(world).await.iter().take(4) {
        for attempt in &record.attempts {
            let Some(hash) = hash_of(world, attempt) else {
                continue;
            };
            match random.below(8) {
                0 => drop(world.wallet.release(hash)),
                1 if attempt.state == AttemptState::Dispatched => {
                    let _ = world.wallet.give_back(hash, FailureClass::RefusedByPayee);
                }
                2 if attempt.rail == dovetail_ledger::Rail::Bolt11
                    && attempt.state == AttemptState::Dispatched =>
                {
                    world.wallet.forget(attempt.id);
                }
                _ => {}
            }
        }
    }
}

/// A person decides about what is in review, by what the payee has got.
async fn decide_reviews(world: &World) -> Result<(), LedgerError> {
    for record in records(world).await {
        for attempt in &record.attempts {
            if attempt.state != AttemptState::Review {
                continue;
            }
            let proof = hash_of(world, attempt).and_then(|hash| world.payees.preimage(hash));
            match proof {
                Some(preimage) => drop(world.ledger.decide_paid(record.id, preimage).await?),
                None => {
                    if let Some(hash) = hash_of(world, attempt) {
                        let reason = FailureClass::Other;
                        let _ = world.wallet.give_back(hash, reason);
                    }
                    world.ledger.decide_failed(record.id).await?;
                }
            }
        }
    }
    Ok(())
}

/// All that was ever tried is looked at again, as after a start and after a while.
async fn look_at_all(world: &World) {
    world.ledger.recheck_open_attempts().await.unwrap();
    for record in records(world).await {
        let recheck = world.ledger.recheck_failed_attempts(record.id);
        recheck.await.unwrap();
    }
}

/// What is left to be done: payouts, attempts, checks, and payees that have enough.
const LEFT: [&str; 4] = [
    "SELECT count(*) FROM payouts WHERE state = 'reserved'",
    "SELECT count(*) FROM attempts WHERE state IN ('prepared', 'dispatched', 'review')",
    "SELECT count(*) FROM attempts WHERE next_check_at <= now()",
    "SELECT count(*) FROM accounts WHERE starts_with(name, 'worker:')
        AND credits_posted - debits_posted - debits_pending >= 10000",
];

/// One seed: new payees in the same pool.
async fn run(world: &mut World, seed: u64) {
    let mut random = SplitMix64::new(seed);
    let faults: Vec<Fault> = (0..random.below(10))
        .map(|_| Fault::draw(&mut random))
        .collect();
    world.wallet.script(faults);
    let mut workers = Vec::new();
    for _ in 0..2 {
        let msat = 10_000 + i64::try_from(random.below(50_000)).unwrap();
        let expiry_s = match random.below(4) {
            0 => 1,
            _ => EXPIRY_S,
        };
        workers.push(world.worker(msat, Manner::Honest(expiry_s)).await);
    }
    world.offer(25_000).await;
    let mut payouts = start(world).await;
    for _ in 0..FAULTY_ROUNDS {
        payouts = round(world, payouts, &mut random, true).await;
        happen(world, &mut random).await;
        look_at_all(world).await;
    }
    // The end: the wallet is whole again, and what is held arrives.
    world.wallet.end_script();
    let (ending, mut rested, mut left) = (Instant::now(), 0, Vec::new());
    while ending.elapsed() < ENDING_TIME_MAX {
        for record in records(world).await {
            for attempt in &record.attempts {
                if let Some(hash) = hash_of(world, attempt) {
                    let _ = world.wallet.release(hash);
                }
            }
        }
        look_at_all(world).await;
        payouts = round(world, payouts, &mut random, false).await;
        decide_reviews(world).await.unwrap();
        left = Vec::new();
        for sql in LEFT {
            left.push(world.database.number(sql).await);
        }
        // Twice, with all looked at once more in between: one that Postgres has put off is found then.
        rested = if left.iter().all(|count| *count == 0) {
            rested + 1
        } else {
            0
        };
        if rested == 2 {
            check(world).await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut open = String::new();
    for record in records(world).await {
        if record.state == PayoutState::Reserved {
            let last = record.attempts.last();
            let last = last.map(|last| (last.state, last.failure_class.as_deref()));
            open += &format!(
                "\n{} attempts, the last one {last:?}",
                record.attempts.len()
            );
        }
    }
    panic!("seed {seed} does not come to an end: {left:?} are left{open}");
}

async fn check(world: &World) {
    world.check_books().await;
    let booked = "SELECT COALESCE(sum(p.amount_msat), 0)::bigint FROM payouts p
                    JOIN (SELECT DISTINCT payout, payment_hash FROM attempts WHERE state = 'succeeded') a ON a.payout = p.id";
    let booked = u64::try_from(world.database.number(booked).await).unwrap();
    assert_eq!(
        world.received().await,
        booked,
        "what was received, and what is booked"
    );
    let twice = "SELECT count(*) FROM (SELECT payout FROM attempts WHERE state = 'succeeded' AND rail = 'bolt11'
                   GROUP BY payout HAVING count(DISTINCT payment_hash) > 1) t";
    assert_eq!(
        world.database.number(twice).await,
        0,
        "an invoice's payout is paid once"
    );
    let unproven = "SELECT count(*) FROM payouts p WHERE state = 'paid' AND NOT EXISTS
                      (SELECT 1 FROM attempts a WHERE a.payout = p.id AND a.state = 'succeeded')";
    assert_eq!(world.database.number(unproven).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn payout_faults() {
    let seeds = variable("DOVETAIL_PAYOUT_SEEDS").unwrap_or(SEEDS);
    let first = variable("DOVETAIL_TEST_SEED").unwrap_or_else(rand::random) >> 1;
    println!("to run this again: DOVETAIL_TEST_SEED={}", first << 1);
    let mut world = World::new().await;
    world.config.interval_ms = 1;
    world.pace.backoff = Duration::ZERO;
    world.pace.lease = Duration::from_millis(15);
    world.pace.invoice_life_min = Duration::ZERO;
    world.pace.retry_life_min = Duration::ZERO;
    world.pace.offer_life = Duration::from_secs(2);
    world.pace.unheard = Duration::ZERO;
    world.pace.invoice_time_max = Duration::from_millis(500);
    for n in 0..seeds {
        println!("seed {}", first + n);
        run(&mut world, first + n).await;
    }
    world.drop().await;
}
