//! Who is credited, as bytes. What the canonical form of a name is, is decided where a channel opens; here equal bytes
//! are one account, and other bytes another.

use std::fmt;

use dovetail_units::harmless;

/// The longest account: one byte says how long it is, and Sv2's `user_identity` has no more.
pub const ACCOUNT_BYTES_MAX: usize = 255;

/// An account: 1 to [`ACCOUNT_BYTES_MAX`] bytes, in the order of the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Box<[u8]>);

/// An account without a byte, or with more than [`ACCOUNT_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an account has 1 to {ACCOUNT_BYTES_MAX} bytes")]
pub struct AccountLength;

impl AccountId {
    /// The account of these bytes.
    ///
    /// # Errors
    /// [`AccountLength`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, AccountLength> {
        let bytes = bytes.as_ref();
        if bytes.is_empty() || bytes.len() > ACCOUNT_BYTES_MAX {
            return Err(AccountLength);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many bytes it has, as they are encoded before it.
    pub(crate) fn length(&self) -> u8 {
        u8::try_from(self.0.len()).expect("at most ACCOUNT_BYTES_MAX")
    }
}

/// As text where it is text. What a stranger chose as a name steers no terminal.
impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        harmless(String::from_utf8_lossy(&self.0)).fmt(f)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_1_to_255_bytes() {
        assert_eq!(AccountId::new([]), Err(AccountLength));
        assert_eq!(AccountId::new([0; 256]), Err(AccountLength));
        let longest = AccountId::new([0xff; 255]).unwrap();
        assert_eq!(
            (longest.as_bytes(), longest.length()),
            (&[0xff; 255][..], 255)
        );
    }

    #[test]
    fn accounts_are_ordered_by_their_bytes_and_shown_without_harm() {
        let [a, b, c] = ["a", "a\n", "b"].map(|name| AccountId::new(name).unwrap());
        assert!(a < b && b < c);
        assert_eq!(b.to_string(), "a\\n");
    }
}
