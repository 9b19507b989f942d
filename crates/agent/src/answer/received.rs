//! What has come of an answer, held against what may come. The pool decides what it sends; these bounds decide how much
//! of it an agent takes.

use dovetail_api::v1::TokenChunk;

use crate::AgentError;

/// The text of a token: the longest of any vocabulary in use have some hundred bytes.
const TOKEN_TEXT_BYTES_MAX: usize = 1_024;
/// Text that comes without a token: a pool may hold back the beginning of a character until it sees the rest, and gives
/// it up at the end.
const HELD_BACK_BYTES_MAX: usize = 4;
/// Events that bring no token. A task changes its state a few times, and every resumption tells it once more.
const IDLE_EVENTS_MAX: u32 = 1_024;

/// The tokens of an answer so far, and how much came with them.
#[derive(Debug)]
pub(super) struct Received {
    tokens: Vec<u32>,
    tokens_max: usize,
    /// Text that came with tokens, and text that came without.
    text_bytes: usize,
    held_back_bytes: usize,
    idle_events: u32,
}

impl Received {
    /// Nothing yet, of an answer of so many tokens at most.
    pub(super) fn new(tokens_max: u32) -> Self {
        Self {
            tokens: Vec::new(),
            tokens_max: usize::try_from(tokens_max).unwrap_or(usize::MAX),
            text_bytes: 0,
            held_back_bytes: 0,
            idle_events: 0,
        }
    }

    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Takes a piece, which must begin where the last one ended.
    ///
    /// # Errors
    /// [`AgentError::Protocol`] for a gap, for more tokens than were asked for, and for more text than the tokens can have.
    pub(super) fn take(&mut self, piece: &TokenChunk) -> Result<(), AgentError> {
        let refused = |why: String| Err(AgentError::Protocol(why));
        if usize::try_from(piece.first_position).ok() != Some(self.tokens.len()) {
            return refused(format!(
                "tokens from position {} came where {} was due",
                piece.first_position,
                self.tokens.len()
            ));
        }
        if piece.tokens.len() > self.tokens_max.saturating_sub(self.tokens.len()) {
            return refused("more tokens came than were asked for".into());
        }
        if piece.tokens.is_empty() {
            self.idle()?;
            self.held_back_bytes = self.held_back_bytes.saturating_add(piece.text.len());
        } else {
            self.text_bytes = self.text_bytes.saturating_add(piece.text.len());
        }
        let tokens = self.tokens.len() + piece.tokens.len();
        // What one token did not bring, the next may: a pool may wait for the rest of a character.
        if self.text_bytes > tokens.saturating_mul(TOKEN_TEXT_BYTES_MAX)
            || self.held_back_bytes > HELD_BACK_BYTES_MAX
        {
            return refused(format!(
                "{} bytes of text came with {} tokens",
                piece.text.len(),
                piece.tokens.len()
            ));
        }
        self.tokens.extend_from_slice(&piece.tokens);
        Ok(())
    }

    /// Counts an event that brought no token.
    ///
    /// # Errors
    /// [`AgentError::Protocol`] after too many.
    pub(super) fn idle(&mut self) -> Result<(), AgentError> {
        self.idle_events = self.idle_events.saturating_add(1);
        if self.idle_events > IDLE_EVENTS_MAX {
            return Err(AgentError::Protocol(format!(
                "{IDLE_EVENTS_MAX} events came that brought nothing"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first_position: u32, tokens: &[u32], text_bytes: usize) -> TokenChunk {
        TokenChunk {
            first_position,
            tokens: tokens.to_vec(),
            text: vec![b'x'; text_bytes],
        }
    }

    #[test]
    fn pieces_must_follow_each_other_without_a_gap() {
        let mut received = Received::new(4);
        received.take(&piece(0, &[5, 6], 2)).unwrap();
        assert!(received.take(&piece(3, &[7], 1)).is_err());
        assert!(received.take(&piece(1, &[7], 1)).is_err());
        received.take(&piece(2, &[7], 1)).unwrap();
        assert_eq!(received.tokens(), [5, 6, 7]);
    }

    #[test]
    fn a_pool_cannot_send_more_tokens_than_were_asked_for() {
        let mut received = Received::new(4);
        received.take(&piece(0, &[1, 2, 3], 3)).unwrap();
        assert!(received.take(&piece(3, &[4, 5], 2)).is_err());
        received.take(&piece(3, &[4], 1)).unwrap();
    }

    #[test]
    fn text_comes_with_tokens_but_for_what_was_held_back() {
        assert!(Received::new(4).take(&piece(0, &[], 5)).is_err());
        assert!(Received::new(4).take(&piece(0, &[1], 1_025)).is_err());
        let mut received = Received::new(4);
        received.take(&piece(0, &[1], 1_000)).unwrap();
        received.take(&piece(1, &[2], 1_048)).unwrap();
        received.take(&piece(2, &[], 3)).unwrap();
        received.take(&piece(2, &[], 1)).unwrap();
        assert!(received.take(&piece(2, &[], 1)).is_err());
    }

    #[test]
    fn events_that_bring_nothing_are_counted() {
        let mut received = Received::new(4);
        for _ in 0..IDLE_EVENTS_MAX {
            received.take(&piece(0, &[], 0)).unwrap();
        }
        assert!(received.idle().is_err());
        assert!(received.take(&piece(0, &[], 0)).is_err());
    }
}
