//! The two halves of a key.

use std::fmt;
use std::str::FromStr;

use vrf_r255::{PublicKey, SecretKey};

use crate::proof::{ProofError, VrfOutput, VrfProof};

/// A scalar below 2^252 is below the group's order, whatever it is.
const TOP_BYTE_MASK: u8 = 0x0f;

/// Why bytes are no key. It never repeats them: they may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The secret would be zero, whose public key proves nothing.
    #[error("the VRF secret is zero: make another one")]
    Zero,
    /// They encode no point of the group, or the identity, by which any output could be proven.
    #[error("the bytes are no public key of the VRF")]
    NoPoint,
    /// Not 64 hex digits.
    #[error("a public key of the VRF has 64 hex digits")]
    Hex,
}

/// The secret half. Its `Debug` shows nothing.
#[derive(Clone)]
pub struct VrfSecret(SecretKey);

impl VrfSecret {
    /// The key of 32 random bytes. All of them but the top four bits count: without these any bytes are a scalar of the
    /// group, and one that is uniform but for one part in 2^126.
    ///
    /// # Errors
    /// [`KeyError::Zero`].
    pub fn from_bytes(mut bytes: [u8; 32]) -> Result<Self, KeyError> {
        bytes[31] &= TOP_BYTE_MASK;
        let secret = Option::<SecretKey>::from(SecretKey::from_bytes(bytes));
        secret.map(Self).ok_or(KeyError::Zero)
    }

    /// The public half.
    pub fn public_key(&self) -> VrfPublicKey {
        VrfPublicKey(PublicKey::from(self.0))
    }

    /// The proof of the one output that belongs to this input.
    pub fn prove(&self, input: &[u8]) -> VrfProof {
        VrfProof::of(&self.0.prove(input))
    }

    /// The output that belongs to this input, and its proof.
    pub fn evaluate(&self, input: &[u8]) -> (VrfOutput, VrfProof) {
        let proof = self.prove(input);
        let output = self.public_key().verify(input, &proof);
        (output.expect("a proof that was just made holds"), proof)
    }
}

impl fmt::Debug for VrfSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VrfSecret(..)")
    }
}

/// The public half: a point of the group that is not the identity.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VrfPublicKey(PublicKey);

impl VrfPublicKey {
    /// The key that these bytes encode.
    ///
    /// # Errors
    /// [`KeyError::NoPoint`].
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        PublicKey::from_bytes(bytes)
            .map(Self)
            .ok_or(KeyError::NoPoint)
    }

    /// Its encoding.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The output that the proof shows for this input.
    ///
    /// # Errors
    /// [`ProofError`] if it is none of this key for this input.
    pub fn verify(&self, input: &[u8], proof: &VrfProof) -> Result<VrfOutput, ProofError> {
        let decoded = vrf_r255::Proof::from_bytes(proof.to_bytes()).ok_or(ProofError)?;
        let output = self.0.verify(input, &decoded);
        Option::<[u8; 64]>::from(output)
            .map(VrfOutput::from_bytes)
            .ok_or(ProofError)
    }
}

impl fmt::Display for VrfPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl fmt::Debug for VrfPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VrfPublicKey({self})")
    }
}

impl FromStr for VrfPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::Hex)?;
        Self::from_bytes(bytes)
    }
}
