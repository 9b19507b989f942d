//! The bytes behind a token's name, as `tokenizer.json` writes names.

/// The bytes behind a token's name.
pub(super) fn bytes_of(token: &str, byte_level: bool) -> Vec<u8> {
    if byte_level {
        // A name outside the alphabet is an added token, which stands for itself.
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of_letter).collect();
        return bytes.unwrap_or_else(|| token.as_bytes().to_vec());
    }
    // SentencePiece: <0x0A> is a byte, U+2581 a space.
    let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// GPT-2's alphabet: printable bytes of Latin-1 stand for themselves, the others for 256 and on, in
/// order.
fn byte_of_letter(letter: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(letter).checked_sub(256) {
        None => u8::try_from(u32::from(letter))
            .ok()
            .filter(|byte| printable(*byte)),
        Some(place) => (0..=u8::MAX)
            .filter(|byte| !printable(*byte))
            .nth(place as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_of_bytes_is_gpt_2s() {
        let letters = [
            ('A', 0x41),
            ('Ġ', 0x20),
            ('Ċ', 0x0a),
            ('Ā', 0),
            ('ÿ', 0xff),
            ('Ń', 0xad),
        ];
        for (letter, byte) in letters {
            assert_eq!(byte_of_letter(letter), Some(byte), "{letter}");
        }
        assert_eq!(byte_of_letter('ń'), None);
        assert_eq!(byte_of_letter(' '), None);
    }

    #[test]
    fn sentence_pieces_become_bytes() {
        assert_eq!(bytes_of("\u{2581}pool", false), b" pool");
        assert_eq!(bytes_of("<0x0A>", false), b"\n");
        assert_eq!(bytes_of("<s>", false), b"<s>");
    }
}
