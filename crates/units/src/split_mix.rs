//! SplitMix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014): a few lines of our
//! own, so that a seed means the same documents, weights, games and faults on every machine and with every version
//! of every crate. Not for secrets.

/// A seeded source of choices: the whole sequence is decided by the seed.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1: the next bits' remainder. Its bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0, "a choice needs something to choose from");
        self.bits() % bound.max(1)
    }

    /// The next 32 bytes: four times 64 bits, little-endian.
    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes());
        }
        bytes
    }

    /// A number from a bell of mean 0 and variance 1: the sum of four uniform numbers of 16 bits, from the next 64.
    #[inline]
    pub fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        // Four uniform numbers have the variance 4/12. The sum is below 2^18, so exact.
        let sum = sum as f32;
        (sum / 65_535.0 - 2.0) * 1.732_050_8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // The first outputs of SplitMix64 for seed 0.
        let mut random = SplitMix64::new(0);
        assert_eq!(random.bits(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.bits(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_and_bytes_are_made_of_the_same_sequence() {
        let (mut bits, mut bytes) = (SplitMix64::new(5), SplitMix64::new(5));
        for chunk in bytes.bytes32().chunks_exact(8) {
            assert_eq!(chunk, bits.bits().to_le_bytes());
        }
        assert_eq!(bytes.below(1_000), bits.bits() % 1_000);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = SplitMix64::new(1);
        let values: Vec<f32> = (0..10_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f32>() / 1e4;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 1e4;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }
}
