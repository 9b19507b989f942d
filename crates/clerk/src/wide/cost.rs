//! What a text costs in tokens, cautiously counted without the tokenizer.

/// More tokens than the tokenizer of `training/tokenizer.py` makes of documents like these: a digit and a mark are
/// one each, a run of spaces is few, and a word is at most one for every two letters. (Training counts
/// exactly and says so; this is for the generator, which knows no tokenizer.)
#[must_use]
pub fn tokens_at_most(text: &str) -> usize {
    let (mut tokens, mut letters, mut spaces) = (0, 0_usize, 0_usize);
    // The end of a text costs as much as the end of a line.
    for c in text.chars().chain(['\n']) {
        if c != ' ' {
            tokens += spaces.div_ceil(24);
            spaces = 0;
        }
        if c.is_alphabetic() {
            letters += if c.is_ascii() { 1 } else { 2 };
            continue;
        }
        tokens += letters.div_ceil(2);
        letters = 0;
        if c == ' ' {
            spaces += 1;
        } else {
            // A mark outside ASCII may be one token for each of its bytes.
            tokens += c.len_utf8();
        }
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::tokens_at_most;

    #[test]
    fn digits_and_marks_count_one_each_and_words_half_their_letters() {
        assert_eq!(tokens_at_most("12.50"), 6);
        assert_eq!(tokens_at_most("bolt"), 3);
        assert_eq!(tokens_at_most("a   b"), 4);
        assert_eq!(tokens_at_most("a b c d"), 8);
        assert_eq!(tokens_at_most("€"), 4);
    }
}
