//! The hash chain behind the sampling. The pool publishes the tip and reveals one preimage per
//! audit, so it cannot choose, and nobody can know the next value before it is told.

use dovetail_commitment::tagged_hash;

/// One value in this many is kept; the others are computed from it.
const CHECKPOINT: u32 = 1_024;

/// A chain `v_0 .. v_length` with `v_(i+1) = H(v_i)`; `v_0` is secret, `v_length` is the tip. Step
/// `n` reveals `v_(length - 1 - n)`. No `Debug`: it is the pool's secret.
#[derive(Clone)]
pub struct HashChain {
    /// `v_0, v_1024, v_2048, ..`
    checkpoints: Vec<[u8; 32]>,
    tip: [u8; 32],
    length: u32,
}

impl HashChain {
    /// Builds the chain: `length` hashes.
    pub fn from_seed(seed: [u8; 32], length: u32) -> Self {
        let mut checkpoints = Vec::new();
        let mut value = seed;
        for index in 0..length {
            if index % CHECKPOINT == 0 {
                checkpoints.push(value);
            }
            value = next(&value);
        }
        Self {
            checkpoints,
            tip: value,
            length,
        }
    }

    /// What is published before the first step.
    pub fn tip(&self) -> [u8; 32] {
        self.tip
    }

    /// The value that `step` reveals; `None` once the chain is used up.
    pub fn preimage(&self, step: u32) -> Option<[u8; 32]> {
        let index = self.length.checked_sub(1)?.checked_sub(step)?;
        let from = self.checkpoints.get((index / CHECKPOINT) as usize)?;
        Some((0..index % CHECKPOINT).fold(*from, |value, _| next(&value)))
    }

    /// Whether `preimage` is what comes right before `value` in its chain.
    pub fn verify(value: &[u8; 32], preimage: &[u8; 32]) -> bool {
        next(preimage) == *value
    }
}

fn next(value: &[u8; 32]) -> [u8; 32] {
    tagged_hash("dovetail/beacon", &[value])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_reveals_the_preimage_of_the_one_before() {
        let chain = HashChain::from_seed([1; 32], 2_500);
        let mut last = chain.tip();
        for step in 0..2_500 {
            let Some(preimage) = chain.preimage(step) else {
                unreachable!("the chain has 2500 steps");
            };
            assert!(HashChain::verify(&last, &preimage));
            last = preimage;
        }
        assert_eq!(last, [1; 32]);
        assert_eq!(chain.preimage(2_500), None);
        assert_eq!(HashChain::from_seed([1; 32], 0).preimage(0), None);
    }
}
