//! A share that waits for its settlement.

use dovetail_commitment::BatchRoot;
use dovetail_units::Work;

use super::acks::{Difficulty, Place};
use crate::claims::settle::Settled;

/// A share whose settlement is under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(super) channel_id: u32,
    pub(super) sequence_number: u32,
    /// Where it stands among its channel's shares.
    pub(super) place: Place,
    pub(super) difficulty: Difficulty,
    pub(super) account: String,
    /// The device that found it, if it has a name.
    pub(super) device: Option<String>,
    pub(super) work: Work,
    /// The batch that the share claims.
    pub(super) claimed: Option<BatchRoot>,
    pub(super) settled: Settled,
}
