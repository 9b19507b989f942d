//! Shares that are withheld until the sample suits. The sample hangs on the share's hash and on a value
//! that the pool tells only once the share is in, so a worker cannot know which of its shares suit.

use dovetail_audit::{HashChain, sample};
use dovetail_commitment::{HeaderHash, tagged_hash};

use crate::fixture::Case;

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_share_is_sampled_with_a_value_that_nobody_knew() {
    let (case, mut cheat) = Case::with_worker().await;
    let (held, first) = (case.batch(&mut cheat).await, case.batch(&mut cheat).await);
    let job = cheat.job(Some(&held.root)).await;
    // Three to choose from, all found before the value of the next step is known.
    let shares = [
        cheat.hash(&job).await,
        cheat.hash(&job).await,
        cheat.hash(&job).await,
    ];
    let known = cheat.claim(&first.root).await.credited();
    let job = cheat.job(Some(&held.root)).await;
    let fresh = cheat.hash(&job).await;
    let outcome = cheat.submit(&fresh, Some(&held.root)).await.credited();
    assert!(outcome.beacon_step > known.beacon_step);
    let steps = outcome.beacon_step - known.beacon_step;
    let chain = HashChain::from_seed(outcome.preimage, steps);
    assert_eq!(
        chain.tip(),
        known.preimage,
        "it follows from what was told before"
    );
    let whole = HashChain::from_seed(outcome.preimage, outcome.beacon_step + 1);
    assert_eq!(whole.tip(), cheat.beacon_tip, "and from the published tip");
    // Once the value is out the batch is spent, whichever share would have suited it.
    for share in shares {
        let verdict = cheat.submit(&share, Some(&held.root)).await;
        assert_eq!(verdict.refusal(), "batch-spent");
    }
    case.earned_batches(&cheat, 2);
    case.end().await;
}

const LEAVES: usize = 64;
const REPLAYED: usize = 4;
/// The first quarter of a batch is a lie.
const BAD: usize = 16;
const BATCHES: u32 = 2_000;
/// How many shares a cheat finds before the batch expires.
const SHARES: u64 = 64;

fn header(batch: u32, share: u64) -> HeaderHash {
    let numbers = [&batch.to_le_bytes()[..], &share.to_le_bytes()].concat();
    HeaderHash::from_bytes(tagged_hash("test/header", &[&numbers]))
}

fn suits(header: &HeaderHash, value: &[u8; 32]) -> bool {
    let drawn = sample(header, value, LEAVES, REPLAYED);
    drawn.iter().all(|index| *index >= BAD)
}

/// How many of the batches pass if the cheat submits the first share that would pass under what it
/// believes the value to be, and the pool draws with the real one.
fn passed(believed: impl Fn(u32) -> [u8; 32], real: impl Fn(u32) -> [u8; 32]) -> u32 {
    let passes = |batch: &u32| {
        let chosen = (0..SHARES)
            .map(|share| header(*batch, share))
            .find(|header| suits(header, &believed(*batch)))
            .unwrap_or_else(|| header(*batch, 0));
        suits(&chosen, &real(*batch))
    };
    u32::try_from((0..BATCHES).filter(passes).count()).unwrap()
}

#[test]
fn withholding_pays_where_the_sample_is_known_and_is_useless_against_the_beacon() {
    let chain = HashChain::from_seed([7; 32], BATCHES + 1);
    let value = |step: u32| chain.preimage(step).unwrap();
    // C(48, 4) / C(64, 4): none of the four replays hits the lie.
    let blind = 0.306_24 * f64::from(BATCHES);
    let five_deviations = 5.0 * (blind * (1.0 - 0.306_24)).sqrt();

    // Were the sample drawn with a value that is known, it would be a matter of a few shares.
    let known = passed(value, value);
    assert_eq!(known, BATCHES);
    // With the newest value that was revealed, or one of its own, the cheat chooses blindly.
    for believed in [|batch: u32| batch, |_: u32| 0] {
        let gained = passed(|batch| value(believed(batch)), |batch| value(batch + 1));
        let off = (f64::from(gained) - blind).abs();
        assert!(off < five_deviations, "{gained} of {BATCHES} passed");
    }
}
