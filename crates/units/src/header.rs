//! What a miner may choose in the header of its job, and which facts of the chain make a tip. The pool and the worker
//! judge shares by these rules alike.

/// How far a header's time may lie ahead of its job's least time: as far as nodes let a block's time lead their clock.
pub const TIME_AHEAD_MAX_S: u32 = 7_200;
/// The bits of a version that are the miner's to use (BIP 323).
pub const VERSION_ROLLING_MASK: u32 = 0x1fff_ffe0;

/// What the chain prescribes for the next block. The hash of the block before it is not all: on test networks the
/// target changes on the same block, and a node may set its clock back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Hash of the block before, in the byte order of the header.
    pub prev_hash: [u8; 32],
    /// The network's target, compact.
    pub nbits: u32,
    /// The least time of a header, in Unix seconds.
    pub min_ntime: u32,
}

impl Tip {
    /// Whether both ask for the same block: the same one before it, the same work.
    pub fn is_same_block(&self, other: &Self) -> bool {
        (self.prev_hash, self.nbits) == (other.prev_hash, other.nbits)
    }

    /// Whether miners that were told the tip `told` have to be told this one. A later time is no reason: jobs carry
    /// it. An earlier one is, if it is earlier by more than `slack_s`.
    pub fn is_news_after(&self, told: &Self, slack_s: u32) -> bool {
        !self.is_same_block(told) || self.min_ntime.saturating_add(slack_s) < told.min_ntime
    }
}

/// The least time of a job that is given at `now`: the clock, or the chain's least time where that is later. A job that
/// kept the time at which its tip came would refuse the time of day once the tip is two hours old.
pub fn job_min_ntime(tip_min_ntime: u32, now: u32) -> u32 {
    tip_min_ntime.max(now)
}

/// What a job says about its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobHeader {
    /// The version.
    pub version: u32,
    /// Whether the bits of [`VERSION_ROLLING_MASK`] may be rolled.
    pub version_rolling: bool,
    /// The least time.
    pub min_ntime: u32,
    /// Bytes of the extranonce that the miner chooses.
    pub extranonce_size: usize,
}

/// Why a share names no header of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHeader {
    /// The extranonce has another size than was granted.
    ExtranonceSize,
    /// The time is earlier than the job's, or too far ahead of it.
    Time,
    /// A bit of the version differs that nobody may roll.
    VersionBits,
    /// The version differs, and the job allows no rolling.
    VersionRolling,
}

impl std::fmt::Display for BadHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ExtranonceSize => "the extranonce has the wrong size",
            Self::Time => "the time is out of bounds",
            Self::VersionBits => "a bit of the version was rolled that may not be",
            Self::VersionRolling => "the version may not be rolled",
        })
    }
}

impl std::error::Error for BadHeader {}

impl JobHeader {
    /// Checks what a share chose.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, extranonce_size: usize, ntime: u32, version: u32) -> Result<(), BadHeader> {
        if extranonce_size != self.extranonce_size {
            return Err(BadHeader::ExtranonceSize);
        }
        let ahead = ntime.checked_sub(self.min_ntime).ok_or(BadHeader::Time)?;
        if ahead > TIME_AHEAD_MAX_S {
            return Err(BadHeader::Time);
        }
        let changed = version ^ self.version;
        match self.version_rolling {
            true if changed & !VERSION_ROLLING_MASK != 0 => Err(BadHeader::VersionBits),
            false if changed != 0 => Err(BadHeader::VersionRolling),
            _ => Ok(()),
        }
    }
}

/// Whether a miner may say that this is its hash rate, in h/s. Zero is legal: it says nothing yet.
pub fn is_hash_rate(rate: f32) -> bool {
    rate.is_finite() && rate >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIP: Tip = Tip {
        prev_hash: [1; 32],
        nbits: 0x1d00_ffff,
        min_ntime: 1_000,
    };
    const JOB: JobHeader = JobHeader {
        version: 0x2000_0000,
        version_rolling: true,
        min_ntime: 1_000,
        extranonce_size: 8,
    };

    #[test]
    fn a_tip_is_news_for_its_block_its_target_and_an_earlier_time() {
        let other = |prev_hash, nbits, min_ntime| Tip {
            prev_hash,
            nbits,
            min_ntime,
        };
        assert!(!TIP.is_news_after(&TIP, 0));
        assert!(!other([1; 32], TIP.nbits, 2_000).is_news_after(&TIP, 0));
        assert!(other([2; 32], TIP.nbits, 1_000).is_news_after(&TIP, 0));
        assert!(other([1; 32], 0x207f_ffff, 2_000).is_news_after(&TIP, 0));
        assert!(other([1; 32], TIP.nbits, 999).is_news_after(&TIP, 0));
        assert!(!other([1; 32], TIP.nbits, 999).is_news_after(&TIP, 1));
    }

    #[test]
    fn a_job_starts_at_the_clock_and_never_before_the_tip() {
        assert_eq!(job_min_ntime(1_000, 9_000), 9_000);
        assert_eq!(job_min_ntime(9_000, 1_000), 9_000);
    }

    #[test]
    fn exactly_the_general_purpose_bits_of_a_version_may_be_rolled() {
        for bit in 0..32 {
            let rolled = JOB.check(8, 1_000, JOB.version ^ (1 << bit));
            let expected = match (5..=28).contains(&bit) {
                true => Ok(()),
                false => Err(BadHeader::VersionBits),
            };
            assert_eq!(rolled, expected, "bit {bit}");
            let strict = JobHeader {
                version_rolling: false,
                ..JOB
            };
            let rolled = strict.check(8, 1_000, JOB.version ^ (1 << bit));
            assert_eq!(rolled, Err(BadHeader::VersionRolling));
        }
    }

    #[test]
    fn times_and_extranonces_have_bounds() {
        assert_eq!(JOB.check(8, 999, JOB.version), Err(BadHeader::Time));
        assert_eq!(JOB.check(8, 8_200, JOB.version), Ok(()));
        assert_eq!(JOB.check(8, 8_201, JOB.version), Err(BadHeader::Time));
        let size = JOB.check(7, 1_000, JOB.version);
        assert_eq!(size, Err(BadHeader::ExtranonceSize));
        let late = JobHeader {
            min_ntime: u32::MAX,
            ..JOB
        };
        assert_eq!(late.check(8, u32::MAX, JOB.version), Ok(()));
    }

    #[test]
    fn a_hash_rate_is_a_number_from_zero_up() {
        for rate in [0.0, 1e15, f32::MAX] {
            assert!(is_hash_rate(rate));
        }
        for rate in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            assert!(!is_hash_rate(rate));
        }
    }
}
