use super::*;
use crate::evidence::{CountedShare, ShareId};
use crate::slice::{OpenSlice, SLICE_ACCOUNTS_MAX};
use crate::sums::parent;
use crate::weight::Weight;
use proptest::collection::vec;
use proptest::prelude::*;

fn account(n: usize) -> AccountId {
    AccountId::new(format!("account-{n:06}")).unwrap()
}

fn weight(of: u128) -> Weight {
    Weight::new(of).unwrap()
}

/// A slice of these weights, one share each.
fn slice(weights: &[u128]) -> Slice {
    let mut open = OpenSlice::new(7, weight(weights.iter().sum())).unwrap();
    let mut closed = None;
    for (n, of) in weights.iter().enumerate() {
        let share = CountedShare {
            id: ShareId([u8::try_from(n % 256).unwrap(); 16]),
            weight: weight(*of),
        };
        closed = open.add(&account(n), &share).unwrap();
    }
    closed.unwrap()
}

const BEFORE: SliceRoot = SliceRoot::from_bytes([3; 32]);

fn tree(weights: &[u128]) -> (SumTree, SliceHeader) {
    let tree = SumTree::new(slice(weights));
    let header = tree.header(BEFORE);
    (tree, header)
}

#[test]
fn a_slice_of_one_account_is_its_leaf() {
    let (tree, header) = tree(&[5]);
    assert_eq!((header.accounts, header.total), (1, weight(5)));
    let proof = tree.proof(&account(0)).unwrap();
    assert_eq!(proof.siblings, []);
    assert_eq!(proof.verify(&header), Ok(0..5));
    assert_eq!(tree.proof(&account(1)), None);
}

#[test]
fn the_largest_slice_has_the_longest_proof() {
    let (tree, header) = tree(&vec![1; SLICE_ACCOUNTS_MAX]);
    let proof = tree.proof(&account(SLICE_ACCOUNTS_MAX - 1)).unwrap();
    assert_eq!(proof.siblings.len(), PROOF_STEPS_MAX);
    let mut longest = proof.clone();
    longest.account = AccountId::new([b'a'; 255]).unwrap();
    assert_eq!(longest.encode().len(), LeafProof::ENCODED_LEN_MAX);
    assert_eq!(LeafProof::ENCODED_LEN_MAX, 1_086);
    let last = SLICE_ACCOUNTS_MAX as u128;
    assert_eq!(proof.verify(&header), Ok(last - 1..last));
}

#[test]
fn a_tree_that_stands_for_a_header_from_elsewhere_proves_nothing() {
    let (tree, header) = tree(&[1, 2, 3]);
    let proof = tree.proof(&account(1)).unwrap();
    let verify = |change: &dyn Fn(&mut SliceHeader)| {
        let mut header = header;
        change(&mut header);
        proof.verify(&header)
    };
    assert_eq!(verify(&|_| ()), Ok(1..3));
    assert_eq!(
        verify(&|header| header.total = weight(7)),
        Err(ProofError::Sum)
    );
    assert_eq!(verify(&|header| header.top[0] ^= 1), Err(ProofError::Hash));
    assert_eq!(
        verify(&|header| header.accounts = 2),
        Err(ProofError::Steps)
    );
    assert_eq!(
        verify(&|header| header.accounts = 5),
        Err(ProofError::Steps)
    );
    assert_eq!(
        verify(&|header| header.accounts = 1),
        Err(ProofError::Place)
    );
    assert_eq!(
        verify(&|header| header.accounts = u32::MAX),
        Err(ProofError::Place)
    );
}

/// A sibling that is heavier than all weight there can be, or weighs nothing, is refused before its hash is looked at.
#[test]
fn sums_neither_overflow_nor_vanish() {
    let (tree, mut header) = tree(&[1, 2]);
    let mut proof = tree.proof(&account(0)).unwrap();
    proof.siblings[0].sum = Weight::MAX;
    assert_eq!(proof.verify(&header), Err(ProofError::Sum));
    proof.siblings[0].sum = Weight::ZERO;
    header.total = weight(1);
    assert_eq!(proof.verify(&header), Err(ProofError::Empty));
    let mut right = tree.proof(&account(1)).unwrap();
    right.siblings[0].sum = Weight::MAX;
    assert_eq!(right.verify(&header), Err(ProofError::Sum));
    // A header made for it, whose leaf weighs nothing.
    let mut nothing = tree.proof(&account(0)).unwrap();
    nothing.tally.weight = Weight::ZERO;
    nothing.siblings.clear();
    let top = leaf(&nothing.account, &nothing.tally).hash;
    let made = SliceHeader {
        accounts: 1,
        top,
        ..header
    };
    assert_eq!(nothing.verify(&made), Err(ProofError::Empty));
}

/// The attack on Maxwell's tree: a parent that hashes only its sum can be read in two ways. Two leaves of 60 would pass
/// as one slice of 100, each with a sibling that claims to weigh 40.
#[test]
fn a_branch_cannot_be_read_in_two_ways() {
    let (tree, header) = tree(&[60, 60]);
    let made = |mut proof: LeafProof| {
        proof.siblings[0].sum = weight(40);
        let leaf = leaf(&proof.account, &proof.tally);
        let pair = [leaf, proof.siblings[0]];
        let [left, right] = if proof.index == 0 {
            pair
        } else {
            [pair[1], pair[0]]
        };
        let top = Node::branch(&left, &right).unwrap();
        (
            proof,
            SliceHeader {
                total: top.sum,
                top: top.hash,
                ..header
            },
        )
    };
    let (first, for_first) = made(tree.proof(&account(0)).unwrap());
    let (second, for_second) = made(tree.proof(&account(1)).unwrap());
    assert_eq!(
        (for_first.total, for_second.total),
        (weight(100), weight(100))
    );
    assert_eq!(first.verify(&for_first), Ok(0..60));
    assert_eq!(second.verify(&for_second), Ok(40..100));
    // Each has a header of its own, so under no header are both shown.
    assert_eq!(first.verify(&for_second), Err(ProofError::Hash));
    assert_eq!(second.verify(&for_first), Err(ProofError::Hash));
}

/// Give a node's weight to its sibling, so that the parent's sum stays.
#[test]
fn weight_cannot_be_moved_between_siblings() {
    let (tree, header) = tree(&[40, 60, 100]);
    let mut proof = tree.proof(&account(0)).unwrap();
    proof.siblings[0].sum = weight(59);
    proof.tally.weight = weight(41);
    assert_eq!(proof.verify(&header), Err(ProofError::Hash));
    let mut proof = tree.proof(&account(0)).unwrap();
    proof.siblings[0].sum = weight(61);
    proof.siblings[1].sum = weight(99);
    assert_eq!(proof.verify(&header), Err(ProofError::Hash));
}

fn weights() -> impl Strategy<Value = Vec<u128>> {
    vec(1_u128..1 << 90, 1..40)
}

proptest! {
    #[test]
    fn the_ranges_of_all_leaves_tile_the_slice(weights in weights()) {
        let (tree, header) = tree(&weights);
        let mut end = 0;
        for (n, of) in weights.iter().enumerate() {
            let proof = tree.proof(&account(n)).unwrap();
            let range = proof.verify(&header).unwrap();
            prop_assert_eq!((range.start, range.end - range.start), (end, *of));
            end = range.end;
            prop_assert_eq!(LeafProof::decode(&proof.encode()), Ok(proof));
        }
        prop_assert_eq!(end, header.total.get());
    }

    #[test]
    fn no_changed_proof_passes(weights in weights(), which: usize, at: usize, mask in 1_u8..) {
        let (tree, header) = tree(&weights);
        let proof = tree.proof(&account(which % weights.len())).unwrap();
        let mut bytes = proof.encode();
        let at = at % bytes.len();
        bytes[at] ^= mask;
        if let Ok(other) = LeafProof::decode(&bytes) {
            prop_assert!(other.verify(&header).is_err());
        }
        let mut elsewhere = proof;
        elsewhere.index ^= u32::from(mask);
        prop_assert!(elsewhere.verify(&header).is_err());
    }

    /// A forger who makes the header may claim any sum for any node. Still the leaves that can be shown never overlap and
    /// stay within the total, so no weight is counted twice and a claim without leaves has nothing to show.
    #[test]
    fn under_a_forged_header_the_leaves_that_can_be_shown_never_overlap(
        weights in vec(1_u128..1_000, 2..12),
        lies in vec(proptest::option::weighted(0.2, 0_u128..3_000), 40),
    ) {
        let honest = tree(&weights).0;
        let mut lies = lies.into_iter();
        let mut claim = |node: Node| Node { sum: lies.next().flatten().map_or(node.sum, weight), ..node };
        let mut levels = vec![honest.levels.0[0].iter().map(|node| claim(*node)).collect::<Vec<_>>()];
        while let Some(level) = levels.last() && level.len() > 1 {
            levels.push(level.chunks(2).map(|pair| claim(parent(pair))).collect());
        }
        let top = levels.last().unwrap()[0];
        let header = SliceHeader { total: top.sum, top: top.hash, ..honest.header(BEFORE) };
        let mut shown = Vec::new();
        for n in 0..weights.len() {
            let mut proof = honest.proof(&account(n)).unwrap();
            let siblings = levels.iter().enumerate().filter_map(|(up, level)| level.get(n >> up ^ 1));
            proof.siblings = siblings.copied().collect();
            shown.extend(proof.verify(&header));
        }
        prop_assert!(shown.is_sorted_by(|a, b| a.end <= b.start));
        prop_assert!(shown.iter().all(|range| !range.is_empty() && range.end <= header.total.get()));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_read_one_way_only(mut bytes in vec(any::<u8>(), 0..400), is_versioned: bool, length in 0_u8..8) {
        if is_versioned && bytes.len() > 2 {
            (bytes[0], bytes[1]) = (1, length);
        }
        if let Ok(proof) = LeafProof::decode(&bytes) {
            prop_assert_eq!(proof.encode(), bytes);
        }
    }

    #[test]
    fn a_proof_that_is_cut_or_goes_on_is_refused(weights in weights(), cut: usize) {
        let (tree, _) = tree(&weights);
        let bytes = tree.proof(&account(0)).unwrap().encode();
        prop_assert_eq!(LeafProof::decode(&bytes[..cut % bytes.len()]), Err(DecodeError::Length));
        let longer = [&bytes[..], &[0]].concat();
        prop_assert_eq!(LeafProof::decode(&longer), Err(DecodeError::Length));
    }
}

#[test]
fn a_proof_without_account_or_with_too_many_steps_is_refused() {
    let (tree, _) = tree(&[1, 2]);
    let mut proof = tree.proof(&account(0)).unwrap();
    let sibling = proof.siblings[0];
    proof.siblings = vec![sibling; PROOF_STEPS_MAX + 1];
    assert_eq!(LeafProof::decode(&proof.encode()), Err(DecodeError::Steps));
    proof.siblings = vec![sibling; 300];
    assert_eq!(LeafProof::decode(&proof.encode()), Err(DecodeError::Steps));
    let nameless = LeafProof::decode(&[1, 0]);
    assert!(matches!(nameless, Err(DecodeError::Account(_))));
    assert_eq!(LeafProof::decode(&[2]), Err(DecodeError::Version(2)));
}
