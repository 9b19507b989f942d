//! What is private of a task, as it lies in the database: prompt, stop sequences, constraint, salt and output, each encrypted
//! with a key that the database does not have. Whoever reads Postgres, its files, its log or a backup learns lengths.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with a random nonce of 24 bytes in front, bound to the task and to what it
//! is: nothing can be put elsewhere unseen.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use dovetail_commitment::TaskId;

use crate::LedgerError;

const NONCE_BYTES: usize = 24;

/// What part of a task something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Prompt,
    Stop,
    Constraint,
    Salt,
    Output,
}

impl Part {
    fn tag(self) -> u8 {
        match self {
            Self::Prompt => 1,
            Self::Stop => 2,
            Self::Constraint => 3,
            Self::Salt => 4,
            Self::Output => 5,
        }
    }
}

/// Seals and opens contents of tasks. Its `Debug` shows no key.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(..)")
    }
}

impl Sealer {
    /// How much longer something is once it is sealed.
    pub(crate) const OVERHEAD_BYTES: i64 = 40;

    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(Key::from_slice(key)))
    }

    pub(crate) fn seal(&self, task: TaskId, part: Part, content: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let bound = bound_to(task, part);
        let payload = Payload {
            msg: content,
            aad: &bound,
        };
        let sealed = self.0.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.expect("contents are far shorter than 256 GiB");
        [&nonce[..], &sealed].concat()
    }

    /// What was sealed.
    ///
    /// # Errors
    /// [`LedgerError::Sealed`] if it was sealed with another key, or is not this part of this task.
    pub(crate) fn open(
        &self,
        task: TaskId,
        part: Part,
        sealed: &[u8],
    ) -> Result<Vec<u8>, LedgerError> {
        let (nonce, sealed) = sealed
            .split_at_checked(NONCE_BYTES)
            .ok_or(LedgerError::Sealed)?;
        let bound = bound_to(task, part);
        let payload = Payload {
            msg: sealed,
            aad: &bound,
        };
        self.0
            .decrypt(XNonce::from_slice(nonce), payload)
            .map_err(|_| LedgerError::Sealed)
    }
}

fn bound_to(task: TaskId, part: Part) -> Vec<u8> {
    [&task.to_bytes()[..], &[part.tag()]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: TaskId = TaskId::from_bytes([1; 32]);

    #[test]
    fn what_is_sealed_opens_with_its_key_as_what_it_is_and_in_no_other_way() {
        let sealer = Sealer::new(&[7; 32]);
        for content in [&b""[..], b"What is owed?"] {
            let sealed = sealer.seal(TASK, Part::Prompt, content);
            let overhead = i64::try_from(sealed.len() - content.len()).unwrap();
            assert_eq!(overhead, Sealer::OVERHEAD_BYTES);
            assert_eq!(sealer.open(TASK, Part::Prompt, &sealed).unwrap(), content);
            // Never the same twice: who has two of them learns nothing from that.
            assert_ne!(sealed, sealer.seal(TASK, Part::Prompt, content));
            let other_task = TaskId::from_bytes([2; 32]);
            let mut changed = sealed.clone();
            *changed.last_mut().unwrap() ^= 1;
            for refused in [
                Sealer::new(&[8; 32]).open(TASK, Part::Prompt, &sealed),
                sealer.open(other_task, Part::Prompt, &sealed),
                sealer.open(TASK, Part::Output, &sealed),
                sealer.open(TASK, Part::Prompt, &changed),
                sealer.open(TASK, Part::Prompt, &sealed[..39]),
                sealer.open(TASK, Part::Prompt, &sealed[..5]),
            ] {
                assert!(matches!(refused, Err(LedgerError::Sealed)), "{refused:?}");
            }
        }
        assert!(!format!("{sealer:?}").contains('7'));
    }
}
