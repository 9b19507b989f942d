//! The test vectors of `docs/rewards.md`, docs/rewards-vectors.txt: made by the code here, so that somebody who writes
//! another checker can compare step by step. `DOVETAIL_WRITE_VECTORS=1` writes the file anew.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_rewards::{
    AccountId, BlockStatement, BlockTerms, CountedShare, DivisionRule, Evidence, LeafProof,
    OpenSlice, PartsTree, PoolFee, ShareId, ShareProof, ShareTerms, SliceHeader, SliceRoot,
    SumTree, Weight, Weights, WindowLength, WindowTerms, by_weight, check_chain, points, to_finder,
};
use dovetail_units::{Msat, Work};

struct Vectors(String);

impl Vectors {
    fn about(&mut self, words: &str) {
        write!(self.0, "\n# {words}\n").unwrap();
    }

    fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{name} = {value}").unwrap();
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.value(name, hex);
    }
}

fn account(name: &str) -> AccountId {
    AccountId::new(name).unwrap()
}

fn hashes(out: &mut Vectors) {
    out.about("Tagged hashes of the three bytes \"abc\"");
    for tag in [
        "reward-chain",
        "reward-slice",
        "reward-leaf",
        "reward-branch",
        "reward-evidence",
        "reward-share",
        "reward-sample",
        "reward-block",
        "reward-part",
    ] {
        let tag = format!("dovetail/{tag}");
        out.bytes(
            &format!("tagged_hash({tag})"),
            &tagged_hash(&tag, &[b"abc"]),
        );
    }
}

fn weights(out: &mut Vectors) {
    out.about(
        "Weights: work, block_work, value_sat, reference_sat, and the weight in decimal digits",
    );
    let terms = [
        (1_u128 << 64, 1_u128 << 79, 320_000_000_u64, 320_000_000_u64),
        (1 << 64, 1 << 79, 300_000_000, 320_000_000),
        (1 << 64, 1 << 79, 330_000_000, 320_000_000),
        (
            1_000_000_007,
            604_462_909_807_314_587_353_111,
            312_499_999,
            312_500_001,
        ),
        (2, 2, 5_000_000_000, 5_000_000_000),
        (9, 2, 0, 0),
        (1, (1 << 126) - 1, 1, 1),
        (7, 13, 1, 2_100_000_000_000_000),
    ];
    for (n, (work, block_work, value_sat, reference_sat)) in terms.into_iter().enumerate() {
        let terms = ShareTerms {
            work: Work::new(work),
            block_work: Work::new(block_work),
            value_sat,
            reference_sat,
        };
        let name = format!("weight.{n}");
        out.value(
            &format!("{name}.terms"),
            format_args!("{work}, {block_work}, {value_sat}, {reference_sat}"),
        );
        out.value(&name, terms.weight().unwrap().get());
    }
}

fn share(n: u8, weight: u128) -> CountedShare {
    CountedShare {
        id: ShareId([n; 16]),
        weight: Weight::new(weight).unwrap(),
    }
}

fn evidence(out: &mut Vectors) {
    out.about("Evidence: of account \"alice\" in slice 0, then after each of two shares");
    let mut evidence = Evidence::none(0, &account("alice"));
    out.bytes("evidence.none", evidence.as_bytes());
    for share in [share(1, 1 << 88), share(3, 1 << 88)] {
        out.bytes("share", &share.encode());
        evidence = evidence.and(&share);
        out.bytes("evidence", evidence.as_bytes());
    }
}

/// Two slices: of three accounts and of one.
fn slices(out: &mut Vectors) -> (SliceHeader, SliceHeader) {
    let mut open = OpenSlice::new(0, Weight::new(1000 << 80).unwrap()).unwrap();
    let mut add = |name: &str, share: CountedShare| open.add(&account(name), &share).unwrap();
    let shares = [
        ("alice", 1, 256),
        ("bob", 2, 240),
        ("alice", 3, 256),
        ("bob", 4, 240),
    ];
    for (name, n, weight) in shares {
        assert_eq!(add(name, share(n, weight << 80)), None);
    }
    let first = SumTree::new(add("carol", share(5, 256 << 80)).unwrap());
    let second = SumTree::new(add("x", share(6, 1 << 99)).unwrap());

    out.about("The chain of a pool: its key, block 0 of its network, 32 bytes of its ledger");
    let genesis = SliceRoot::genesis(&[1; 32], &HeaderHash::from_bytes([2; 32]), &[3; 32]);
    out.bytes("genesis", genesis.as_bytes());
    out.about(
        "Slice 0, of alice (shares 1 and 3), bob (2 and 4) and carol (5); each leaf with its proof",
    );
    let header = tree(out, "slice.0", &first, genesis, &["alice", "bob", "carol"]);
    out.about("Slice 1, of one account, which one share overfills");
    let next = tree(out, "slice.1", &second, header.root(), &["x"]);
    check_chain([&header, &next]).unwrap();
    (header, next)
}

fn tree(
    out: &mut Vectors,
    name: &str,
    tree: &SumTree,
    previous: SliceRoot,
    accounts: &[&str],
) -> SliceHeader {
    let header = tree.header(previous);
    for of in accounts {
        let proof = tree.proof(&account(of)).unwrap();
        let range = proof.verify(&header).unwrap();
        out.bytes(&format!("{name}.{of}.proof"), &proof.encode());
        out.value(
            &format!("{name}.{of}.range"),
            format_args!("{}, {}", range.start, range.end),
        );
        assert_eq!(LeafProof::decode(&proof.encode()), Ok(proof));
    }
    out.bytes(&format!("{name}.top"), &header.top);
    out.bytes(&format!("{name}.header"), &header.encode());
    out.bytes(&format!("{name}.root"), header.root().as_bytes());
    assert_eq!(SliceHeader::decode(&header.encode()), Ok(header));
    header
}

fn sample(out: &mut Vectors, (first, second): (SliceHeader, SliceHeader)) {
    out.about("Points on the window of both slices, drawn by the block whose hash is 32 bytes 04");
    let total = first.total.checked_add(second.total).unwrap();
    out.value("window.total", total.get());
    let block = HeaderHash::from_bytes([4; 32]);
    for (n, point) in points(&block, &second.root(), total, 4).enumerate() {
        out.value(&format!("point.{n}"), point);
    }
}

/// Accounts and what they weigh.
type Of = &'static [(&'static str, u128)];

fn division(out: &mut Vectors) {
    out.about(
        "Divisions: reward in msat, fee in millionths, weights; then the fee and the parts in msat",
    );
    let cases: [(i64, u32, Of); 4] = [
        (
            300_000_001_000,
            10_000,
            &[("alice", 4 << 100), ("bob", 45 << 96), ("carol", 19 << 96)],
        ),
        (10, 0, &[("a", 1), ("b", 1), ("c", 1)]),
        (2, 0, &[("a", 5), ("b", 5), ("c", 5), ("d", 5)]),
        (i64::MAX, 1, &[("a", 1), ("b", (1 << 120) - 1)]),
    ];
    for (n, (reward, fee, of)) in cases.into_iter().enumerate() {
        let mut weights = Weights::default();
        for (name, weight) in of {
            weights
                .add(&account(name), Weight::new(*weight).unwrap())
                .unwrap();
        }
        let name = format!("division.{n}");
        out.value(&format!("{name}.reward"), reward);
        out.value(&format!("{name}.fee_millionths"), fee);
        for (account, weight) in of {
            out.value(&format!("{name}.{account}.weight"), weight);
        }
        let fee = PoolFee::from_millionths(fee).unwrap();
        let division = by_weight(Msat::new(reward), fee, &weights).unwrap();
        out.value(&format!("{name}.fee"), division.fee.get());
        for credit in division.credits {
            out.value(&format!("{name}.{}", credit.account), credit.amount.get());
        }
    }
}

/// What is signed of the first of the divisions above, over both slices, and of a block that is its finder's.
fn statements(out: &mut Vectors, newest: SliceRoot) {
    out.about("What is signed of blocks whose hashes are 32 bytes 04 and 05: of alice, bob and carol over slices 0 and 1, and of a finder");
    let mut weights = Weights::default();
    for (name, weight) in [("alice", 4 << 100), ("bob", 45 << 96), ("carol", 19 << 96)] {
        let weight = Weight::new(weight).unwrap();
        weights.add(&account(name), weight).unwrap();
    }
    let (reward, fee_part) = (
        Msat::new(300_000_001_000),
        PoolFee::from_millionths(10_000).unwrap(),
    );
    let window = WindowTerms {
        first: 0,
        last: 1,
        length: WindowLength::default(),
    };
    for (n, division, window) in [
        (
            4,
            by_weight(reward, fee_part, &weights),
            Some((window, newest)),
        ),
        (5, to_finder(reward, fee_part, &account("bob")), None),
    ] {
        let division = division.unwrap();
        let tree = PartsTree::new(&division);
        let statement = BlockStatement {
            block: HeaderHash::from_bytes([n; 32]),
            height: 900_000 + u32::from(n),
            rule: DivisionRule::Pplns,
            terms: BlockTerms {
                reward,
                fee: division.fee,
                fee_part,
            },
            window,
            parts: tree.root(),
        };
        let name = format!("statement.{n}");
        for credit in &division.credits {
            let part = tree.part(&credit.account).unwrap();
            assert_eq!(statement.check_part(&part), Ok(()));
            out.bytes(&format!("{name}.{}.part", credit.account), &part.encode());
        }
        out.bytes(&format!("{name}.parts_top"), &statement.parts.top);
        out.bytes(&format!("{name}.bytes"), &statement.encode());
        out.bytes(&format!("{name}.hash"), &statement.hash());
    }
}

fn shown(out: &mut Vectors) {
    out.about("A share as it is shown: 2^64 hashes, 300,000,000 and 320,000,000 satoshi, a header of bytes 01, a path of 02 and 03, a coinbase of 04");
    let proof = ShareProof {
        work: Work::new(1 << 64),
        value_sat: 300_000_000,
        reference_sat: 320_000_000,
        header: [1; 80],
        merkle_path: vec![[2; 32], [3; 32]],
        coinbase: vec![4; 5],
    };
    assert_eq!(ShareProof::decode(&proof.encode()).as_ref(), Ok(&proof));
    out.bytes("shown", &proof.encode());
}

#[test]
fn the_vectors_are_what_the_functions_compute() {
    let mut out = Vectors(
        "Test vectors of docs/rewards.md. Lines are `name = value`; bytes are in hexadecimal, in the order in\n\
         which they are encoded; numbers are decimal. A test of the source makes this file.\n"
            .to_owned(),
    );
    hashes(&mut out);
    weights(&mut out);
    evidence(&mut out);
    let headers = slices(&mut out);
    sample(&mut out, headers);
    division(&mut out);
    statements(&mut out, headers.1.root());
    shown(&mut out);
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/rewards-vectors.txt"
    );
    if std::env::var_os("DOVETAIL_WRITE_VECTORS").is_some() {
        std::fs::write(path, &out.0).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_default();
    for (line, (ours, theirs)) in (1..).zip(out.0.lines().zip(file.lines())) {
        assert_eq!(ours, theirs, "line {line} of {path}");
    }
    assert_eq!(out.0.lines().count(), file.lines().count(), "{path}");
}
