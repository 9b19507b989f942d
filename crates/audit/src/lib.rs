//! The audit: a worker commits to its output, the output of a verifiable random function chooses a sample by what each
//! transcript is worth, the sample is replayed exactly.
//!
//! Pure computation over transcripts and models: no sockets, no clock, no ledger.

mod replay;
mod sampling;

pub use replay::{Evidence, Finding, Mismatch, NotReplayed, Replayed, Verdict, replay};
pub use sampling::{Probability, Stake, WeighedLeaf, draw, sample};
