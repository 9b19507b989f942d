//! A pool's gRPC interfaces, client and server side: `dovetail.inference.v1` for agents, `dovetail.models.v1` for
//! workers that fetch model files, `dovetail.rewards.v1` for miners who check their part of a block, `dovetail.payouts.v1`
//! for miners who change where they are paid, and the private `dovetail.validation.v1` between a pool and its validators.
//!
//! Only what the protobuf files say, their error codes, how a code travels in a [`tonic::Status`], and how a client connects. It knows nothing
//! of tasks' lives, of money or of Bitcoin; the pool answers, agents and workers ask. The commented sources are under
//! `proto/dovetail`, and `docs/api.md` shows them in use. The code in `generated` comes from them: after a change to them,
//! run `cargo xtask protobuf`.

pub mod codes;
pub mod connection;
mod redaction;
pub mod words;

/// The generated messages, client and server.
// Comments come from the protobuf file, where enum values and service plumbing need none.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    rustdoc::all
)]
pub mod v1 {
    include!("generated/dovetail.inference.v1.rs");
}

/// The generated messages of `dovetail.models.v1`, client and server.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    rustdoc::all
)]
pub mod models_v1 {
    include!("generated/dovetail.models.v1.rs");
}

/// The generated messages of `dovetail.payouts.v1`, client and server.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    rustdoc::all
)]
pub mod payouts_v1 {
    include!("generated/dovetail.payouts.v1.rs");
}

/// The generated messages of `dovetail.rewards.v1`, client and server.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    rustdoc::all
)]
pub mod rewards_v1 {
    include!("generated/dovetail.rewards.v1.rs");
}

/// The generated messages of `dovetail.validation.v1`, client and server. Private to a pool and its validators.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    rustdoc::all
)]
pub mod validation_v1 {
    include!("generated/dovetail.validation.v1.rs");
}

/// The compiled public protobuf files with all they need, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptors.bin");

/// The service's full name, as the health service and reflection know it.
pub const SERVICE_NAME: &str = v1::inference_server::SERVICE_NAME;

/// Length of every identifier, seed and salt in the interface.
pub const ID_BYTES: usize = 32;

/// The largest message that either side accepts: a longest prompt (256 KiB), its tokens (65,536 of up to 5 bytes) or a
/// receipt with a large coinbase (under 500 kB of JSON), with room to spare.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// The most bytes of a model file in one message. Large enough that messages cost little, small enough that a
/// download takes little memory on either side.
pub const MODEL_CHUNK_BYTES_MAX: usize = 256 * 1024;

/// The most blocks in one answer about rewards.
pub const BLOCKS_PER_ANSWER_MAX: u32 = 128;

/// The most closed slices in one answer: 200 KiB.
pub const SLICES_PER_ANSWER_MAX: u32 = 1_024;

/// The most points of a sample in one answer: each costs the pool a slice.
pub const POINTS_PER_ANSWER_MAX: u32 = 16;

/// How many points a block draws at most: a fake part of a thousandth is found by so many with 99.995 %.
pub const SAMPLE_POINTS_MAX: u32 = 10_000;

/// The most shares of a leaf that are shown with a point: 8 MiB.
pub const LEAF_SHARES_MAX: u64 = 1 << 18;

/// The most leaves in one answer: each may cost the pool a tree of 65,536 accounts.
pub const LEAVES_PER_ANSWER_MAX: u32 = 32;

/// The largest message between a pool and a validator: 64 transcripts with the longest prompts (256 KiB), outputs
/// (4,096 tokens of up to 5 bytes) and constraints (16 KiB), and room for their fields.
pub const VALIDATION_MESSAGE_BYTES_MAX: usize = 20 * 1024 * 1024;

/// The most transcripts in one request to a validator.
pub const VALIDATION_EVIDENCE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_name_the_services() {
        let text = String::from_utf8_lossy(FILE_DESCRIPTOR_SET);
        assert!(text.contains("dovetail.inference.v1"));
        assert!(text.contains("dovetail.models.v1"));
        assert!(text.contains("dovetail.rewards.v1"));
        assert!(text.contains("dovetail.payouts.v1"));
        assert!(!text.contains("dovetail.validation.v1"));
        assert_eq!(SERVICE_NAME, "dovetail.inference.v1.Inference");
    }
}
