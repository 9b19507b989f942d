//! Checking a pool's signature: BIP-340 over 32 bytes.

use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Message, SECP256K1, XOnlyPublicKey};

/// Whether the x-only `key` has signed `message`. Bytes that are no key have signed nothing.
pub fn is_signed(key: &[u8; 32], message: &[u8; 32], signature: &[u8; 64]) -> bool {
    let (Ok(key), Ok(signature)) = (
        XOnlyPublicKey::from_slice(key),
        Signature::from_slice(signature),
    ) else {
        return false;
    };
    let message = Message::from_digest(*message);
    SECP256K1.verify_schnorr(&signature, &message, &key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{Keypair, SecretKey};

    #[test]
    fn only_the_key_s_own_signature_over_the_message_passes() {
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        let pair = Keypair::from_secret_key(SECP256K1, &secret);
        let key = pair.x_only_public_key().0.serialize();
        let message = [3; 32];
        let signature = *SECP256K1
            .sign_schnorr_no_aux_rand(&Message::from_digest(message), &pair)
            .as_ref();
        assert!(is_signed(&key, &message, &signature));
        assert!(!is_signed(&key, &[4; 32], &signature));
        assert!(!is_signed(&[0xff; 32], &message, &signature));
        let mut changed = signature;
        changed[63] ^= 1;
        assert!(!is_signed(&key, &message, &changed));
    }
}
