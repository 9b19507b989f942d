//! Writes an answer to stdout as it comes in.
//!
//! Into a file or pipe go the bytes as they are. A terminal gets whole characters and no control characters: the
//! answer comes from a stranger's machine, or from a stranger's model, and must not move the cursor or retitle the window.

use std::io::{self, IsTerminal, Write};

use dovetail_units::is_harmful;

/// What stands for bytes that are no text.
const REPLACEMENT: char = '\u{fffd}';

/// Stdout, made safe where it is a terminal.
#[derive(Debug)]
pub struct Printer {
    /// None: bytes go out as they are.
    text: Option<TextDecoder>,
}

impl Printer {
    /// For stdout as it is.
    pub fn stdout() -> Self {
        Self {
            text: io::stdout().is_terminal().then(TextDecoder::default),
        }
    }

    /// Writes a piece at once.
    ///
    /// # Errors
    /// Nobody reads stdout any more.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match &mut self.text {
            Some(decoder) => out.write_all(decoder.push(piece).as_bytes())?,
            None => out.write_all(piece)?,
        }
        out.flush()
    }

    /// Writes what was held back and, on a terminal, ends the line.
    ///
    /// # Errors
    /// As [`Printer::write`].
    pub fn finish(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if let Some(decoder) = &mut self.text {
            writeln!(out, "{}", decoder.finish())?;
        }
        out.flush()
    }
}

/// UTF-8 from pieces that may end inside a character; at most 3 bytes are held back.
#[derive(Debug, Default)]
struct TextDecoder {
    held: Vec<u8>,
}

impl TextDecoder {
    fn push(&mut self, piece: &[u8]) -> String {
        self.held.extend_from_slice(piece);
        let bytes = std::mem::take(&mut self.held);
        let mut text = String::with_capacity(bytes.len());
        let mut rest = bytes.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.extend(valid.chars().map(shown));
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.extend(String::from_utf8_lossy(valid).chars().map(shown));
                    let Some(skip) = error.error_len() else {
                        self.held = after.to_vec();
                        return text;
                    };
                    text.push(REPLACEMENT);
                    rest = &after[skip..];
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        if std::mem::take(&mut self.held).is_empty() {
            String::new()
        } else {
            REPLACEMENT.into()
        }
    }
}

/// A character of an answer, which has lines.
fn shown(c: char) -> char {
    match c {
        '\n' | '\t' => c,
        c if is_harmful(c) => REPLACEMENT,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_split_between_pieces_come_out_whole() {
        let mut decoder = TextDecoder::default();
        let euro = "€".as_bytes();
        assert_eq!(decoder.push(&euro[..2]), "");
        assert_eq!(decoder.push(&euro[2..]), "€");
        assert_eq!(decoder.finish(), "");
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        let mut decoder = TextDecoder::default();
        assert_eq!(decoder.push(b"a\x1b[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_never_lost_silently() {
        let mut decoder = TextDecoder::default();
        assert_eq!(decoder.push(b"a\xffb\xe2"), "a\u{fffd}b");
        assert_eq!(decoder.finish(), "\u{fffd}");
    }
}
