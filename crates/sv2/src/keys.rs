//! The authority key pair that signs a server's Noise certificate (Sv2 specification 4.7), in the
//! base58check strings that other Sv2 software prints and reads.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use bitcoin::base58;
use bitcoin::secp256k1::{All, Keypair, Secp256k1, SecretKey, XOnlyPublicKey};
use serde::{Deserialize, Serialize};

/// One context for the process: making one costs far more than a signature.
pub(crate) static SECP: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// The version prefix of an encoded authority public key, little-endian.
const PUBLIC_KEY_VERSION: [u8; 2] = [1, 0];

/// Why a string is not an authority key. It never repeats the string: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base58check, or the checksum does not hold.
    #[error("the key is not a valid base58check string")]
    Encoding,
    /// The decoded bytes have the wrong length or version.
    #[error("the key has the wrong length or version")]
    Format,
    /// The bytes are no key of the curve.
    #[error("the bytes are not a key of secp256k1")]
    Curve,
    /// The two halves of a pair do not belong together.
    #[error("the public authority key does not belong to the secret one")]
    Mismatch,
}

/// Why two strings are not an authority key pair. Named after the keys that configurations have for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPairError {
    /// The public half.
    #[error("authority_public_key")]
    Public(#[source] KeyError),
    /// The secret half.
    #[error("authority_secret_key")]
    Secret(#[source] KeyError),
    /// Both together.
    #[error("the authority keys")]
    Pair(#[source] KeyError),
}

/// The public half, by which a client recognises a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityPublicKey(XOnlyPublicKey);

impl AuthorityPublicKey {
    /// The x coordinate.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0.serialize()
    }
}

impl FromStr for AuthorityPublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = base58::decode_check(text).map_err(|_| KeyError::Encoding)?;
        let Some((version, key)) = bytes.split_first_chunk::<2>() else {
            return Err(KeyError::Format);
        };
        if *version != PUBLIC_KEY_VERSION || key.len() != 32 {
            return Err(KeyError::Format);
        }
        let key = XOnlyPublicKey::from_slice(key).map_err(|_| KeyError::Curve)?;
        Ok(Self(key))
    }
}

impl fmt::Display for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = PUBLIC_KEY_VERSION.to_vec();
        bytes.extend_from_slice(&self.0.serialize());
        f.write_str(&base58::encode_check(&bytes))
    }
}

impl fmt::Debug for AuthorityPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityPublicKey({self})")
    }
}

impl TryFrom<String> for AuthorityPublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<AuthorityPublicKey> for String {
    fn from(key: AuthorityPublicKey) -> Self {
        key.to_string()
    }
}

/// The secret half. It has no `Display`, and its `Debug` hides it; ask for
/// [`reveal`](Self::reveal) where it must be written down.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AuthoritySecretKey(SecretKey);

impl AuthoritySecretKey {
    /// A fresh key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(SecretKey::new(&mut bitcoin::secp256k1::rand::rngs::OsRng))
    }

    /// The base58check string of the secret. For key files only.
    pub fn reveal(&self) -> String {
        base58::encode_check(&self.0.secret_bytes())
    }

    /// The public half.
    pub fn public_key(&self) -> AuthorityPublicKey {
        let pair = Keypair::from_secret_key(&SECP, &self.0);
        AuthorityPublicKey(pair.x_only_public_key().0)
    }

    pub(crate) fn secret_bytes(&self) -> [u8; 32] {
        self.0.secret_bytes()
    }
}

impl FromStr for AuthoritySecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = base58::decode_check(text).map_err(|_| KeyError::Encoding)?;
        if bytes.len() != 32 {
            return Err(KeyError::Format);
        }
        let key = SecretKey::from_slice(&bytes).map_err(|_| KeyError::Curve)?;
        Ok(Self(key))
    }
}

impl fmt::Debug for AuthoritySecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthoritySecretKey(..)")
    }
}

impl TryFrom<String> for AuthoritySecretKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

/// A server's authority key pair; the halves are known to belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityKeys {
    secret: AuthoritySecretKey,
    public: AuthorityPublicKey,
}

impl AuthorityKeys {
    /// The pair of a secret key.
    pub fn from_secret(secret: AuthoritySecretKey) -> Self {
        let public = secret.public_key();
        Self { secret, public }
    }

    /// The pair of two halves that a configuration names.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] if they do not belong together.
    pub fn new(secret: AuthoritySecretKey, public: AuthorityPublicKey) -> Result<Self, KeyError> {
        let pair = Self::from_secret(secret);
        if pair.public == public {
            Ok(pair)
        } else {
            Err(KeyError::Mismatch)
        }
    }

    /// The pair of two halves as a configuration writes them.
    ///
    /// # Errors
    /// [`KeyPairError`] names what is wrong.
    pub fn parse(public: &str, secret: &str) -> Result<Self, KeyPairError> {
        let public = public.parse().map_err(KeyPairError::Public)?;
        let secret = secret.parse().map_err(KeyPairError::Secret)?;
        Self::new(secret, public).map_err(KeyPairError::Pair)
    }

    /// A fresh pair.
    pub fn generate() -> Self {
        Self::from_secret(AuthoritySecretKey::generate())
    }

    /// The public half.
    pub fn public(&self) -> AuthorityPublicKey {
        self.public
    }

    /// The secret half.
    pub fn secret(&self) -> &AuthoritySecretKey {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example pair that the reference implementation ships in its configurations.
    const PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
    const SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";

    #[test]
    fn the_reference_pair_parses_prints_and_belongs_together() {
        let public: AuthorityPublicKey = PUBLIC.parse().unwrap();
        let secret: AuthoritySecretKey = SECRET.parse().unwrap();
        assert_eq!(public.to_string(), PUBLIC);
        assert_eq!(secret.reveal(), SECRET);
        assert!(AuthorityKeys::new(secret, public).is_ok());
    }

    #[test]
    fn the_specifications_test_vector_of_a_public_key_holds() {
        // Section 4.7.1.
        let text = "9bXiEd8boQVhq7WddEcERUL5tyyJVFYdU8th3HfbNXK3Yw6GRXh";
        let key: AuthorityPublicKey = text.parse().unwrap();
        let bytes = "76637000979c1c11af0c300bcd8c7fe48610fce9b9c11e3daee35ae0b08a7455";
        assert_eq!(hex::encode(key.to_bytes()), bytes);
        assert_eq!(key.to_string(), text);
    }

    #[test]
    fn halves_of_different_pairs_are_refused() {
        let public: AuthorityPublicKey = PUBLIC.parse().unwrap();
        let other = AuthoritySecretKey::generate();
        assert_eq!(AuthorityKeys::new(other, public), Err(KeyError::Mismatch));
    }

    #[test]
    fn a_pair_in_a_configuration_is_refused_by_the_name_of_its_bad_half() {
        assert!(AuthorityKeys::parse(PUBLIC, SECRET).is_ok());
        let refusal = |public, secret| AuthorityKeys::parse(public, secret).unwrap_err();
        let bad = refusal("x", SECRET);
        assert_eq!(bad.to_string(), "authority_public_key");
        let bad = refusal(PUBLIC, "x");
        assert_eq!(bad.to_string(), "authority_secret_key");
        let other = AuthoritySecretKey::generate().reveal();
        let bad = refusal(PUBLIC, &other);
        assert_eq!(bad, KeyPairError::Pair(KeyError::Mismatch));
    }

    #[test]
    fn debug_output_hides_the_secret() {
        let keys = AuthorityKeys::from_secret(SECRET.parse().unwrap());
        assert!(!format!("{keys:?}").contains(SECRET));
    }

    #[test]
    fn a_damaged_string_is_refused_without_being_repeated() {
        let error = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH73"
            .parse::<AuthorityPublicKey>()
            .unwrap_err();
        assert_eq!(error, KeyError::Encoding);
        assert_eq!(SECRET.parse::<AuthorityPublicKey>(), Err(KeyError::Format));
    }
}
