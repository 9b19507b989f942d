//! The audit: a worker commits to its output, the output of a verifiable random function chooses a sample, the sample is
//! replayed exactly.
//!
//! Pure computation over transcripts and models: no sockets, no clock, no ledger.

mod replay;
mod sampling;

pub use replay::{Evidence, Finding, Mismatch, Replayed, Verdict, replay};
pub use sampling::{sample, sample_size};
