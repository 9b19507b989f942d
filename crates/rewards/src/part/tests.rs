use super::*;
use crate::division::by_weight;
use crate::evidence::{CountedShare, ShareId};
use crate::slice::OpenSlice;
use crate::tree::SumTree;
use crate::weights::Weights;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use proptest::collection::vec;
use proptest::prelude::*;

const ONE: u128 = Weight::PER_DIFFICULTY.get();

fn account(n: usize) -> AccountId {
    AccountId::new(format!("account-{n}")).unwrap()
}

fn keypair() -> Keypair {
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    Keypair::from_secret_key(SECP256K1, &secret)
}

fn signed(root: &SliceRoot) -> [u8; 64] {
    let message = Message::from_digest(*root.as_bytes());
    *SECP256K1
        .sign_schnorr_no_aux_rand(&message, &keypair())
        .as_ref()
}

fn length() -> WindowLength {
    WindowLength::new(1).unwrap()
}

/// A pool of its slices, in which accounts find shares one after the other.
struct Pool {
    trees: Vec<SumTree>,
    headers: Vec<SliceHeader>,
    weights: Weights,
    first: u64,
}

impl Pool {
    /// Shares of an account and a weight each; a slice holds a quarter of a difficulty, and the window one.
    fn new(shares: &[(usize, u128)]) -> Self {
        let mut open = OpenSlice::new(0, Weight::new(ONE / 4).unwrap()).unwrap();
        let mut window = Window::new(length());
        let (mut trees, mut headers) = (Vec::new(), Vec::<SliceHeader>::new());
        for (n, (of, weight)) in shares.iter().enumerate() {
            let share = CountedShare {
                id: ShareId(u128::try_from(n).unwrap().to_le_bytes()),
                weight: Weight::new(*weight).unwrap(),
            };
            let Some(closed) = open.add(&account(*of), &share).unwrap() else {
                continue;
            };
            let total = closed.total();
            let number = closed.number();
            window.push(WindowSlice { number, total }).unwrap();
            trees.push(SumTree::new(closed));
            let before = headers.last().map(SliceHeader::root);
            let before = before.unwrap_or(SliceRoot::from_bytes([5; 32]));
            headers.push(trees.last().unwrap().header(before));
        }
        let mut weights = Weights::default();
        let first = window.slices().next().unwrap().number;
        for tree in &trees[usize::try_from(first).unwrap()..] {
            for (account, tally) in tree.slice().accounts() {
                weights.add(account, tally.weight).unwrap();
            }
        }
        Self {
            trees,
            headers,
            weights,
            first,
        }
    }

    fn proof(&self, of: usize, reward: Msat, fee_part: PoolFee) -> PartProof {
        let division = by_weight(reward, fee_part, &self.weights).unwrap();
        let first = usize::try_from(self.first).unwrap();
        let headers = self.headers[first..].to_vec();
        let leaf = |tree: &SumTree| {
            Some(SliceLeaf {
                slice: tree.slice().number(),
                proof: tree.proof(&account(of))?,
            })
        };
        let newest = headers.last().unwrap();
        PartProof {
            terms: BlockTerms {
                reward,
                fee: division.fee,
                fee_part,
            },
            window: WindowTerms {
                first: self.first,
                last: newest.number,
                length: length(),
            },
            signer: keypair().x_only_public_key().0.serialize(),
            signature: signed(&newest.root()),
            headers,
            account: account(of),
            leaves: self.trees[first..].iter().filter_map(leaf).collect(),
        }
    }
}

/// Three accounts whose shares are an eighth of a difficulty each: two a slice. Four slices are the window, eight there are.
fn pool() -> Pool {
    let shares: Vec<_> = (0..16).map(|n| (n % 3, ONE / 8)).collect();
    Pool::new(&shares)
}

const REWARD: Msat = Msat::new(1_000_003);

fn fee() -> PoolFee {
    PoolFee::from_millionths(15_000).unwrap()
}

fn proof() -> PartProof {
    pool().proof(1, REWARD, fee())
}

fn changed(change: impl FnOnce(&mut PartProof)) -> Result<Part, PartError> {
    let mut proof = proof();
    change(&mut proof);
    proof.check()
}

#[test]
fn what_was_published_shows_the_part_to_the_msat_that_rounding_leaves() {
    let part = proof().check().unwrap();
    // Shares 8 to 15 are in the window; 10 and 13 are the account's.
    assert_eq!((part.weight.get(), part.of.get()), (ONE / 4, ONE));
    assert_eq!(part.shares, 2);
    // 15,000 of 1,000,003 are the pool's, and a quarter of 985,003 is 246,250.75.
    assert_eq!(part.rest, Msat::new(985_003));
    assert_eq!((part.least.get(), part.most.get()), (246_250, 246_251));
    for (amount, may_be) in [
        (246_249, false),
        (246_250, true),
        (246_251, true),
        (246_252, false),
    ] {
        assert_eq!(part.allows(Msat::new(amount)), may_be, "{amount}");
    }
}

#[test]
fn without_a_remainder_there_is_one_amount() {
    let part = pool().proof(1, Msat::new(4_000_000), PoolFee::NONE);
    let part = part.check().unwrap();
    assert_eq!((part.least, part.most), (part.least, part.least));
    assert_eq!(part.least, Msat::new(1_000_000));
}

#[test]
fn an_account_without_work_has_no_part() {
    let part = pool().proof(7, REWARD, fee()).check().unwrap();
    assert_eq!((part.weight, part.shares), (Weight::ZERO, 0));
    assert!(part.allows(Msat::ZERO) && !part.allows(Msat::new(1)));
}

#[test]
fn the_window_of_a_young_pool_is_all_its_slices() {
    let pool = Pool::new(&[(0, ONE / 4), (1, ONE / 8), (0, ONE / 8)]);
    let part = pool.proof(0, REWARD, PoolFee::NONE).check().unwrap();
    assert_eq!((part.weight.get(), part.of.get()), (3 * ONE / 8, ONE / 2));
}

#[test]
fn what_the_block_pays_is_checked() {
    let expected = Msat::new(15_000);
    let fee = Err(PartError::Fee { expected });
    assert_eq!(changed(|p| p.terms.fee = Msat::new(15_001)), fee);
    assert_eq!(changed(|p| p.terms.fee = Msat::new(14_999)), fee);
    let lower = PoolFee::from_millionths(14_999).unwrap();
    let expected = Msat::new(14_999);
    assert_eq!(
        changed(|p| p.terms.fee_part = lower),
        Err(PartError::Fee { expected })
    );
    assert_eq!(
        changed(|p| p.terms.reward = Msat::new(-1)),
        Err(PartError::Reward(DivisionError::Negative))
    );
    // With its fee, another reward is another part: whether it is the block's, the chain tells.
    let other = changed(|p| p.terms.reward = Msat::new(1_000_007)).unwrap();
    assert!(!other.allows(Msat::new(246_250)));
}

#[test]
fn headers_are_those_of_the_window_unchanged_and_in_order() {
    assert_eq!(changed(|p| p.headers.clear()), Err(PartError::Headers));
    assert_eq!(changed(|p| p.window.first += 1), Err(PartError::Headers));
    assert_eq!(changed(|p| p.window.last -= 1), Err(PartError::Headers));
    let without = |at| {
        changed(|p| {
            p.headers.remove(at);
        })
    };
    assert_eq!(without(0), Err(PartError::Headers));
    let broken = |number| Err(PartError::Chain(ChainBroken { number }));
    assert_eq!(without(1), broken(6));
    assert_eq!(changed(|p| p.headers.swap(1, 2)), broken(6));
    assert_eq!(changed(|p| p.headers[1].top[0] ^= 1), broken(6));
    assert_eq!(changed(|p| p.headers[1].accounts += 1), broken(6));
    assert_eq!(changed(|p| p.headers[2].accounts = 0), broken(6));
    let heavier = Weight::new(ONE / 2).unwrap();
    assert_eq!(changed(|p| p.headers[1].total = heavier), broken(6));
    let before = SliceRoot::from_bytes([1; 32]);
    assert_eq!(changed(|p| p.headers[3].previous = before), broken(7));
    // Nothing in the window follows on the newest: its signature tells.
    assert_eq!(
        changed(|p| p.headers[3].top[0] ^= 1),
        Err(PartError::Signature)
    );
}

#[test]
fn the_newest_root_is_signed() {
    assert_eq!(changed(|p| p.signature[9] ^= 1), Err(PartError::Signature));
    assert_eq!(changed(|p| p.signer[9] ^= 1), Err(PartError::Signature));
    let older = pool().headers[6].root();
    assert_eq!(
        changed(|p| p.signature = signed(&older)),
        Err(PartError::Signature)
    );
}

#[test]
fn the_window_is_as_long_as_the_rule_says() {
    let pool = pool();
    // One slice more, and one less, each with all that belongs to it.
    let longer = Pool { first: 3, ..pool };
    let refused = longer.proof(1, REWARD, fee()).check();
    assert_eq!(refused, Err(PartError::WindowTooLong(3)));
    let shorter = Pool { first: 5, ..longer };
    let refused = shorter.proof(1, REWARD, fee()).check();
    assert_eq!(refused, Err(PartError::WindowTooShort(5)));
    let two = WindowLength::new(2).unwrap();
    assert_eq!(
        changed(|p| p.window.length = two),
        Err(PartError::WindowTooShort(4))
    );
    let heavy = Weight::new(2 * ONE + 1).unwrap();
    let made = changed(|p| {
        p.headers[3].total = heavy;
        p.signature = signed(&p.headers[3].root());
    });
    assert_eq!(made, Err(PartError::Window(WindowError::Total(7))));
}

#[test]
fn leaves_are_the_accounts_own_each_once_in_a_slice_of_the_window() {
    let slices: Vec<_> = proof().leaves.iter().map(|leaf| leaf.slice).collect();
    assert_eq!(slices, [5, 6]);
    for outside in [3, 4, 7, 8, u64::MAX] {
        let refused = changed(|p| p.leaves[1].slice = outside);
        let refused = refused.unwrap_err();
        match outside {
            7 => assert!(matches!(refused, PartError::Leaf { slice: 7, .. })),
            _ => assert_eq!(refused, PartError::LeafPlace(outside)),
        }
    }
    let twice = changed(|p| p.leaves.push(p.leaves[1].clone()));
    assert_eq!(twice, Err(PartError::LeafPlace(6)));
    assert_eq!(
        changed(|p| p.leaves.swap(0, 1)),
        Err(PartError::LeafPlace(5))
    );
    assert_eq!(
        changed(|p| p.account = account(2)),
        Err(PartError::LeafAccount(5))
    );
    let others = pool().proof(2, REWARD, fee()).leaves[0].clone();
    let slice = others.slice;
    assert_eq!(
        changed(|p| p.leaves = vec![others]),
        Err(PartError::LeafAccount(slice))
    );
}

#[test]
fn a_changed_leaf_leads_nowhere() {
    let failed = |change: &dyn Fn(&mut LeafProof)| match changed(|p| change(&mut p.leaves[0].proof))
    {
        Err(PartError::Leaf { slice: 5, error }) => error,
        other => panic!("{other:?}"),
    };
    let lighter = Weight::new(ONE / 16).unwrap();
    assert_eq!(failed(&|p| p.tally.weight = lighter), ProofError::Sum);
    assert_eq!(failed(&|p| p.tally.shares += 1), ProofError::Hash);
    assert_eq!(failed(&|p| p.index ^= 1), ProofError::Hash);
    assert_eq!(failed(&|p| p.index = 2), ProofError::Place);
    assert_eq!(failed(&|p| p.siblings[0].hash[0] ^= 1), ProofError::Hash);
    assert_eq!(failed(&|p| p.siblings[0].sum = lighter), ProofError::Sum);
    assert_eq!(failed(&|p| p.siblings.clear()), ProofError::Steps);
}

/// What cannot be seen from what is shown: the account counts its own shares.
#[test]
fn a_leaf_that_is_left_out_lowers_the_number_of_shares() {
    let part = changed(|p| drop(p.leaves.remove(0))).unwrap();
    assert_eq!((part.weight.get(), part.shares), (ONE / 8, 1));
}

proptest! {
    #[test]
    fn every_account_s_part_of_any_block_is_among_those_that_are_allowed(
        shares in vec((0_usize..12, 1..ONE / 3), 20..120),
        reward in 0..i64::MAX,
        millionths in 0_u32..=1_000_000,
    ) {
        let pool = Pool::new(&shares);
        let (reward, fee) = (Msat::new(reward), PoolFee::from_millionths(millionths).unwrap());
        let division = by_weight(reward, fee, &pool.weights).unwrap();
        let (mut least, mut most) = (0, 0);
        for n in 0..12 {
            let part = pool.proof(n, reward, fee).check().unwrap();
            let credit = division.credits.iter().find(|credit| credit.account == account(n));
            prop_assert!(part.allows(credit.map_or(Msat::ZERO, |credit| credit.amount)));
            least += i128::from(part.least.get());
            most += i128::from(part.most.get());
        }
        let rest = i128::from(reward.get() - division.fee.get());
        prop_assert!(least <= rest && rest <= most && most - least <= 12);
    }
}
