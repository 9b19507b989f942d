//! A set of tokens.

use llguidance::toktrie::SimpleVob;

/// The tokens that may follow.
#[derive(Clone, PartialEq, Eq)]
pub struct Mask {
    /// A bit for each token, the lowest first.
    words: Box<[u32]>,
    count: usize,
}

impl Mask {
    /// These tokens of so many.
    pub fn of(tokens: &[u32], vocabulary: usize) -> Self {
        let mut words = vec![0_u32; vocabulary.div_ceil(32)];
        for token in tokens {
            if let Some(word) = words.get_mut(*token as usize / 32) {
                *word |= 1 << (token % 32);
            }
        }
        Self::from_words(words, vocabulary)
    }

    pub(crate) fn new(set: &SimpleVob, vocabulary: usize) -> Self {
        Self::from_words(set.as_slice().to_vec(), vocabulary)
    }

    fn from_words(mut words: Vec<u32>, vocabulary: usize) -> Self {
        // The library keeps a bit more than there are tokens.
        words.resize(vocabulary.div_ceil(32), 0);
        if let (Some(last), rest @ 1..) = (words.last_mut(), vocabulary % 32) {
            *last &= (1 << rest) - 1;
        }
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self {
            words: words.into_boxed_slice(),
            count,
        }
    }

    /// How many tokens may follow.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one may.
    pub fn allows(&self, token: u32) -> bool {
        let word = self.words.get(token as usize / 32);
        word.is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// The tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = u32> {
        (0_u32..).zip(&self.words).flat_map(|(index, word)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(32 * index + bit)
            })
        })
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} tokens)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_mask_has_the_tokens_of_its_set_and_none_behind_the_vocabulary(
            bits in proptest::collection::vec(any::<bool>(), 1..200),
            cut in 0_usize..40,
        ) {
            let vocabulary = bits.len().saturating_sub(cut).max(1);
            let mask = Mask::new(&SimpleVob::from_slice(&bits), vocabulary);
            let expected: Vec<u32> = (0..vocabulary)
                .filter(|token| bits[*token])
                .map(|token| u32::try_from(token).unwrap())
                .collect();
            prop_assert_eq!(&mask, &Mask::of(&expected, vocabulary));
            prop_assert_eq!(mask.tokens().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!((mask.len(), mask.is_empty()), (expected.len(), expected.is_empty()));
            for token in 0..250 {
                prop_assert_eq!(mask.allows(token), expected.contains(&token));
            }
        }
    }
}
