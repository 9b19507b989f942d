//! Proofs and outputs, as bytes. Whether a proof holds is found out by a public key.

use std::fmt;

/// The length of an encoded proof.
const PROOF_BYTES: usize = 80;

/// The proof is none of this key for this input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold for this key and input")]
pub struct ProofError;

/// An encoded proof. It may be anybody's, and no proof at all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VrfProof([u8; PROOF_BYTES]);

impl VrfProof {
    /// How long a proof is.
    pub const BYTES: usize = PROOF_BYTES;
    /// Stands where there is no proof. It holds for no key: its challenge is zero.
    pub const NONE: Self = Self([0; PROOF_BYTES]);

    /// A proof as it came.
    pub const fn from_bytes(bytes: [u8; PROOF_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; PROOF_BYTES] {
        self.0
    }

    pub(crate) fn of(proof: &vrf_r255::Proof) -> Self {
        Self(proof.to_bytes())
    }
}

impl fmt::Debug for VrfProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VrfProof({})", hex::encode(self.0))
    }
}

/// What the function gives for an input: 64 bytes that nobody but the secret's owner can tell from random ones before
/// the proof is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VrfOutput([u8; 64]);

impl VrfOutput {
    pub(crate) fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub fn to_bytes(self) -> [u8; 64] {
        self.0
    }

    /// The first half, for whatever takes 32 random bytes.
    pub fn seed(&self) -> [u8; 32] {
        let (seed, _) = self.0.split_first_chunk().expect("an output has 64 bytes");
        *seed
    }
}

impl fmt::Debug for VrfOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VrfOutput({})", hex::encode(self.0))
    }
}
