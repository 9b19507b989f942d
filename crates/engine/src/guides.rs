//! What constraints on a model's outputs are followed with, made when the first one is asked for.

use std::sync::{Mutex, OnceLock, PoisonError};

use dovetail_guide::{GuideError, Vocabulary};

/// The vocabulary of a model's guides.
#[derive(Debug, Default)]
pub(crate) struct Guides {
    /// `None`: the model's tokens make none, and never will.
    made: OnceLock<Option<Vocabulary>>,
    making: Mutex<()>,
}

impl Guides {
    /// The vocabulary, made by the first who asks; others wait for it. What failed because the machine had no thread to
    /// spare is tried again by the next.
    pub(crate) fn vocabulary(
        &self,
        make: impl FnOnce() -> Result<Vocabulary, GuideError>,
    ) -> Result<&Vocabulary, GuideError> {
        if self.made.get().is_none() {
            let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            if self.made.get().is_none() {
                let made = match make() {
                    Err(GuideError::Unavailable) => return Err(GuideError::Unavailable),
                    made => made.ok(),
                };
                // Nobody else makes one meanwhile.
                let _ = self.made.set(made);
            }
        }
        let made = self.made.get().and_then(Option::as_ref);
        made.ok_or(GuideError::Vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_threads_is_asked_again_and_a_model_without_a_vocabulary_is_not() {
        let guides = Guides::default();
        let unavailable = guides.vocabulary(|| Err(GuideError::Unavailable));
        assert!(matches!(unavailable, Err(GuideError::Unavailable)));
        let words = [&b"a"[..], b"b"];
        let made = guides.vocabulary(|| Vocabulary::new(words.into_iter(), &[]));
        assert!(made.is_ok());

        let none = Guides::default();
        for _ in 0..2 {
            let made = none.vocabulary(|| Err(GuideError::Vocabulary));
            assert!(matches!(made, Err(GuideError::Vocabulary)));
        }
    }
}
