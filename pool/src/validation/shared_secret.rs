//! The secret that a pool and its validators share. Each side shows with every message that it has it: the pool that it
//! may have transcripts replayed, the validator that its verdicts are the operator's own. It keeps nothing private: the
//! port speaks plain HTTP/2.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, cmp::fixed_time_eq, sha256};
use dovetail_daemon::{ConfigError, Secret};
use prost::Message;
use tonic::metadata::MetadataMap;

const NONCE: &str = "dovetail-nonce";
const MAC: &str = "dovetail-mac";

/// Which of the two messages of a call it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side {
    Request,
    Answer,
}

/// A number that is used for one call.
pub(super) type Nonce = [u8; 32];

/// The secret. No `Debug`.
#[derive(Clone)]
pub(crate) struct SharedSecret([u8; 32]);

impl SharedSecret {
    /// Reads it; a file that is not there is made, for the owner to copy.
    ///
    /// # Errors
    /// [`ConfigError`] where it cannot be read or made, or is not 64 hex digits.
    pub(crate) fn read(secret: &Secret) -> Result<Self, ConfigError> {
        secret.read_or_make_key().map(Self)
    }

    #[cfg(test)]
    pub(super) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn mac(&self, side: Side, nonce: &Nonce, message: &impl Message) -> [u8; 32] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
        let side = match side {
            Side::Request => "dovetail/validation/1/request",
            Side::Answer => "dovetail/validation/1/answer",
        };
        engine.input(side.as_bytes());
        engine.input(nonce);
        engine.input(&message.encode_to_vec());
        Hmac::from_engine(engine).to_byte_array()
    }

    /// Puts the nonce and the message's MAC beside it.
    pub(super) fn sign(
        &self,
        side: Side,
        nonce: &Nonce,
        message: &impl Message,
        beside: &mut MetadataMap,
    ) {
        for (key, value) in [(NONCE, nonce), (MAC, &self.mac(side, nonce, message))] {
            let value = hex::encode(value);
            beside.insert(key, value.parse().expect("hex digits are ASCII"));
        }
    }

    /// The nonce beside a message whose MAC holds.
    pub(super) fn verified(
        &self,
        side: Side,
        message: &impl Message,
        beside: &MetadataMap,
    ) -> Option<Nonce> {
        let field = |key: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(beside.get(key)?.as_bytes(), &mut bytes).ok()?;
            Some(bytes)
        };
        let (nonce, mac): (Nonce, [u8; 32]) = (field(NONCE)?, field(MAC)?);
        fixed_time_eq(&mac, &self.mac(side, &nonce, message)).then_some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_api::validation_v1::ReplayRequest;

    fn message(engine_version: u32) -> ReplayRequest {
        ReplayRequest {
            engine_version,
            ..ReplayRequest::default()
        }
    }

    #[test]
    fn a_mac_is_of_one_secret_side_call_and_message() {
        let secret = SharedSecret::from_bytes([1; 32]);
        let mut beside = MetadataMap::new();
        secret.sign(Side::Request, &[2; 32], &message(1), &mut beside);
        let verified =
            |secret: &SharedSecret, side, n: u32| secret.verified(side, &message(n), &beside);
        assert_eq!(verified(&secret, Side::Request, 1), Some([2; 32]));
        let other = SharedSecret::from_bytes([3; 32]);
        assert_eq!(verified(&other, Side::Request, 1), None);
        assert_eq!(verified(&secret, Side::Answer, 1), None);
        assert_eq!(verified(&secret, Side::Request, 2), None);
        let mut of_another_call = beside.clone();
        of_another_call.insert(NONCE, hex::encode([4; 32]).parse().unwrap());
        assert_eq!(
            secret.verified(Side::Request, &message(1), &of_another_call),
            None
        );
        let nothing = MetadataMap::new();
        assert_eq!(secret.verified(Side::Request, &message(1), &nothing), None);
    }
}
