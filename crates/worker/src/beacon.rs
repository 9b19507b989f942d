//! The audit's hash chain as a worker sees it: the pool published its tip, and the value of each
//! step must lead back there. So the pool cannot choose a sample once it has seen a share.

use dovetail_audit::HashChain;

/// The longest walk to a known value: what a pool's whole chain may have, a second of hashing.
const STEPS_MAX: u32 = 1 << 20;

/// Why a revealed value is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// The step was shown before, or an earlier one was: its value was no secret any more.
    #[error("step {0} of the beacon was used before")]
    UsedBefore(u32),
    /// The step is further on than any chain goes.
    #[error("step {0} of the beacon is beyond every chain")]
    TooFar(u32),
    /// The value does not lead to what was published.
    #[error("the value of step {0} does not follow from the published beacon")]
    NotOfTheChain(u32),
}

/// What is known of a pool's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    tip: [u8; 32],
    /// The newest value that was checked, and the step whose value hashes to it.
    known: [u8; 32],
    next_step: u32,
}

impl Beacon {
    /// The chain with this tip, of which no step has been seen.
    pub fn new(tip: [u8; 32]) -> Self {
        Self {
            tip,
            known: tip,
            next_step: 0,
        }
    }

    /// The published tip.
    pub fn tip(&self) -> [u8; 32] {
        self.tip
    }

    /// Checks the value that a step revealed, and remembers it.
    ///
    /// # Errors
    /// The reason not to believe it; what is known stays as it was.
    pub fn reveal(&mut self, step: u32, preimage: &[u8; 32]) -> Result<(), BeaconError> {
        let steps_between = step
            .checked_sub(self.next_step)
            .ok_or(BeaconError::UsedBefore(step))?;
        if step >= STEPS_MAX {
            return Err(BeaconError::TooFar(step));
        }
        // A chain that starts at the value has the known one as its tip, this many hashes later.
        if HashChain::from_seed(*preimage, steps_between + 1).tip() != self.known {
            return Err(BeaconError::NotOfTheChain(step));
        }
        self.known = *preimage;
        self.next_step = step + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn revealed_values_lead_to_the_tip_with_gaps_but_only_forward() {
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacon = Beacon::new(chain.tip());
        for step in [0, 1, 7, 50] {
            let preimage = chain.preimage(step).unwrap();
            assert_eq!(beacon.reveal(step, &preimage), Ok(()));
            assert_eq!(
                beacon.reveal(step, &preimage),
                Err(BeaconError::UsedBefore(step))
            );
        }
        assert_eq!(beacon.tip(), chain.tip());
    }

    #[test]
    fn a_value_of_another_chain_or_step_is_not_believed() {
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacon = Beacon::new(chain.tip());
        let other = HashChain::from_seed([2; 32], 100).preimage(3).unwrap();
        assert_eq!(beacon.reveal(3, &other), Err(BeaconError::NotOfTheChain(3)));
        let later = chain.preimage(4).unwrap();
        assert_eq!(beacon.reveal(3, &later), Err(BeaconError::NotOfTheChain(3)));
        assert_eq!(beacon.reveal(4, &later), Ok(()));
        assert_eq!(
            beacon.reveal(u32::MAX, &later),
            Err(BeaconError::TooFar(u32::MAX))
        );
    }
}
