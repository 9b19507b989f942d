//! Blocks are divided over the slices that closed before them, and pay once, whatever stops in between.

use std::sync::Arc;

use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use dovetail_commitment::is_signed;
use dovetail_rewards::{
    AccountId, CountedShare, OpenSlice, PoolFee, ShareId, Slice, Weights, Window, WindowLength,
    WindowSlice, by_weight, check_chain, to_finder,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::{RewardState, RewardsConfig, Scheme};

/// One slice's worth of weight.
const SLICE: u128 = Slice::SIZE.get();

fn fee() -> PoolFee {
    PoolFee::from_millionths(10_000).unwrap()
}

pub(super) fn pplns(length: u16) -> Scheme {
    Scheme::Pplns(WindowLength::new(length).unwrap())
}

pub(super) fn divides(dir: &Path, scheme: Scheme) -> CommitterConfig {
    CommitterConfig {
        rewards: Some(RewardsConfig {
            scheme,
            fee: fee(),
            first_block: HeaderHash::from_bytes([2; 32]),
            signer: signer(),
            sign: Arc::new(signed),
            keep_slices: Duration::from_secs(3_600),
            keep_shares: Some(Duration::from_secs(3_600)),
        }),
        ..config(dir)
    }
}

fn keypair() -> Keypair {
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    Keypair::from_secret_key(SECP256K1, &secret)
}

pub(super) fn signer() -> [u8; 32] {
    keypair().x_only_public_key().0.serialize()
}

fn signed(hash: &[u8; 32]) -> [u8; 64] {
    let message = Message::from_digest(*hash);
    *SECP256K1
        .sign_schnorr_no_aux_rand(&message, &keypair())
        .as_ref()
}

/// A share of so many sixteenths of a slice.
pub(super) fn weighty(n: u16, account: &str, sixteenths: u128) -> Share {
    Share {
        weight: Weight::new(sixteenths * SLICE / 16).unwrap(),
        ..numbered_share(n, account, 0)
    }
}

pub(super) fn block(n: u16, account: &str, sixteenths: u128, reward_sat: u64) -> Share {
    Share {
        is_block: true,
        reward_sat,
        ..weighty(n, account, sixteenths)
    }
}

/// A block, the fee, and each account's part.
type Divided = (HeaderHash, i64, Vec<(String, i64)>);

/// The same rules on paper.
struct Paper {
    open: OpenSlice,
    window: Window,
    closed: Vec<Slice>,
    scheme: Scheme,
    blocks: Vec<Divided>,
}

impl Paper {
    fn new(scheme: Scheme, length: u16) -> Self {
        Self {
            open: OpenSlice::new(0, Slice::SIZE).unwrap(),
            window: Window::new(WindowLength::new(length).unwrap()),
            closed: Vec::new(),
            scheme,
            blocks: Vec::new(),
        }
    }

    fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for of in self.window.slices() {
            let slice = &self.closed[usize::try_from(of.number).unwrap()];
            for (account, tally) in slice.accounts() {
                weights.add(account, tally.weight).unwrap();
            }
        }
        weights
    }

    fn add(&mut self, share: &Share) {
        let account = AccountId::new(&share.account).unwrap();
        if share.reward_sat > 0 {
            let reward = Msat::new(i64::try_from(share.reward_sat).unwrap() * 1_000);
            let weights = self.weights();
            let division = match self.scheme {
                Scheme::Pplns(_) if !weights.is_empty() => by_weight(reward, fee(), &weights),
                _ => to_finder(reward, fee(), &account),
            };
            let division = division.unwrap();
            let credits = division.credits.iter();
            let credits = credits.map(|of| (of.account.to_string(), of.amount.get()));
            let block = (
                share.header_hash,
                division.fee.get(),
                credits.collect::<Vec<_>>(),
            );
            self.blocks.push(block);
        }
        let counted = CountedShare {
            id: ShareId::of(&share.header_hash),
            weight: share.weight,
        };
        if let Some(slice) = self.open.add(&account, &counted).unwrap() {
            let (number, total) = (slice.number(), slice.total());
            self.window.push(WindowSlice { number, total }).unwrap();
            self.closed.push(slice);
        }
    }
}

async fn divisions(ledger: &Ledger) -> Vec<Divided> {
    let blocks: Vec<(Vec<u8>, i64)> =
        sqlx::query_as("SELECT header_hash, fee_msat FROM block_rewards ORDER BY header_hash")
            .fetch_all(&ledger.pool)
            .await
            .unwrap();
    let mut divisions = Vec::new();
    for (hash, fee) in blocks {
        let credits: Vec<(String, i64)> = sqlx::query_as(
            "SELECT substr(name, 8), amount_msat FROM block_credits JOIN accounts ON id = account
              WHERE block = $1 ORDER BY name COLLATE \"C\"",
        )
        .bind(&hash)
        .fetch_all(&ledger.pool)
        .await
        .unwrap();
        let hash = HeaderHash::from_bytes(hash.try_into().unwrap());
        divisions.push((hash, fee, credits));
    }
    divisions
}

pub(super) async fn count(ledger: &Ledger, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&ledger.pool)
        .await
        .unwrap()
}

/// How many accounts of the window weigh something else than their slices say.
pub(super) const WRONG_IN_WINDOW: &str = "
    SELECT count(*) FROM window_now FULL JOIN (
        SELECT account, sum(slice_work.weight) AS weight FROM slice_work, reward_chain
         WHERE slice >= first_slice GROUP BY account) summed USING (account)
     WHERE window_now.weight IS DISTINCT FROM summed.weight";

/// A pool that is stopped, whose sets are cut anywhere, and that shares a ledger with another one, divides as on paper.
#[test]
fn blocks_are_divided_as_on_paper_whatever_the_sets_and_restarts() {
    let shares = prop::collection::vec((0_u8..5, 1_u128..40, 0_u8..12, any::<bool>()), 1..60);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let played = runner.run(&(shares, 1_u16..3), |(shares, length)| {
        run(|_db, ledger| async move {
            let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let scheme = pplns(length);
            let start = |n: usize| Running::start_with(&ledger, divides(dirs[n].path(), scheme));
            let mut pools = [Some(start(0).await), Some(start(1).await)];
            let mut paper = Paper::new(scheme, length);
            for (n, (account, sixteenths, chance, waits)) in (0_u16..).zip(&shares) {
                let account = format!("miner{account}");
                // A length of one takes 1,024 slices to fill: shares of a third of a difficulty fill it in the test.
                let sixteenths = sixteenths * if n % 3 == 0 { 100 } else { 1 };
                let share = match chance {
                    0 => block(n, &account, sixteenths, 5_000_000_000 + u64::from(n)),
                    1 => block(n, &account, 0, 7),
                    _ => weighty(n, &account, sixteenths),
                };
                paper.add(&share);
                let pool = usize::from(n % 7 == 6);
                // What the other pool has logged is in the ledger before this one goes on.
                let other = pools[1 - pool].as_ref().unwrap();
                other.committer.0.written().await;
                let running = pools[pool].as_ref().unwrap();
                match waits {
                    true => running.committer.commit(share).await.unwrap(),
                    false => running.log(share).await.unwrap(),
                }
                if *chance == 2 {
                    pools[pool].take().unwrap().stop().await;
                    pools[pool] = Some(start(pool).await);
                }
            }
            for pool in pools.into_iter().flatten() {
                pool.stop().await;
            }
            let mut wanted = paper.blocks;
            wanted.sort_by_key(|(hash, ..)| hash.to_bytes());
            assert_eq!(divisions(&ledger).await, wanted);
            assert_eq!(count(&ledger, WRONG_IN_WINDOW).await, 0);
            let closed = i64::try_from(paper.closed.len()).unwrap();
            assert_eq!(
                count(&ledger, "SELECT count(*) FROM reward_slices").await,
                closed
            );
        });
        Ok(())
    });
    played.unwrap();
}

/// Two slices that alice and bob have filled, three to one, and a block of bob's.
pub(super) async fn a_block(ledger: &Ledger, dir: &Path, scheme: Scheme) -> HeaderHash {
    let running = Running::start_with(ledger, divides(dir, scheme)).await;
    for (n, account, sixteenths) in [
        (0, "alice", 12),
        (1, "bob", 4),
        (2, "alice", 12),
        (3, "bob", 4),
    ] {
        running.log(weighty(n, account, sixteenths)).await.unwrap();
    }
    let found = block(4, "bob", 1, 1_000);
    let hash = found.header_hash;
    running.log(found).await.unwrap();
    running.stop().await;
    hash
}

/// The same, until it has paid.
pub(super) async fn a_matured_block(ledger: &Ledger, dir: &Path) {
    let block = a_block(ledger, dir, pplns(8)).await;
    ledger
        .note_reward(block, RewardState::Active)
        .await
        .unwrap();
    ledger.mature_reward(block).await.unwrap().unwrap();
}

async fn state(ledger: &Ledger, block: HeaderHash) -> String {
    sqlx::query_scalar("SELECT state FROM block_rewards WHERE header_hash = $1")
        .bind(block.to_bytes().to_vec())
        .fetch_one(&ledger.pool)
        .await
        .unwrap()
}

/// The total of all accounts is zero, and this is what the named ones have.
async fn balances(ledger: &Ledger) -> Vec<(String, i64)> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT name, credits_posted - debits_posted FROM accounts
          WHERE credits_posted <> debits_posted ORDER BY name",
    )
    .fetch_all(&ledger.pool)
    .await
    .unwrap();
    assert_eq!(rows.iter().map(|(_, amount)| amount).sum::<i64>(), 0);
    rows
}

#[test]
fn a_block_that_comes_and_goes_pays_once_when_it_has_matured() {
    use RewardState::{Active, Matured, Orphaned, Refused, Submitted};
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let block = a_block(&ledger, dir.path(), pplns(8)).await;
        let open = ledger.open_rewards(0, 10).await.unwrap();
        let found = (open[0].block, open[0].height, open[0].state);
        assert_eq!(found, (block, 101, Submitted));
        // It does not mature before the chain has it, and then not twice.
        assert_eq!(ledger.mature_reward(block).await.unwrap(), None);
        // However high the chain is by now: the pool may have been away.
        let open = ledger.open_rewards(u32::MAX, 10).await.unwrap();
        assert_eq!(open.len(), 1);
        for (state, goes) in [
            (Active, true),
            (Active, false),
            (Refused, false),
            (Orphaned, true),
            (Refused, false),
            (Matured, false),
            (Active, true),
            (Orphaned, true),
        ] {
            assert_eq!(
                ledger.note_reward(block, state).await.unwrap(),
                goes,
                "{state:?}"
            );
        }
        assert_eq!(ledger.mature_reward(block).await.unwrap(), None);
        assert_eq!(balances(&ledger).await, []);
        let earned = ledger.earned_rewards("alice", 10).await.unwrap();
        assert_eq!((earned.immature.get(), earned.matured.get()), (0, 0));
        ledger.note_reward(block, Active).await.unwrap();
        let earned = ledger.earned_rewards("alice", 10).await.unwrap();
        assert_eq!((earned.immature.get(), earned.matured.get()), (742_500, 0));
        let published = ledger.published_blocks(u32::MAX, 10).await.unwrap();
        let window = published[0].window.unwrap();
        let amounts = (
            published[0].reward.get(),
            published[0].fee.get(),
            published[0].fee_part,
        );
        assert_eq!(amounts, (1_000_000, 10_000, fee()));
        assert_eq!((window.first, window.last, window.length.get()), (0, 1, 8));
        let (first, second) =
            tokio::join!(ledger.mature_reward(block), ledger.mature_reward(block));
        let matured: Vec<_> = [first.unwrap(), second.unwrap()]
            .into_iter()
            .flatten()
            .collect();
        assert_eq!(matured.len(), 1);
        assert_eq!((matured[0].fee.get(), matured[0].accounts), (10_000, 2));
        let wanted = [
            ("pool:fees", 10_000),
            ("pool:rewards", -1_000_000),
            ("worker:alice", 742_500),
            ("worker:bob", 247_500),
        ];
        let wanted = wanted.map(|(name, amount)| (name.to_owned(), amount));
        assert_eq!(balances(&ledger).await, wanted);
        assert!(!ledger.note_reward(block, Orphaned).await.unwrap());
        assert_eq!(state(&ledger, block).await, "matured");
        let earned = ledger.earned_rewards("alice", 10).await.unwrap();
        assert_eq!((earned.immature.get(), earned.matured.get()), (0, 742_500));
        assert_eq!(earned.weight.get() * 4, earned.window.get() * 3);
        assert_eq!(earned.blocks[0].amount.get(), 742_500);
        let statement = ledger.statement("alice", 10).await.unwrap();
        assert_eq!(
            (statement[0].amount_msat, &*statement[0].reason),
            (742_500, "reward")
        );
    });
}

#[test]
fn solo_mining_pays_the_finder_and_so_does_a_pools_first_block() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let block = a_block(&ledger, dir.path(), Scheme::Solo).await;
        let all = vec![("bob".to_owned(), 990_000)];
        assert_eq!(divisions(&ledger).await, [(block, 10_000, all.clone())]);
    });
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start_with(&ledger, divides(dir.path(), pplns(8))).await;
        running.log(weighty(0, "alice", 15)).await.unwrap();
        running.log(block(1, "bob", 1, 1_000)).await.unwrap();
        running.stop().await;
        let divisions = divisions(&ledger).await;
        assert_eq!(divisions[0].2, [("bob".to_owned(), 990_000)]);
        // It is published without a window, by its hash and by its height.
        let published = ledger.published_blocks(u32::MAX, 10).await.unwrap();
        assert_eq!((published.len(), published[0].window), (1, None));
        let same = ledger.published_block(divisions[0].0).await.unwrap();
        assert_eq!(same.as_ref(), Some(&published[0]));
        let below = published[0].height - 1;
        assert_eq!(ledger.published_blocks(below, 10).await.unwrap(), []);
    });
}

#[test]
fn a_pool_that_changes_its_window_or_scheme_goes_on_with_the_slices_that_it_has() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let mut n = 0;
        for scheme in [pplns(2), pplns(1), Scheme::Solo, pplns(3)] {
            let running = Running::start_with(&ledger, divides(dir.path(), scheme)).await;
            for _ in 0..5 {
                let account = if n % 2 == 0 { "alice" } else { "bob" };
                // Two fifths of a difficulty.
                running.log(weighty(n, account, 16 * 410)).await.unwrap();
                n += 1;
            }
            running.stop().await;
            assert_eq!(count(&ledger, WRONG_IN_WINDOW).await, 0, "{scheme:?}");
        }
        // Three difficulties are eight such slices.
        let window = "SELECT max(number) - first_slice + 1 FROM reward_slices, reward_chain GROUP BY first_slice";
        assert_eq!(count(&ledger, window).await, 8);
    });
}

#[test]
fn what_is_published_is_a_signed_chain_and_each_account_finds_its_leaf() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start_with(&ledger, divides(dir.path(), pplns(8))).await;
        for n in 0..40 {
            let account = format!("miner{}", n % 5);
            running.log(weighty(n, &account, 5)).await.unwrap();
        }
        running.stop().await;
        let slices = ledger.published_slices(0, 100).await.unwrap();
        assert_eq!(slices.len(), 10);
        check_chain(slices.iter().map(|of| &of.header)).unwrap();
        let mut leaves = 0;
        for slice in &slices {
            let root = slice.header.root();
            assert!(is_signed(&signer(), root.as_bytes(), &slice.signature));
            let mut total = 0;
            for n in 0..6 {
                let account = format!("miner{n}");
                let leaf = ledger
                    .slice_leaf(slice.header.number, &account)
                    .await
                    .unwrap();
                let Some(leaf) = leaf else { continue };
                leaf.verify(&slice.header).unwrap();
                total += leaf.tally.weight.get();
                leaves += leaf.tally.shares;
            }
            assert_eq!(total, slice.header.total.get());
        }
        assert_eq!(leaves, 40);
        assert_eq!(ledger.published_slices(8, 100).await.unwrap().len(), 2);
        assert_eq!(ledger.slice_leaf(u64::MAX, "miner0").await.unwrap(), None);
        assert_eq!(ledger.slice_leaf(0, "").await.unwrap(), None);
        let found = async |account, from, limit| {
            let found = ledger.account_slices(account, from, limit).await.unwrap();
            (found.numbers, found.next)
        };
        let (all, end) = found("miner0", 0, 100).await;
        assert!(all.len() > 3 && all.is_sorted(), "{all:?}");
        assert_eq!(end, 10);
        // A page ends behind its last slice, a last page behind the newest.
        assert_eq!(found("miner0", 0, 2).await, (all[..2].to_vec(), all[1] + 1));
        let rest = found("miner0", all[1] + 1, 100).await;
        assert_eq!(rest, (all[2..].to_vec(), 10));
        assert_eq!(found("nobody", 3, 5).await, (vec![], 10));
        assert_eq!(found("miner0", 12, 5).await, (vec![], 12));
        assert_eq!(found("miner0", u64::MAX, 5).await, (vec![], u64::MAX));
    });
}

#[test]
fn a_window_that_contradicts_its_slices_divides_nothing_and_stops_the_pool() {
    run(|_db, ledger| async move {
        let dir = tempfile::tempdir().unwrap();
        let scheme = pplns(8);
        a_block(&ledger, dir.path(), scheme).await;
        sqlx::raw_sql("UPDATE window_now SET weight = weight + 1")
            .execute(&ledger.pool)
            .await
            .unwrap();
        let running = Running::start_with(&ledger, divides(dir.path(), scheme)).await;
        running.log(block(9, "bob", 1, 1_000)).await.unwrap();
        let failed = running.committer.0.failed().await.to_string();
        assert!(failed.contains("window"), "{failed}");
        running.stop().await;
        assert_eq!(divisions(&ledger).await.len(), 1);
    });
}
