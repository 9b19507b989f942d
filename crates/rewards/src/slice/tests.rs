use super::*;
use crate::evidence::ShareId;
use proptest::collection::vec;
use proptest::prelude::*;

fn account(n: u32) -> AccountId {
    AccountId::new(n.to_be_bytes()).unwrap()
}

fn weight(weight: u128) -> Weight {
    Weight::new(weight).unwrap()
}

fn share(n: u32, of: u128) -> CountedShare {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&n.to_le_bytes());
    CountedShare {
        id: ShareId(id),
        weight: weight(of),
    }
}

fn open(size: u128) -> OpenSlice {
    OpenSlice::new(0, weight(size)).unwrap()
}

#[test]
fn the_share_that_fills_a_slice_counts_in_it_whole() {
    let mut slice = open(100);
    assert_eq!(slice.add(&account(1), &share(1, 99)), Ok(None));
    let closed = slice.add(&account(2), &share(2, 1_000)).unwrap().unwrap();
    assert_eq!((closed.number(), closed.total()), (0, weight(1_099)));
    assert_eq!(closed.accounts()[&account(2)].weight, weight(1_000));
    assert_eq!((slice.number(), slice.total()), (1, Weight::ZERO));
    assert!(slice.accounts().is_empty());
}

#[test]
fn a_slice_closes_exactly_when_its_size_is_reached() {
    let mut slice = open(100);
    assert_eq!(slice.add(&account(1), &share(1, 99)), Ok(None));
    assert!(slice.add(&account(1), &share(2, 1)).unwrap().is_some());
}

#[test]
fn a_share_without_weight_is_no_part_of_a_slice() {
    let mut slice = open(100);
    assert_eq!(slice.add(&account(1), &share(1, 0)), Ok(None));
    assert_eq!(slice, open(100));
}

#[test]
fn a_share_that_no_share_can_be_changes_nothing() {
    let mut slice = open(100);
    let heavy = share(1, Weight::PER_DIFFICULTY.get() + 1);
    assert_eq!(slice.add(&account(1), &heavy), Err(SliceError::Share));
    assert_eq!(slice, open(100));
    let whole = share(1, Weight::PER_DIFFICULTY.get());
    assert!(slice.add(&account(1), &whole).unwrap().is_some());
}

#[test]
fn sizes_have_bounds() {
    for size in [0, Weight::PER_DIFFICULTY.get() + 1] {
        assert_eq!(OpenSlice::new(0, weight(size)), Err(SliceError::Size));
    }
    assert_eq!(Slice::SIZE.get() * 1_024, Weight::PER_DIFFICULTY.get());
    assert!(OpenSlice::new(0, Weight::PER_DIFFICULTY).is_ok());
}

#[test]
fn a_slice_of_too_many_accounts_closes_before_its_weight_is_full() {
    let mut slice = open(Slice::SIZE.get());
    for n in 1..SLICE_ACCOUNTS_MAX {
        let n = u32::try_from(n).unwrap();
        assert_eq!(slice.add(&account(n), &share(n, 1)), Ok(None));
    }
    // One more share of an account that is there does not close it; one more account does.
    assert_eq!(slice.add(&account(1), &share(0, 1)), Ok(None));
    let closed = slice
        .add(&account(0), &share(u32::MAX, 1))
        .unwrap()
        .unwrap();
    assert_eq!(closed.accounts().len(), SLICE_ACCOUNTS_MAX);
}

#[test]
fn what_is_no_open_slice_is_not_taken_up() {
    let mut slice = open(100);
    slice.add(&account(1), &share(1, 60)).unwrap();
    let (name, tally) = slice.accounts().iter().next().unwrap();
    let resume =
        |size, accounts: Vec<(AccountId, Tally)>| OpenSlice::resume(0, weight(size), accounts);
    let one = (name.clone(), *tally);
    assert_eq!(resume(100, vec![one.clone()]), Ok(slice.clone()));
    let refused = Err(SliceError::NotOpen);
    assert_eq!(resume(60, vec![one.clone()]), refused);
    assert_eq!(resume(1_000, vec![one.clone(), one]), refused);
    let nothing = Tally {
        weight: Weight::ZERO,
        ..*tally
    };
    assert_eq!(resume(100, vec![(account(1), nothing)]), refused);
    let huge = Tally {
        weight: Weight::MAX,
        ..*tally
    };
    assert_eq!(
        resume(100, vec![(account(1), huge), (account(2), huge)]),
        refused
    );
    assert_eq!(resume(0, vec![]), Err(SliceError::Size));
}

proptest! {
    /// Whatever comes, in whatever order: each share is in one slice, each slice but for the last is full, and would not
    /// be without its last share.
    #[test]
    fn every_share_is_in_one_slice_and_every_slice_is_just_full(
        shares in vec((0_u32..6, 0_u128..400), 0..200),
        size in 1_u128..1_000,
        restart in 0_usize..200,
    ) {
        let mut slice = open(size);
        let (mut number, mut sum, mut since) = (0, 0, 0);
        for (n, (of, value)) in (0_u32..).zip(&shares) {
            if n as usize == restart {
                let kept = slice.accounts().clone();
                slice = OpenSlice::resume(slice.number(), weight(size), kept).unwrap();
            }
            sum += value;
            since += value;
            if let Some(closed) = slice.add(&account(*of), &share(n, *value)).unwrap() {
                prop_assert_eq!((closed.number(), closed.total().get()), (number, since));
                prop_assert!(since >= size && since - value < size);
                let parts: u128 = closed.accounts().values().map(|tally| tally.weight.get()).sum();
                prop_assert_eq!(parts, since);
                (number, since) = (number + 1, 0);
            }
            prop_assert_eq!((slice.number(), slice.total().get()), (number, since));
        }
        prop_assert!(sum >= since);
    }

    /// Within a slice only the sums count: the order of its shares changes no weight.
    #[test]
    fn the_order_of_shares_within_a_slice_changes_no_weight(shares in vec((0_u32..6, 1_u128..100), 1..50), seed: u64) {
        let size = shares.iter().map(|(_, weight)| weight).sum();
        let closed = |order: &[(u32, u128)]| {
            let mut slice = open(size);
            let mut closed = order
                .iter()
                .zip(0..)
                .filter_map(|((of, value), n)| slice.add(&account(*of), &share(n, *value)).unwrap());
            let only = closed.next().unwrap();
            assert!(closed.next().is_none());
            only.accounts().iter().map(|(name, tally)| (name.clone(), tally.weight)).collect::<Vec<_>>()
        };
        let mut shuffled = shares.clone();
        let mut random = dovetail_units::SplitMix64::new(seed);
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, usize::try_from(random.below(at as u64 + 1)).unwrap());
        }
        prop_assert_eq!(closed(&shares), closed(&shuffled));
    }
}
