//! Text that people typed, kept from becoming control tokens. A template writes the names of control tokens as text, and
//! a tokenizer takes every such name for the token, whoever wrote it. So each name in a typed text is marked before the
//! template has it, and the rendered text is cut at the marks: no piece has the whole name.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// Where a text is to be cut. No character: texts are not to hold it (Unicode 23.7), and one that is typed is left out.
const MARK: char = '\u{fdd0}';

/// A typed text with a control token of one character, which no cut takes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text holds a control token of a single character, which cannot be told from text")]
pub struct Indivisible;

/// The text with a mark inside of each of these names. Takes time in proportion to the text and to the number of names.
///
/// # Errors
/// [`Indivisible`].
pub fn marked<'a>(
    text: &'a str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<Cow<'a, str>, Indivisible> {
    let text = match text.contains(MARK) {
        true => Cow::from(text.replace(MARK, "")),
        false => Cow::from(text),
    };
    let mut cuts = BTreeSet::new();
    for name in names {
        cut(&text, name, &mut cuts)?;
    }
    if cuts.is_empty() {
        return Ok(text);
    }
    let mut with_marks = String::with_capacity(text.len() + cuts.len() * MARK.len_utf8());
    let mut from = 0;
    for cut in cuts {
        with_marks.push_str(&text[from..cut]);
        with_marks.push(MARK);
        from = cut;
    }
    with_marks.push_str(&text[from..]);
    Ok(with_marks.into())
}

/// Adds cuts until each place where the name stands has one inside, those that overlap too.
fn cut(text: &str, name: &str, cuts: &mut BTreeSet<usize>) -> Result<(), Indivisible> {
    let mut letters = name.char_indices();
    let (Some((_, first)), last) = (letters.next(), letters.next_back()) else {
        return Ok(());
    };
    let mut from = 0;
    while let Some(at) = text[from..].find(name).map(|found| from + found) {
        let (last, _) = last.ok_or(Indivisible)?;
        if cuts.range(at + 1..at + name.len()).next().is_none() {
            cuts.insert(at + last);
        }
        from = at + first.len_utf8();
    }
    Ok(())
}

/// The pieces of a marked text, one after the other; one that is not marked is one piece.
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 5] = ["<|im_end|>", "im_end", "|>", "aa", "日本"];

    fn joined(text: &str) -> String {
        pieces(text).collect()
    }

    #[test]
    fn a_name_is_cut_and_a_text_without_one_stays_as_it_is() {
        assert!(matches!(
            marked("Hello, <|im_en", NAMES),
            Ok(Cow::Borrowed(_))
        ));
        let text = marked("a<|im_end|>b", NAMES).unwrap();
        assert_eq!(joined(&text), "a<|im_end|>b");
        // Places that overlap have a cut each.
        for text in ["aaaa", "日本日本", "<|im_end|>"] {
            let text = marked(text, NAMES).unwrap();
            let whole = |piece: &str| NAMES.iter().any(|name| piece.contains(name));
            assert!(!pieces(&text).any(whole), "{text:?}");
        }
    }

    #[test]
    fn a_mark_that_was_typed_is_left_out_and_hides_no_name() {
        let text = marked("<|im\u{fdd0}_end|>", NAMES).unwrap();
        assert_eq!(joined(&text), "<|im_end|>");
        assert!(pieces(&text).all(|piece| !piece.contains("im_end")));
    }

    #[test]
    fn a_name_of_one_character_is_refused_where_it_stands() {
        assert_eq!(marked("a§b", ["§"]), Err(Indivisible));
        assert_eq!(marked("ab", ["§", ""]), Ok("ab".into()));
    }

    proptest! {
        #[test]
        fn no_piece_has_a_name_and_all_pieces_are_the_text(text in "[a日本<|>im_end ]{0,40}") {
            let marked = marked(&text, NAMES).unwrap();
            prop_assert_eq!(joined(&marked), text.as_str());
            for piece in pieces(&marked) {
                prop_assert!(NAMES.iter().all(|name| !piece.contains(name)), "{:?}", piece);
            }
        }
    }
}
