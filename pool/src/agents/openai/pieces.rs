//! An answer as its client sees it: text, and calls of the functions that it has offered.

use dovetail_chat::{CallReader, Piece};

use super::text::AnswerText;

/// Turns the bytes of tokens into pieces of an answer.
pub(super) struct AnswerPieces {
    text: AnswerText,
    /// None where no function was offered, or the model knows no calls.
    calls: Option<CallReader>,
    has_called: bool,
}

impl AnswerPieces {
    pub(super) fn new(text: AnswerText, calls: Option<CallReader>) -> Self {
        Self {
            text,
            calls,
            has_called: false,
        }
    }

    /// What can be given out of these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let text = self.text.push(bytes);
        self.pieces(text)
    }

    /// What was held back, once no more tokens come.
    pub(super) fn finish(&mut self) -> Vec<Piece> {
        let rest = self.text.finish();
        let mut pieces = self.pieces(rest);
        if let Some(calls) = &mut self.calls {
            pieces.extend(calls.finish());
        }
        self.has_called |= has_call(&pieces);
        pieces
    }

    /// How the answer ended, in OpenAI's words. One that was cut short says so, whatever was called in it.
    pub(super) fn reason(&self, reason: &'static str) -> &'static str {
        match self.has_called && reason == "stop" {
            true => "tool_calls",
            false => reason,
        }
    }

    fn pieces(&mut self, text: String) -> Vec<Piece> {
        let pieces = match &mut self.calls {
            Some(calls) => calls.push(&text),
            None if text.is_empty() => Vec::new(),
            None => vec![Piece::Text(text)],
        };
        self.has_called |= has_call(&pieces);
        pieces
    }
}

fn has_call(pieces: &[Piece]) -> bool {
    pieces
        .iter()
        .any(|piece| matches!(piece, Piece::Call { .. }))
}
