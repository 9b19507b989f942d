//! Stop sequences: byte strings at which a completion ends. Part of what is asked for, so the prompt's
//! commitment covers them.

/// A request has at most this many stop sequences.
pub const STOP_SEQUENCES_MAX: usize = 4;
/// A stop sequence has at most this many bytes.
pub const STOP_SEQUENCE_BYTES_MAX: usize = 64;

/// At most [`STOP_SEQUENCES_MAX`] byte strings of 1 to [`STOP_SEQUENCE_BYTES_MAX`] bytes, in the order in which they were
/// given. The output ends with the token after which its text contains one of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StopSequences(Vec<Vec<u8>>);

/// Stop sequences out of their bounds, or bytes that do not encode any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StopError {
    /// More than [`STOP_SEQUENCES_MAX`].
    #[error("at most {STOP_SEQUENCES_MAX} stop sequences can be given")]
    Count,
    /// An empty one, or one longer than [`STOP_SEQUENCE_BYTES_MAX`].
    #[error("a stop sequence has 1 to {STOP_SEQUENCE_BYTES_MAX} bytes")]
    Length,
    /// Not what [`StopSequences::encode`] writes.
    #[error("the encoding of the stop sequences is damaged")]
    Encoding,
}

impl StopSequences {
    /// # Errors
    /// Too many, an empty one, or one that is too long.
    pub fn new(sequences: Vec<Vec<u8>>) -> Result<Self, StopError> {
        if sequences.len() > STOP_SEQUENCES_MAX {
            return Err(StopError::Count);
        }
        let fits = |sequence: &Vec<u8>| (1..=STOP_SEQUENCE_BYTES_MAX).contains(&sequence.len());
        if !sequences.iter().all(fits) {
            return Err(StopError::Length);
        }
        Ok(Self(sequences))
    }

    /// Each sequence, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their number, then each with its length in front, one byte per number: `SEQ0_255[B0_255]` of Sv2.
    /// No encoding is the beginning of another one.
    pub fn encode(&self) -> Vec<u8> {
        // The bounds of `new` fit a byte.
        let mut bytes = vec![self.0.len() as u8];
        for sequence in &self.0 {
            bytes.push(sequence.len() as u8);
            bytes.extend_from_slice(sequence);
        }
        bytes
    }

    /// Reads what [`StopSequences::encode`] wrote from the front of `bytes`; returns the rest too.
    ///
    /// # Errors
    /// [`StopError`] for anything else.
    pub fn decode_from(bytes: &[u8]) -> Result<(Self, &[u8]), StopError> {
        let (&count, mut rest) = bytes.split_first().ok_or(StopError::Encoding)?;
        if usize::from(count) > STOP_SEQUENCES_MAX {
            return Err(StopError::Count);
        }
        let mut sequences = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let (&length, tail) = rest.split_first().ok_or(StopError::Encoding)?;
            let (sequence, tail) = tail
                .split_at_checked(usize::from(length))
                .ok_or(StopError::Encoding)?;
            sequences.push(sequence.to_vec());
            rest = tail;
        }
        Ok((Self::new(sequences)?, rest))
    }
}

impl std::fmt::Debug for StopSequences {
    // They are as private as the prompt: the content stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} stop sequences", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequences_out_of_bounds_are_refused() {
        let of = |lengths: &[usize]| {
            StopSequences::new(lengths.iter().map(|length| vec![7; *length]).collect()).err()
        };
        assert_eq!(of(&[1, 64, 1, 1]), None);
        assert_eq!(of(&[1; 5]), Some(StopError::Count));
        assert_eq!(of(&[0]), Some(StopError::Length));
        assert_eq!(of(&[65]), Some(StopError::Length));
    }

    #[test]
    fn what_is_shown_of_them_is_their_number() {
        let stop = StopSequences::new(vec![b"secret".to_vec()]).unwrap();
        assert_eq!(format!("{stop:?}"), "1 stop sequences");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            sequences in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..=64), 0..=4),
            rest in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let stop = StopSequences::new(sequences).unwrap();
            let mut bytes = stop.encode();
            bytes.extend_from_slice(&rest);
            prop_assert_eq!(StopSequences::decode_from(&bytes).unwrap(), (stop, rest.as_slice()));
        }

        #[test]
        fn any_other_bytes_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((stop, rest)) = StopSequences::decode_from(&bytes) {
                prop_assert_eq!([stop.encode(), rest.to_vec()].concat(), bytes);
            }
        }
    }
}
