//! The audit's hash chain as a worker sees it: the pool published its tip, and the value of each
//! step must lead back there. So the pool cannot choose a sample once it has seen a share.

mod memory;

use std::collections::BTreeSet;

use dovetail_audit::HashChain;

pub use memory::{BeaconFileError, Beacons};

/// The longest chain, and so the longest walk to a known value: a second of hashing for a whole chain.
const STEPS_MAX: u32 = 1 << 20;
/// How far an outcome's step may be behind the newest one: more than a large pool takes in the time of an audit, and
/// few enough to walk.
const STEPS_BEHIND_MAX: u32 = 1 << 16;
/// How many steps are remembered as used. Outcomes come in the order of their steps but for moments.
const USED_MAX: usize = 1_024;

/// Why a pool is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeaconError {
    /// The step was used for another share, or revealed before this one was submitted: its value was no
    /// secret any more.
    #[error("step {0} of the beacon was used before")]
    UsedBefore(u32),
    /// The step is further on than any chain goes.
    #[error("step {0} of the beacon is beyond every chain")]
    TooFar(u32),
    /// The value does not lead to what was published.
    #[error("the value of step {0} does not follow from the published beacon")]
    NotOfTheChain(u32),
    /// The step is so far behind the newest one that only a walk of many hashes could check it.
    #[error("step {0} of the beacon is long past")]
    TooOld(u32),
    /// A batch was refused for what a sample showed, without the value that chose the sample.
    #[error("the pool reports a mismatch and keeps the value that chose the sample")]
    Kept,
    /// The answer to a share and the outcome of its claim say different things.
    #[error("the outcome of a claim contradicts the pool's answer to its share")]
    Contradiction,
    /// Shares were accepted, and nothing was ever said of their audits.
    #[error("the pool accepted the shares of {0} claims in a row without an outcome")]
    Unexplained(u32),
}

/// What is known of a pool's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    tip: [u8; 32],
    /// The newest value that was checked, and the step whose value hashes to it.
    known: [u8; 32],
    next_step: u32,
    /// The newest steps that were revealed.
    used: BTreeSet<u32>,
}

impl Beacon {
    /// The chain with this tip, of which no step has been seen.
    pub fn new(tip: [u8; 32]) -> Self {
        Self {
            tip,
            known: tip,
            next_step: 0,
            used: BTreeSet::new(),
        }
    }

    /// The published tip.
    pub fn tip(&self) -> [u8; 32] {
        self.tip
    }

    /// One more than the newest step that was revealed.
    pub fn next_step(&self) -> u32 {
        self.next_step
    }

    /// Checks the value that a step revealed, and remembers it. `floor` is what [`Self::next_step`] was
    /// before the share was submitted: outcomes may cross on their way, but a step that was revealed by then
    /// must not choose the share's sample.
    ///
    /// # Errors
    /// The reason not to believe it; what is known stays as it was.
    pub fn reveal(
        &mut self,
        floor: u32,
        step: u32,
        preimage: &[u8; 32],
    ) -> Result<(), BeaconError> {
        let forgotten = self.used.len() >= USED_MAX && self.used.first() > Some(&step);
        if step < floor || forgotten || self.used.contains(&step) {
            return Err(BeaconError::UsedBefore(step));
        }
        if step >= STEPS_MAX {
            return Err(BeaconError::TooFar(step));
        }
        if self.next_step.saturating_sub(step) > STEPS_BEHIND_MAX {
            return Err(BeaconError::TooOld(step));
        }
        // `later` is that many hashes from `earlier`: a chain that starts there has it as its tip.
        let leads_to = |earlier: [u8; 32], steps: u32, later: [u8; 32]| {
            HashChain::from_seed(earlier, steps).tip() == later
        };
        let holds = match step.checked_sub(self.next_step) {
            Some(between) => leads_to(*preimage, between + 1, self.known),
            None => leads_to(self.known, self.next_step - 1 - step, *preimage),
        };
        if !holds {
            return Err(BeaconError::NotOfTheChain(step));
        }
        self.used.insert(step);
        if self.used.len() > USED_MAX {
            self.used.pop_first();
        }
        if step >= self.next_step {
            self.known = *preimage;
            self.next_step = step + 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revealed_values_lead_to_the_tip_with_gaps() {
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacon = Beacon::new(chain.tip());
        for step in [0, 1, 7, 50] {
            let preimage = chain.preimage(step).unwrap();
            assert_eq!(beacon.reveal(beacon.next_step(), step, &preimage), Ok(()));
            assert_eq!(
                beacon.reveal(0, step, &preimage),
                Err(BeaconError::UsedBefore(step))
            );
        }
        assert_eq!(beacon.tip(), chain.tip());
        assert_eq!(beacon.next_step(), 51);
    }

    #[test]
    fn outcomes_may_cross_but_a_step_shown_before_the_share_chooses_no_sample() {
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacon = Beacon::new(chain.tip());
        let value = |step| chain.preimage(step).unwrap();
        // Both shares were submitted before either outcome came.
        assert_eq!(beacon.reveal(0, 9, &value(9)), Ok(()));
        let wrong = beacon.reveal(0, 8, &value(7));
        assert_eq!(wrong, Err(BeaconError::NotOfTheChain(8)));
        assert_eq!(beacon.reveal(0, 8, &value(8)), Ok(()));
        assert_eq!(beacon.next_step(), 10);
        // A share that was submitted after step 9 was revealed.
        let known = beacon.reveal(10, 5, &value(5));
        assert_eq!(known, Err(BeaconError::UsedBefore(5)));
    }

    #[test]
    fn a_value_of_another_chain_or_step_is_not_believed() {
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacon = Beacon::new(chain.tip());
        let other = HashChain::from_seed([2; 32], 100).preimage(3).unwrap();
        let refused = beacon.reveal(0, 3, &other);
        assert_eq!(refused, Err(BeaconError::NotOfTheChain(3)));
        let later = chain.preimage(4).unwrap();
        let refused = beacon.reveal(0, 3, &later);
        assert_eq!(refused, Err(BeaconError::NotOfTheChain(3)));
        assert_eq!(beacon.reveal(0, 4, &later), Ok(()));
        for step in [STEPS_MAX, u32::MAX] {
            let refused = beacon.reveal(0, step, &later);
            assert_eq!(refused, Err(BeaconError::TooFar(step)));
        }
    }

    #[test]
    fn a_step_that_only_a_long_walk_could_check_is_refused_without_it() {
        let chain = HashChain::from_seed([1; 32], STEPS_BEHIND_MAX + 10);
        let mut beacon = Beacon::new(chain.tip());
        let value = |step| chain.preimage(step).unwrap();
        let newest = STEPS_BEHIND_MAX + 1;
        assert_eq!(beacon.reveal(0, newest, &value(newest)), Ok(()));
        assert_eq!(beacon.reveal(0, 2, &value(2)), Ok(()));
        let old = beacon.reveal(0, 1, &value(1));
        assert_eq!(old, Err(BeaconError::TooOld(1)));
    }

    #[test]
    fn what_was_forgotten_as_used_is_not_believed_either() {
        let steps = u32::try_from(USED_MAX).unwrap() + 2;
        let chain = HashChain::from_seed([1; 32], steps);
        let mut beacon = Beacon::new(chain.tip());
        for step in 1..steps {
            assert_eq!(
                beacon.reveal(0, step, &chain.preimage(step).unwrap()),
                Ok(())
            );
        }
        let first = chain.preimage(0).unwrap();
        assert_eq!(beacon.reveal(0, 0, &first), Err(BeaconError::UsedBefore(0)));
        let forgotten = chain.preimage(1).unwrap();
        assert_eq!(
            beacon.reveal(0, 1, &forgotten),
            Err(BeaconError::UsedBefore(1))
        );
    }
}
