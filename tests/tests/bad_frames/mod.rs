//! Frames that no honest peer sends: random ones, and shares that meet no target.

use dovetail_sv2::Frame;
use dovetail_sv2::messages::SubmitSharesExtended;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// The number of each bad share.
pub(crate) const SEQUENCE_NUMBER: u32 = 7;

/// A frame of random bytes, of a kind that the other side may know.
pub(crate) fn random_frame(random: &mut StdRng, channel_id: u32) -> Frame {
    let mut payload = vec![0; random.random_range(0..200)];
    random.fill_bytes(&mut payload);
    if payload.len() >= 4 && random.random_bool(0.5) {
        // Reaches beyond the look-up of the channel.
        payload[..4].copy_from_slice(&channel_id.to_le_bytes());
    }
    Frame {
        extension_type: [0, 0, 1, 0x4149, 0x7777][random.random_range(0..5)],
        channel_msg: random.random_bool(0.5),
        message_type: random.random_range(0..0x80),
        payload,
    }
}

/// A share that nobody hashed.
pub(crate) fn bad_share(channel_id: u32, job_id: u32, extranonce: usize) -> SubmitSharesExtended {
    SubmitSharesExtended {
        channel_id,
        sequence_number: SEQUENCE_NUMBER,
        job_id,
        nonce: 1,
        ntime: 2,
        version: 0x2000_0000,
        extranonce: vec![0; extranonce].try_into().unwrap(),
    }
}
