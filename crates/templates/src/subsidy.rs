//! What a block creates at a height, by the schedule of its network: the least that a template must leave the miner.

use std::ops::Range;

use bitcoin::{Amount, CompactTarget, Network, Target};

const SUBSIDY_INITIAL: Amount = Amount::from_int_btc(50);
const HALVINGS_MAX: u32 = 64;

/// How often a network halves the subsidy, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HalvingInterval(u32);

impl HalvingInterval {
    /// Of the main network, and of all test networks that are not regtest.
    pub(crate) const MAIN: Self = Self(210_000);
    /// Of regtest.
    pub(crate) const REGTEST: Self = Self(150);

    pub(crate) fn of_network(network: Network) -> Self {
        match network {
            Network::Regtest => Self::REGTEST,
            Network::Bitcoin | Network::Testnet | Network::Testnet4 | Network::Signet => Self::MAIN,
        }
    }

    /// Of the network whose blocks may be this easy: only regtest's may be easier than a signet's. Whoever says so of another
    /// network to have less asked of a template gives templates whose blocks no node takes.
    pub(crate) fn of_bits(bits: u32) -> Self {
        let target = Target::from_compact(CompactTarget::from_consensus(bits));
        match target > Target::MAX_ATTAINABLE_SIGNET {
            true => Self::REGTEST,
            false => Self::MAIN,
        }
    }

    /// The heights that have the subsidy of this one.
    pub(crate) fn around(self, height: u32) -> Range<u32> {
        let first = height / self.0 * self.0;
        first..first.saturating_add(self.0)
    }

    /// The subsidy at a height.
    pub(crate) fn subsidy(self, height: u32) -> Amount {
        match height / self.0 {
            halvings @ 0..HALVINGS_MAX => Amount::from_sat(SUBSIDY_INITIAL.to_sat() >> halvings),
            _ => Amount::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subsidy_halves_as_often_as_the_network_says() {
        for (interval, blocks) in [
            (HalvingInterval::MAIN, 210_000),
            (HalvingInterval::REGTEST, 150),
        ] {
            assert_eq!(interval.subsidy(blocks - 1), Amount::from_int_btc(50));
            assert_eq!(interval.subsidy(blocks), Amount::from_int_btc(25));
            assert_eq!(interval.subsidy(blocks * 33), Amount::ZERO);
            assert_eq!(interval.subsidy(u32::MAX).to_sat() >> 20, 0);
        }
    }

    #[test]
    fn a_network_is_known_by_how_easy_its_blocks_may_be() {
        for bits in [0x1703_0000, 0x1d00_ffff, 0x1e03_77ae] {
            assert_eq!(HalvingInterval::of_bits(bits), HalvingInterval::MAIN);
        }
        for bits in [crate::DEFAULT_BITS, 0x207f_ffff] {
            assert_eq!(HalvingInterval::of_bits(bits), HalvingInterval::REGTEST);
        }
    }
}
