//! Random operations against the ledger and against a small model of it, which knows nothing of
//! transfers: what everybody has must agree after every step.

use std::collections::{BTreeMap, BTreeSet};

use dovetail_units::SplitMix64;

use super::payouts::{new_payout, proof};
use super::*;
use crate::{CommitRefusal, LedgerError, PayoutState, Success};

const STEPS: usize = 600;
const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const SEED_VARIABLE: &str = "DOVETAIL_TEST_SEED";

struct ModelPayout {
    name: &'static str,
    amount: i64,
    state: PayoutState,
    /// Whether its one attempt is proven failed; of no meaning once the payout is paid.
    has_failed: bool,
    hash: u8,
}

#[derive(Default)]
struct Model {
    available: BTreeMap<&'static str, i64>,
    pending: BTreeMap<&'static str, i64>,
    proofs: BTreeSet<u8>,
    spent: bool,
    held: i64,
    payouts: BTreeMap<u8, ModelPayout>,
    hashes: BTreeSet<u8>,
    fees: i64,
    lost: i64,
    /// Payouts that were given up; a late success may have paid them since.
    given_up: usize,
}

impl Model {
    fn share(&mut self, proof: u8, name: &'static str, msat: i64) -> Result<(), CommitRefusal> {
        if !self.proofs.insert(proof) {
            return Err(CommitRefusal::DuplicateShare);
        }
        *self.available.entry(name).or_default() += msat;
        Ok(())
    }

    /// The operation of [`step`] that takes this payout forward.
    fn forward(&self, id: u8) -> u64 {
        match self.payouts.get(&id) {
            None => 2,
            Some(payout) => match (payout.state, payout.has_failed) {
                (PayoutState::Reserved, false) => 3,
                (PayoutState::Reserved, true) => 5,
                (PayoutState::Failed | PayoutState::Paid, _) => 0,
            },
        }
    }

    fn begin(&mut self, id: u8, name: &'static str, amount: i64, hash: u8) -> bool {
        let is_open =
            |payout: &ModelPayout| payout.name == name && payout.state == PayoutState::Reserved;
        let available = self.available.entry(name).or_default();
        if self.payouts.contains_key(&id)
            || self.payouts.values().any(is_open)
            || *available < amount
            || !self.hashes.insert(hash)
        {
            return false;
        }
        *available -= amount;
        *self.pending.entry(name).or_default() += amount;
        let payout = ModelPayout {
            name,
            amount,
            state: PayoutState::Reserved,
            has_failed: false,
            hash,
        };
        self.payouts.insert(id, payout);
        true
    }

    /// The attempt's failure, which a success does not let be.
    fn fail(&mut self, id: u8) -> bool {
        let Some(payout) = self.payouts.get_mut(&id) else {
            return false;
        };
        if payout.state == PayoutState::Paid {
            return false;
        }
        payout.has_failed = true;
        true
    }

    fn give_up(&mut self, id: u8) -> bool {
        let Some(payout) = self.payouts.get_mut(&id) else {
            return false;
        };
        if payout.state != PayoutState::Reserved || !payout.has_failed {
            return false;
        }
        *self.pending.entry(payout.name).or_default() -= payout.amount;
        *self.available.entry(payout.name).or_default() += payout.amount;
        payout.state = PayoutState::Failed;
        self.given_up += 1;
        true
    }

    /// What a success comes to, at any time.
    fn succeed(&mut self, id: u8, fee: i64) -> Option<Success> {
        let payout = self.payouts.get_mut(&id)?;
        let before = std::mem::replace(&mut payout.state, PayoutState::Paid);
        match before {
            PayoutState::Paid => return Some(Success::Known),
            PayoutState::Reserved => {
                *self.pending.entry(payout.name).or_default() -= payout.amount;
                self.fees += fee;
                return Some(Success::Paid);
            }
            PayoutState::Failed => {}
        }
        let available = self.available.entry(payout.name).or_default();
        let from_balance = payout.amount.min(*available);
        let loss = payout.amount - from_balance;
        *available -= from_balance;
        self.lost += loss;
        self.fees += fee;
        Some(Success::Late {
            from_balance: Msat::new(from_balance),
            loss: Msat::new(loss),
        })
    }
}

/// A refusal is an answer; an outage is not.
fn done(result: Result<(), LedgerError>) -> bool {
    match result {
        Ok(()) => true,
        Err(LedgerError::Refused(_) | LedgerError::Conflict(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn step(
    n: usize,
    random: &mut SplitMix64,
    model: &mut Model,
    ledger: &Ledger,
    committer: &Written,
) {
    let name = NAMES[usize::try_from(random.below(3)).unwrap()];
    let amount = i64::try_from(random.below(5_000)).unwrap();
    // A window that moves over the payouts, so that many of them see all of their steps.
    let window = u64::try_from(n / 30).unwrap();
    let id = u8::try_from(window + random.below(4)).unwrap();
    let key = [id; 32];
    // Half of the steps take a payout forward; the others do whatever comes.
    let operation = match random.below(2) {
        0 => model.forward(id),
        _ => random.below(7),
    };
    match operation {
        0 | 1 => {
            let proof = u8::try_from(random.below(200)).unwrap();
            let outcome = committer.commit(hash_share(proof, name, amount)).await;
            assert_eq!(outcome, model.share(proof, name, amount));
        }
        2 => {
            // Some hashes come twice.
            let hash = u8::try_from(random.below(120)).unwrap();
            let payout = new_payout(id, name, amount + 1, hash, amount % 50);
            let begun = ledger.begin_payout(&payout, Duration::ZERO).await;
            assert_eq!(done(begun), model.begin(id, name, amount + 1, hash));
        }
        3 => {
            let failed = ledger.note_failed(key, "no_route", Some(Duration::ZERO));
            assert_eq!(done(failed.await), model.fail(id));
        }
        4 => {
            let given_up = ledger.give_payout_up(key, "expired").await;
            assert_eq!(done(given_up), model.give_up(id));
        }
        5 => {
            // A third of those that failed are given up, a third succeed late, the others stay.
            match random.below(3) {
                0 => {
                    let given_up = ledger.give_payout_up(key, "expired").await;
                    assert_eq!(done(given_up), model.give_up(id));
                }
                1 => succeed(id, amount % 60, model, ledger).await,
                _ => {}
            }
        }
        _ => succeed(id, amount % 60, model, ledger).await,
    }
}

async fn succeed(id: u8, fee: i64, model: &mut Model, ledger: &Ledger) {
    let hash = model.payouts.get(&id).map_or(0, |payout| payout.hash);
    let success = ledger.note_succeeded([id; 32], &proof(hash, fee)).await;
    let success = match success {
        Err(LedgerError::Refused(_)) => None,
        other => Some(other.unwrap()),
    };
    assert_eq!(success, model.succeed(id, fee));
}

/// The totals, recomputed from the transfers: they are what the accounts say, and what one account
/// gave another got.
pub(super) async fn transfers_explain_the_accounts(ledger: &Ledger) {
    let unexplained: i64 = sqlx::query_scalar(
        "WITH moves AS (
             SELECT t.debit, t.credit, t.amount, t.kind IN ('posted', 'post') AS is_posted,
                    t.kind = 'pending' AND NOT EXISTS
                        (SELECT 1 FROM transfers e WHERE e.ends = t.id) AS is_pending
             FROM transfers t)
         SELECT count(*) FROM accounts a WHERE
             debits_posted <> (SELECT COALESCE(sum(amount), 0) FROM moves WHERE debit = a.id AND is_posted)
             OR debits_pending <> (SELECT COALESCE(sum(amount), 0) FROM moves WHERE debit = a.id AND is_pending)
             OR credits_posted <> (SELECT COALESCE(sum(amount), 0) FROM moves WHERE credit = a.id AND is_posted)
             OR credits_pending <> (SELECT COALESCE(sum(amount), 0) FROM moves WHERE credit = a.id AND is_pending)",
    )
    .fetch_one(&ledger.pool)
    .await
    .unwrap();
    assert_eq!(unexplained, 0);
    let (posted, pending): (i64, i64) = sqlx::query_as(
        "SELECT sum(debits_posted - credits_posted)::bigint,
                sum(debits_pending - credits_pending)::bigint FROM accounts",
    )
    .fetch_one(&ledger.pool)
    .await
    .unwrap();
    assert_eq!((posted, pending), (0, 0));
}

#[test]
fn the_ledger_agrees_with_a_model_after_every_random_step() {
    let seed = std::env::var(SEED_VARIABLE).map_or_else(|_| random(), |text| text.parse().unwrap());
    println!("to run this again: {SEED_VARIABLE}={seed}");
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        let (root, tasks) = open_batch(&ledger, &[1, 2]).await;
        let (mut random, mut model) = (SplitMix64::new(seed), Model::default());
        for n in 0..STEPS {
            step(n, &mut random, &mut model, &ledger, &running.committer).await;
            if random.below(60) == 0 {
                let proof = u8::try_from(random.below(20)).unwrap() + 200;
                let share = inference_share(proof, root, &tasks);
                let outcome = running.committer.commit(share).await;
                assert_eq!(outcome.is_ok(), !model.spent);
                if !model.spent {
                    model.spent = true;
                    model.share(proof, "miner", 10).unwrap();
                    model.held = 1_000;
                }
            }
            if random.below(100) == 0 {
                let matured = mature(&ledger).await;
                assert_eq!(matured, model.held);
                *model.available.entry("miner").or_default() += matured;
                model.held = 0;
            }
            assert_eq!(
                ledger.balance("miner").await.unwrap().held.get(),
                model.held
            );
            for name in NAMES.into_iter().chain(["miner"]) {
                let balance = ledger.balance(name).await.unwrap();
                let expected = |of: &BTreeMap<_, i64>| of.get(name).copied().unwrap_or(0);
                assert_eq!(
                    balance.available.get(),
                    expected(&model.available),
                    "{name}, step {n}"
                );
                assert_eq!(
                    balance.pending.get(),
                    expected(&model.pending),
                    "{name}, step {n}"
                );
                assert!(balance.available >= Msat::ZERO);
            }
        }
        let paid = model.payouts.values();
        let paid = paid.filter(|payout| payout.state == PayoutState::Paid);
        // Not each seed gives one up.
        assert_ne!(
            paid.count() + model.given_up,
            0,
            "the operations end no payout"
        );
        let fees: i64 = sqlx::query_scalar(
            "SELECT COALESCE(sum(fee_msat), 0)::bigint FROM payouts WHERE state = 'paid'",
        )
        .fetch_one(&ledger.pool)
        .await
        .unwrap();
        assert_eq!(fees, model.fees);
        let lost: Option<i64> =
            sqlx::query_scalar("SELECT debits_posted FROM accounts WHERE name = 'pool:loss'")
                .fetch_optional(&ledger.pool)
                .await
                .unwrap();
        assert_eq!(lost.unwrap_or(0), model.lost);
        transfers_explain_the_accounts(&ledger).await;
    });
}
