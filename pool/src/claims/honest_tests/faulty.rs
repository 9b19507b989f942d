//! Validators that are slow, die and miscompute, at random from a seed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use dovetail_audit::{Finding, Mismatch, Replayed, Verdict};
use dovetail_commitment::ModelId;
use dovetail_units::SplitMix64;

use super::{AUDIT_TIME_MAX, OUTPUT_TOKENS};
use crate::validation::{ThreadValidator, Validator, ValidatorError, Work};

/// Faults from a seed.
pub(super) struct Random(Mutex<SplitMix64>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix64::new(seed)))
    }

    fn below(&self, bound: u64) -> u64 {
        self.0.lock().unwrap().below(bound)
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
