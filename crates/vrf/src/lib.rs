//! The verifiable random function that draws the samples of audits: ECVRF-RISTRETTO255-SHA512 of RFC 9381, as
//! <https://c2sp.org/vrf-r255> defines it. Only the owner of the secret can compute an output; anyone can check one by
//! the public key; each input has one output.
//!
//! Pure computation. What the inputs are is not known here.

mod keys;
mod proof;
#[cfg(test)]
mod tests;

pub use keys::{KeyError, VrfPublicKey, VrfSecret};
pub use proof::{ProofError, VrfOutput, VrfProof};
