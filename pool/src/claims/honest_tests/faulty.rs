//! Validators that are slow, die and miscompute, at random from a seed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dovetail_audit::{Finding, Mismatch, Replayed, Verdict};
use dovetail_commitment::ModelId;

use super::{AUDIT_TIME_MAX, OUTPUT_TOKENS};
use crate::validation::{ThreadValidator, Validator, ValidatorError, Work};

/// Vigna's splitmix64: faults from a seed, the same on every machine.
pub(super) struct Random(pub(super) AtomicU64);

impl Random {
    fn below(&self, bound: u64) -> u64 {
        let add = 0x9e37_79b9_7f4a_7c15_u64;
        let mut z = self.0.fetch_add(add, Ordering::Relaxed).wrapping_add(add);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A validator that replays as any, but for its faults.
pub(super) struct Faulty {
    pub(super) inner: ThreadValidator,
    pub(super) random: Arc<Random>,
}

#[tonic::async_trait]
impl Validator for Faulty {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        if self.random.below(4) == 0 {
            return Err(ValidatorError::Unreachable("still dead".to_owned()));
        }
        self.inner.describe().await
    }

    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        let fault = self.random.below(32);
        if fault == 0 {
            tokio::time::sleep(2 * AUDIT_TIME_MAX).await;
        }
        let mut verdicts = self.inner.replay(work).await?;
        match fault {
            1 => return Err(ValidatorError::Unreachable("died over it".to_owned())),
            2 => {
                // A bit of its memory has flipped.
                let place = self.random.below(verdicts.len() as u64);
                let mut trace_root = [0; 32];
                trace_root[..8].copy_from_slice(&self.random.below(u64::MAX).to_le_bytes());
                verdicts[usize::try_from(place).unwrap()] = Err(Finding {
                    mismatch: Mismatch::Trace,
                    replayed: Some(Replayed {
                        tokens: OUTPUT_TOKENS,
                        output_digest: [0; 32],
                        trace_root,
                    }),
                });
            }
            3 => {
                verdicts.pop();
            }
            _ => {}
        }
        Ok(verdicts)
    }
}
