//! What a pool promises about audits, and how a worker sees that it kept it: the sample of a batch is drawn from the
//! header of a share that claimed the batch, by a function that the pool cannot choose the output of.

mod left_pools;

use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{BatchOutcome, sample_input};
use dovetail_vrf::VrfProof;

use crate::claim::{SentClaim, is_mismatch};

pub use left_pools::{LeftPools, LeftPoolsError};

/// Why a pool is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BrokenPromise {
    /// The proof does not hold: the pool made the sample up.
    #[error("the pool's proof of a sample does not hold")]
    NotProven,
    /// The sample is drawn from a header that was not one of our claims: the pool chose it.
    #[error("the pool drew a sample from the header of no share that claimed the batch")]
    NotOurShare,
    /// A batch has ended, and what drew its sample is kept back.
    #[error("the pool ended a batch and keeps the proof of its sample back")]
    Kept,
    /// The answer to a share and the outcome of its claim say different things.
    #[error("the outcome of a claim contradicts the pool's answer to its share")]
    Contradiction,
    /// Shares were accepted, and nothing was ever said of their audits.
    #[error("the pool accepted the shares of {0} claims in a row without an outcome")]
    Unexplained(u32),
}

/// Checks what an outcome shows of the sample. `false` if the batch has not ended and nothing is shown.
///
/// # Errors
/// The reason to leave the pool.
pub fn check_sample(claim: &SentClaim, outcome: &BatchOutcome) -> Result<bool, BrokenPromise> {
    if outcome.proof == VrfProof::NONE {
        return match has_ended(outcome) {
            true => Err(BrokenPromise::Kept),
            false => Ok(false),
        };
    }
    // By the key that the pool had named before that share.
    let mut shares = claim.shares_of_root.iter();
    let drawn_from = shares.find(|(header, _)| *header == outcome.sample_header);
    let (header, key) = drawn_from.ok_or(BrokenPromise::NotOurShare)?;
    key.verify(&sample_input(header, &outcome.root), &outcome.proof)
        .map(|_| true)
        .map_err(|_| BrokenPromise::NotProven)
}

fn has_ended(outcome: &BatchOutcome) -> bool {
    outcome.accepted || is_mismatch(outcome) || outcome.code == Code::BatchDead
}

#[cfg(test)]
mod tests {
    use dovetail_commitment::{BatchRoot, HeaderHash};
    use dovetail_vrf::VrfSecret;

    use super::*;

    const ROOT: BatchRoot = BatchRoot::from_bytes([1; 32]);

    fn header(n: u8) -> HeaderHash {
        HeaderHash::from_bytes([n; 32])
    }

    fn secret(n: u8) -> VrfSecret {
        VrfSecret::from_bytes([n; 32]).unwrap()
    }

    /// A claim with the third share; the first one was sent while the pool had another key.
    fn claim() -> SentClaim {
        let (before, now) = (secret(8).public_key(), secret(9).public_key());
        SentClaim {
            root: ROOT,
            header_hash: header(3),
            task_ids: Vec::new(),
            output_tokens: 0,
            shares_of_root: vec![(header(1), before), (header(2), now), (header(3), now)],
        }
    }

    fn outcome(drawn_from: HeaderHash, by: &VrfSecret) -> BatchOutcome {
        BatchOutcome {
            root: ROOT,
            header_hash: header(3),
            accepted: true,
            sample_header: drawn_from,
            proof: by.prove(&sample_input(&drawn_from, &ROOT)),
            stake_msat: 1,
            code: String::new(),
            credit_msat: 1,
            held_msat: 1,
        }
    }

    #[test]
    fn a_sample_that_any_share_of_the_batch_draws_is_believed() {
        for (share, key) in [(1, 8), (2, 9), (3, 9)] {
            let outcome = outcome(header(share), &secret(key));
            assert_eq!(check_sample(&claim(), &outcome), Ok(true), "{share}");
        }
    }

    #[test]
    fn a_sample_of_no_share_of_ours_was_chosen() {
        let outcome = outcome(header(4), &secret(9));
        let refused = check_sample(&claim(), &outcome);
        assert_eq!(refused, Err(BrokenPromise::NotOurShare));
    }

    #[test]
    fn a_key_that_was_named_after_the_share_proves_nothing() {
        let with_new_key = outcome(header(1), &secret(9));
        let refused = check_sample(&claim(), &with_new_key);
        assert_eq!(refused, Err(BrokenPromise::NotProven));
    }

    #[test]
    fn a_proof_of_another_batch_or_share_proves_nothing() {
        let good = outcome(header(2), &secret(9));
        let of_another_share = BatchOutcome {
            proof: outcome(header(3), &secret(9)).proof,
            ..good.clone()
        };
        let of_another_batch = BatchOutcome {
            proof: secret(9).prove(&sample_input(&header(2), &BatchRoot::from_bytes([2; 32]))),
            ..good
        };
        for outcome in [of_another_share, of_another_batch] {
            let refused = check_sample(&claim(), &outcome);
            assert_eq!(refused, Err(BrokenPromise::NotProven));
        }
    }

    #[test]
    fn a_batch_ends_with_a_proof_and_an_audit_that_could_not_be_done_needs_none() {
        let silent = BatchOutcome {
            sample_header: header(0),
            proof: VrfProof::NONE,
            ..outcome(header(2), &secret(9))
        };
        let told = |accepted, code: &str| {
            let outcome = BatchOutcome {
                accepted,
                code: code.to_owned(),
                ..silent.clone()
            };
            check_sample(&claim(), &outcome)
        };
        assert_eq!(told(true, ""), Err(BrokenPromise::Kept));
        assert_eq!(told(false, "tokens"), Err(BrokenPromise::Kept));
        assert_eq!(told(false, "batch-dead"), Err(BrokenPromise::Kept));
        assert_eq!(told(false, "audit-unavailable"), Ok(false));
        assert_eq!(told(false, "internal"), Ok(false));
    }
}
