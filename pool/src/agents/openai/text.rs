//! The text of an answer as its tokens come: cut at a stop sequence, and given out in whole characters. What may still
//! become a stop sequence, or the rest of a character, is held back. However the tokens are split, the text is the same.

use std::mem::take;

/// The text of one answer.
#[derive(Debug, Default)]
pub(super) struct AnswerText {
    stop: Vec<Vec<u8>>,
    /// What was not given out yet: fewer bytes than the longest stop sequence, and the start of a character.
    held: Vec<u8>,
    /// A stop sequence has come; what follows it in its token is no part of the text.
    has_stopped: bool,
}

impl AnswerText {
    /// A text that ends before any of these.
    pub(super) fn new(stop: Vec<Vec<u8>>) -> Self {
        Self {
            stop,
            ..Self::default()
        }
    }

    /// Takes the bytes of tokens; what can be given out of them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        for byte in bytes {
            if self.has_stopped {
                break;
            }
            self.held.push(*byte);
            let ended = self.stop.iter().filter(|stop| self.held.ends_with(stop));
            // Of two that end here, the text ends before the longer one.
            if let Some(length) = ended.map(Vec::len).max() {
                self.held.truncate(self.held.len() - length);
                self.has_stopped = true;
            }
        }
        let keep = match self.has_stopped {
            true => 0,
            false => self.possible_stop(),
        };
        let rest = self.held.split_off(self.held.len() - keep);
        let (text, start) = whole_characters(&self.held);
        let is_end = self.has_stopped || !rest.is_empty();
        let text = match (is_end, start.is_empty()) {
            // What follows begins a character of its own.
            (true, false) => text + &String::from_utf8_lossy(start),
            _ => text,
        };
        self.held = match is_end {
            true => rest,
            false => start.to_vec(),
        };
        text
    }

    /// What was held back, once no more tokens come.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&take(&mut self.held)).into_owned()
    }

    /// How many bytes at the end of what is held are the start of a stop sequence.
    fn possible_stop(&self) -> usize {
        let longest = |stop: &Vec<u8>| {
            let most = self.held.len().min(stop.len().saturating_sub(1));
            (1..=most)
                .rev()
                .find(|length| self.held.ends_with(&stop[..*length]))
        };
        self.stop.iter().filter_map(longest).max().unwrap_or(0)
    }
}

/// The text of these bytes, with U+FFFD for what is none, and the start of a character at their end.
fn whole_characters(bytes: &[u8]) -> (String, &[u8]) {
    let mut text = String::with_capacity(bytes.len());
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        let is_start = chunks.peek().is_none() && is_start(invalid);
        match invalid {
            [] => {}
            start if is_start => return (text, start),
            _ => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
    (text, &[])
}

/// Whether a character may begin with these bytes.
fn is_start(bytes: &[u8]) -> bool {
    let error = std::str::from_utf8(bytes).err();
    error.is_some_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pushed(stop: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let stop = stop.iter().map(|stop| stop.as_bytes().to_vec()).collect();
        let mut text = AnswerText::new(stop);
        let mut given: Vec<String> = pieces.iter().map(|piece| text.push(piece)).collect();
        given.push(text.finish());
        given
    }

    #[test]
    fn a_character_of_several_tokens_is_given_out_whole() {
        let euro = "€".as_bytes();
        let given = pushed(&[], &[b"5 ", &euro[..1], &euro[1..2], &euro[2..], b"!"]);
        assert_eq!(given, ["5 ", "", "", "€", "!", ""]);
        // One that never ends is shown as such, as soon as that is clear.
        assert_eq!(pushed(&[], &[&euro[..2]]), ["", "\u{fffd}"]);
        assert_eq!(pushed(&[], &[&euro[..2], b"a"]), ["", "\u{fffd}a", ""]);
    }

    #[test]
    fn what_may_become_a_stop_sequence_is_held_back_until_it_does_or_cannot() {
        assert_eq!(
            pushed(&["\n\n"], &[b"a\n", b"b\n", b"\nc"]),
            ["a", "\nb", "", ""]
        );
        assert_eq!(pushed(&["END"], &[b"xE", b"N", b"d"]), ["x", "", "ENd", ""]);
        assert_eq!(pushed(&["END"], &[b"xEN"]), ["x", "EN"]);
        // The longer of two that end at one place, and what its token has behind it, are gone.
        assert_eq!(
            pushed(&["b", "ab"], &[b"xa", b"bc", b"d"]),
            ["x", "", "", ""]
        );
    }

    #[test]
    fn a_broken_character_before_a_stop_sequence_is_shown_before_it() {
        let euro = "€".as_bytes();
        assert_eq!(
            pushed(&["END"], &[&euro[..2], b"EN", b"D"]),
            ["", "\u{fffd}", "", ""]
        );
    }

    proptest! {
        #[test]
        fn the_text_is_the_same_however_it_is_split(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'a'), Just(b'b'), Just(0xe2), Just(0x82), Just(0xac), Just(0xff), Just(0xc3),
            ], 0..40),
            stop in proptest::collection::vec("[ab]{1,3}|€|a€", 0..3),
            cuts in proptest::collection::vec(0_usize..40, 0..10),
        ) {
            let stop: Vec<&str> = stop.iter().map(String::as_str).collect();
            let whole: String = pushed(&stop, &[&bytes]).concat();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(pushed(&stop, &pieces).concat(), whole.clone());
            // By the definition: up to where the first stop sequence ends, without it.
            let ends = |end: &usize| stop.iter().any(|stop| bytes[..*end].ends_with(stop.as_bytes()));
            let expected = match (1..=bytes.len()).find(ends) {
                None => String::from_utf8_lossy(&bytes).into_owned(),
                Some(end) => {
                    let ended = stop.iter().filter(|stop| bytes[..end].ends_with(stop.as_bytes()));
                    let length = ended.map(|stop| stop.len()).max().unwrap();
                    String::from_utf8_lossy(&bytes[..end - length]).into_owned()
                }
            };
            prop_assert_eq!(whole, expected);
        }
    }
}
