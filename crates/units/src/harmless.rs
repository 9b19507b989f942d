//! Words of strangers, made safe to show. A pool chooses the names of its models, the words of its refusals and the text
//! of its receipts; none of it may steer a terminal or forge a line of a log. This is the one rule for it. It is applied
//! where text leaves a program: in `dovetail-console` for people, and in `dovetail-daemon` for logs.

use std::fmt::{self, Display, Write};

/// Whether a character does more than stand where it is: moves a terminal's cursor, begins a new line, or makes what
/// stands beside it read in another order.
pub fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // Separators of lines and paragraphs, overrides of the direction, and isolates.
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Words that stay on their line: harmful characters come out as `\n` or `\u001b`. In a JSON text, where such
/// characters can stand in strings only, that is the same text in other letters.
pub fn harmless<T: Display>(words: T) -> Harmless<T> {
    Harmless {
        words,
        has_lines: false,
        chars_max: usize::MAX,
    }
}

/// As [`harmless`], and cut after so many characters.
pub fn harmless_within<T: Display>(words: T, chars_max: usize) -> Harmless<T> {
    Harmless {
        chars_max,
        ..harmless(words)
    }
}

/// As [`harmless`], for a text of several lines: the ends of lines, and tabs, stay.
pub fn harmless_lines<T: Display>(words: T) -> Harmless<T> {
    Harmless {
        has_lines: true,
        ..harmless(words)
    }
}

/// What [`harmless`] gives; only its `Display` shows the words.
#[derive(Clone, Copy)]
pub struct Harmless<T> {
    words: T,
    has_lines: bool,
    chars_max: usize,
}

impl<T: Display> Display for Harmless<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut filter = Filter {
            out: f,
            has_lines: self.has_lines,
            left: self.chars_max,
            is_cut: false,
        };
        write!(filter, "{}", self.words)
    }
}

struct Filter<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    has_lines: bool,
    left: usize,
    is_cut: bool,
}

impl Write for Filter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Most text holds nothing of the kind, and most is not cut.
        if self.left == usize::MAX && !text.contains(is_harmful) {
            return self.out.write_str(text);
        }
        for c in text.chars() {
            if self.left == 0 {
                if !std::mem::replace(&mut self.is_cut, true) {
                    self.out.write_char('…')?;
                }
                return Ok(());
            }
            if self.left != usize::MAX {
                self.left -= 1;
            }
            match c {
                '\n' | '\t' if self.has_lines => self.out.write_char(c)?,
                '\n' => self.out.write_str("\\n")?,
                '\r' => self.out.write_str("\\r")?,
                '\t' => self.out.write_str("\\t")?,
                c if is_harmful(c) => write!(self.out, "\\u{:04x}", u32::from(c))?,
                c => self.out.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_cannot_steer_a_terminal_or_begin_a_line() {
        let words = "tiny\x1b]0;owned\x07\x1b[2J\nINFO all is well\u{9b}1m\u{202e}x\u{2028}é";
        assert_eq!(
            harmless(words).to_string(),
            "tiny\\u001b]0;owned\\u0007\\u001b[2J\\nINFO all is well\\u009b1m\\u202ex\\u2028é"
        );
    }

    #[test]
    fn a_json_text_stays_the_same_value() {
        let made = "{\"name\":\"a\u{9b}b\u{202e}\"}";
        let shown = harmless(made).to_string();
        assert_eq!(shown, "{\"name\":\"a\\u009bb\\u202e\"}");
    }

    #[test]
    fn a_text_of_several_lines_keeps_them_and_nothing_else() {
        let text = "a\n\tb\r\x1b";
        assert_eq!(harmless_lines(text).to_string(), "a\n\tb\\r\\u001b");
    }

    #[test]
    fn long_words_are_cut_once() {
        let words = format_args!("{}{}", "x".repeat(3), "yz").to_string();
        assert_eq!(harmless_within(&words, 4).to_string(), "xxxy…");
        assert_eq!(harmless_within(&words, 5).to_string(), "xxxyz");
        assert_eq!(harmless_within("", 0).to_string(), "");
    }
}
