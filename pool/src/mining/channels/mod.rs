//! Mining channels (Sv2 specification, section 5.2): their state, and how they are opened and closed.

mod channel;
mod given_jobs;
mod job_targets;
mod opening;
#[cfg(test)]
mod outdated_job_tests;

pub(super) use channel::{Channel, Hashed, ValidShare};
