//! The audit: a worker commits to its output, the share's hash and a secret of the pool's choose a
//! sample, the sample is replayed exactly.
//!
//! Pure computation over transcripts and models: no sockets, no clock, no ledger.

mod beacon;
mod replay;
mod sampling;

pub use beacon::HashChain;
pub use replay::{Evidence, Finding, Mismatch, Replayed, Verdict, replay};
pub use sampling::{sample, sample_size};
