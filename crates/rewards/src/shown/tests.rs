use bitcoin::absolute::LockTime;
use bitcoin::block::Version;
use bitcoin::consensus::serialize;
use bitcoin::{
    Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, TxIn, TxMerkleNode, TxOut,
    Witness, transaction,
};
use dovetail_units::SplitMix64;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::account::AccountId;
use crate::answer::Answer;
use crate::chain::{SliceHeader, SliceRoot, check_chain};
use crate::sample::{locate, points};
use crate::slice::OpenSlice;
use crate::tree::SumTree;
use crate::weight::Weight;

/// A block takes 2^16 hashes, a share four.
const BITS: u32 = 0x1f00_ffff;
const SHARE_WORK: u128 = 4;

fn coinbase(number: u64, sat: u64) -> Vec<u8> {
    let script = [&[3, 1, 2, 3][..], &number.to_le_bytes()].concat();
    serialize(&Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    })
}

/// A share that was mined, as it is counted and shown.
fn mined(number: u64, value_sat: u64, reference_sat: u64) -> (CountedShare, ShareProof) {
    let coinbase = coinbase(number, 5_000);
    let parsed: Transaction = deserialize(&coinbase).unwrap();
    let merkle_path = vec![[7; 32], [8; 32]];
    let root = merkle_root(parsed.compute_txid().to_byte_array(), &merkle_path);
    let mut header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array([9; 32]),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    };
    let work = Work::new(SHARE_WORK);
    while work_of(Target::from_le_bytes(header.block_hash().to_byte_array())) < work {
        header.nonce += 1;
    }
    let terms = ShareTerms {
        work,
        block_work: work_of(header.target()),
        value_sat,
        reference_sat,
    };
    let counted = CountedShare {
        id: ShareId::of(&HeaderHash::from_bytes(header.block_hash().to_byte_array())),
        weight: terms.weight().unwrap(),
    };
    let proof = ShareProof {
        work,
        value_sat,
        reference_sat,
        header: serialize(&header).try_into().unwrap(),
        merkle_path,
        coinbase,
    };
    (counted, proof)
}

#[test]
fn what_was_hashed_shows_the_share_and_nothing_else_does() {
    for (value, reference) in [(0, 0), (4_000, 5_000), (5_000, 5_000), (5_000, 4_000)] {
        let (counted, proof) = mined(1, value, reference);
        let shown = proof.check(&counted).unwrap();
        assert_eq!(shown.header.bits.to_consensus(), BITS);
        assert_eq!(shown.coinbase.output[0].value.to_sat(), 5_000);
    }
    let (counted, proof) = mined(1, 4_000, 5_000);
    let refused = |change: &dyn Fn(&mut ShareProof)| {
        let mut changed = proof.clone();
        change(&mut changed);
        changed.check(&counted).unwrap_err()
    };
    for byte in [0, 4, 36, 68, 72, 76] {
        assert_eq!(refused(&|it| it.header[byte] ^= 1), ShownError::Header);
    }
    assert_eq!(refused(&|it| it.coinbase[50] ^= 1), ShownError::MerklePath);
    assert_eq!(
        refused(&|it| it.coinbase.truncate(60)),
        ShownError::Coinbase
    );
    let long = vec![0; SHOWN_COINBASE_BYTES_MAX + 1];
    assert_eq!(
        refused(&|it| it.coinbase = long.clone()),
        ShownError::Coinbase
    );
    assert_eq!(
        refused(&|it| it.merkle_path[1][0] ^= 1),
        ShownError::MerklePath
    );
    assert_eq!(
        refused(&|it| it.merkle_path.clear()),
        ShownError::MerklePath
    );
    assert_eq!(
        refused(&|it| it.work = Work::new(1 << 40)),
        ShownError::Target
    );
    assert_eq!(refused(&|it| it.work = Work::new(1)), ShownError::Weight);
    assert_eq!(refused(&|it| it.value_sat = 3_000), ShownError::Weight);
    assert_eq!(refused(&|it| it.reference_sat = 4_000), ShownError::Weight);
    let (counted, proof) = mined(1, 5_001, 10_002);
    assert_eq!(proof.check(&counted), Err(ShownError::Value));
}

/// The same share on the next header whose hash is none.
fn invent(counted: &mut CountedShare, proof: &mut ShareProof) {
    let mut header: Header = deserialize(&proof.header).unwrap();
    loop {
        header.nonce += 1;
        let hash = header.block_hash().to_byte_array();
        if work_of(Target::from_le_bytes(hash)) < proof.work {
            counted.id = ShareId::of(&HeaderHash::from_bytes(hash));
            break;
        }
    }
    proof.header = serialize(&header).try_into().unwrap();
}

/// The theorem to its end: a pool that counts shares which nobody has mined is found as often as the formula says, and one that
/// did not is never accused. What was made up has a header, but its hash proves nothing.
#[test]
fn a_pool_that_invents_weight_is_caught_as_often_as_promised() {
    const SHARES: u64 = 400;
    let mut random = SplitMix64::new(11);
    for (invented, count) in [(0, 60), (4, 100), (20, 30), (200, 2)] {
        let mut open = OpenSlice::new(0, Weight::new(1 << 90).unwrap()).unwrap();
        let mut previous = SliceRoot::from_bytes([1; 32]);
        let (mut trees, mut headers) = (Vec::<SumTree>::new(), Vec::<SliceHeader>::new());
        let mut kept = Vec::new();
        for n in 0..SHARES {
            let (mut counted, mut proof) = mined(n, 0, 0);
            if n % (SHARES / invented.max(1)) == 0 && n / (SHARES / invented.max(1)) < invented {
                invent(&mut counted, &mut proof);
            }
            let account = AccountId::new([u8::try_from(random.below(5)).unwrap()]).unwrap();
            kept.push((open.number(), account.clone(), counted, proof));
            if let Some(closed) = open.add(&account, &counted).unwrap() {
                let tree = SumTree::new(closed);
                headers.push(tree.header(previous));
                previous = headers.last().unwrap().root();
                trees.push(tree);
            }
        }
        check_chain(&headers).unwrap();
        assert!(headers.len() > 5);
        let total: u128 = headers.iter().map(|header| header.total.get()).sum();
        let is_shown = |point: u128| {
            let place = locate(point, headers.iter().map(|header| header.total)).unwrap();
            let slice = trees[place.index].slice();
            let tallies = slice.accounts().values().map(|tally| tally.weight);
            let leaf = locate(place.offset, tallies).unwrap();
            let (account, _) = slice.accounts().iter().nth(leaf.index).unwrap();
            let of_leaf = kept
                .iter()
                .filter(|(number, by, ..)| *number == slice.number() && by == account);
            let shares = of_leaf.clone().map(|(_, _, counted, _)| *counted);
            let answer = Answer {
                proof: trees[place.index].proof(account).unwrap(),
                shares: shares.collect(),
            };
            let share = answer.share_at(point, &headers).unwrap();
            let mut proofs = of_leaf.filter(|(_, _, counted, _)| *counted == share);
            let (_, _, counted, proof) = proofs.next().unwrap();
            proof.check(counted).is_ok()
        };
        let blocks = 500_u32;
        let found = (0..blocks).filter(|_| {
            let block = HeaderHash::from_bytes(random.bytes32());
            let total = Weight::new(total).unwrap();
            !points(&block, &previous, total, count).all(is_shown)
        });
        let found = f64::from(u32::try_from(found.count()).unwrap());
        // Those of the open slice are not in the window.
        let closed = |number: u64| number < headers.len() as u64;
        let fake = kept
            .iter()
            .filter(|(number, _, counted, proof)| closed(*number) && proof.check(counted).is_err())
            .count();
        let all = kept.iter().filter(|(number, ..)| closed(*number)).count();
        let part = f64::from(u32::try_from(fake).unwrap()) / f64::from(u32::try_from(all).unwrap());
        let chance = 1.0 - (1.0 - part).powf(f64::from(count));
        let expected = chance * f64::from(blocks);
        let deviation = (expected * (1.0 - chance)).sqrt();
        assert!(
            (found - expected).abs() <= 5.0 * deviation,
            "{invented}: {found} of {expected}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_proof_or_refused_and_read_one_way_only(bytes in vec(any::<u8>(), 0..400)) {
        let bytes = [&[VERSION][..], &bytes].concat();
        if let Ok(proof) = ShareProof::decode(&bytes) {
            prop_assert_eq!(proof.encode(), bytes);
            // Whatever it says, it is looked at without a panic.
            let counted = CountedShare { id: ShareId([1; 16]), weight: Weight::PER_DIFFICULTY };
            prop_assert!(proof.check(&counted).is_err());
        }
    }

    #[test]
    fn a_proof_survives_its_encoding(number: u64, value: u64) {
        let (_, proof) = mined(number, value, 5);
        prop_assert_eq!(ShareProof::decode(&proof.encode()), Ok(proof));
    }
}
