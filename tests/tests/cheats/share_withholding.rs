//! Shares that are withheld until the sample suits. The sample hangs on an output of the pool's verifiable function, which
//! nobody else can compute before it is told, and which the batch has one of.

use dovetail_audit::{Stake, WeighedLeaf, sample};
use dovetail_commitment::{BatchRoot, HeaderHash, LeafHash, tagged_hash};
use dovetail_sv2::extension::{BatchOutcome, sample_input};
use dovetail_units::Msat;
use dovetail_vrf::{VrfOutput, VrfPublicKey, VrfSecret};

use crate::fixture::Case;

/// The output that draws the sample, if the pool has proven it.
fn output(key: VrfPublicKey, outcome: &BatchOutcome) -> VrfOutput {
    let input = sample_input(&outcome.sample_header, &outcome.root);
    key.verify(&input, &outcome.proof).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_share_is_sampled_with_an_output_that_nobody_knew() {
    let (case, mut cheat) = Case::with_worker().await;
    let key = cheat.vrf_key.unwrap();
    let (held, first) = (case.batch(&mut cheat).await, case.batch(&mut cheat).await);
    let job = cheat.job(Some(&held.root)).await;
    // Three to choose from, all found before anything is known of how they draw.
    let shares = [
        cheat.hash(&job).await,
        cheat.hash(&job).await,
        cheat.hash(&job).await,
    ];
    let known = cheat.claim(&first.root).await.credited();
    let known = output(key, &known);
    let job = cheat.job(Some(&held.root)).await;
    let fresh = cheat.hash(&job).await;
    let outcome = cheat.submit(&fresh, Some(&held.root)).await.credited();
    assert_eq!(outcome.sample_header, outcome.header_hash);
    assert_ne!(output(key, &outcome), known);
    // The proof is of this share and batch, and of no other.
    let other = BatchOutcome {
        root: first.root,
        ..outcome.clone()
    };
    let input = sample_input(&other.sample_header, &other.root);
    assert!(key.verify(&input, &other.proof).is_err());
    // Once it is told the batch is spent, whichever share would have suited it.
    for share in shares {
        let verdict = cheat.submit(&share, Some(&held.root)).await;
        assert_eq!(verdict.refusal(), "batch-spent");
    }
    case.earned_batches(&cheat, 2);
    case.end().await;
}

const LEAVES: usize = 64;
/// The first quarter of a batch is a lie.
const BAD: usize = 16;
const BATCHES: u32 = 300;
/// How many shares a cheat finds before the batch expires.
const SHARES: u64 = 64;

fn header(batch: u32, share: u64) -> HeaderHash {
    let numbers = [&batch.to_le_bytes()[..], &share.to_le_bytes()].concat();
    HeaderHash::from_bytes(tagged_hash("test/header", &[&numbers]))
}

fn root(batch: u32) -> BatchRoot {
    BatchRoot::from_bytes(tagged_hash("test/root", &[&batch.to_le_bytes()]))
}

/// Whether the share's sample hits no lie, by the function of this secret.
fn suits(secret: &VrfSecret, batch: u32, header: &HeaderHash) -> bool {
    let (output, _) = secret.evaluate(&sample_input(header, &root(batch)));
    // All worth the same, and little beside what is held: each is replayed with 5 %.
    let leaf = |index: usize| WeighedLeaf {
        leaf: LeafHash::from_bytes(tagged_hash("test/leaf", &[&index.to_le_bytes()])),
        value: Msat::new(1),
    };
    let leaves: Vec<WeighedLeaf> = (0..LEAVES).map(leaf).collect();
    let drawn = sample(&output.seed(), &leaves, Stake::new(Msat::new(1_000)));
    drawn.iter().all(|index| *index >= BAD)
}

/// How many of the batches pass if the cheat submits the first share that would pass under what it believes the secret to
/// be, and the pool draws with the real one.
fn passed(believed: &VrfSecret, real: &VrfSecret) -> u32 {
    let passes = |batch: &u32| {
        let chosen = (0..SHARES)
            .map(|share| header(*batch, share))
            .find(|header| suits(believed, *batch, header))
            .unwrap_or_else(|| header(*batch, 0));
        suits(real, *batch, &chosen)
    };
    u32::try_from((0..BATCHES).filter(passes).count()).unwrap()
}

#[test]
fn withholding_pays_with_the_pools_secret_and_is_useless_without_it() {
    let [real, guessed] = [7, 8].map(|n| VrfSecret::from_bytes([n; 32]).unwrap());
    // 0.95^16: none of the false leaves is replayed.
    let blind = 0.440_13 * f64::from(BATCHES);
    let five_deviations = 5.0 * (blind * (1.0 - 0.440_13)).sqrt();
    // With the secret it would be a matter of a few shares.
    assert_eq!(passed(&real, &real), BATCHES);
    let gained = passed(&guessed, &real);
    let off = (f64::from(gained) - blind).abs();
    assert!(off < five_deviations, "{gained} of {BATCHES} passed");
}
