//! The numbers that a text names, in any of the forms that people write, in ten-thousandths.

use std::collections::HashSet;

/// Ten-thousandths in one.
pub(super) const ONE: i64 = 10_000;
/// Groups of digits that make one number at most: 999 999 999 999,99 has five.
const GROUPS_MAX: usize = 5;
/// Digits that are read before the point at most.
const DIGITS_MAX: usize = 12;
/// Digits behind the point at most; more would not fit ten-thousandths.
const DECIMALS_MAX: usize = 4;

/// What a text's figures may mean.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// All numbers.
    pub(super) all: HashSet<i64>,
    /// Those with exactly two decimals, as amounts of money are printed.
    pub(super) amounts: HashSet<i64>,
}

/// A group of digits and what stands behind it, if another group follows.
type Group<'a> = (&'a str, Option<char>);

/// The figures of the text. Where a mark may be a point or a thousands' mark, both readings count.
pub(super) fn figures(text: &str) -> Figures {
    let mut figures = Figures::default();
    for chain in chains(text) {
        for start in 0..chain.len() {
            // A number begins at a chain's begin or behind a space.
            if start > 0 && !chain[start - 1].1.is_some_and(is_space) {
                continue;
            }
            for end in start..chain.len().min(start + GROUPS_MAX) {
                if end + 1 < chain.len() && !chain[end].1.is_some_and(is_space) {
                    continue;
                }
                read(&chain[start..=end], &mut figures);
            }
        }
    }
    figures
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{202f}')
}

/// Runs of groups that may belong together: `1 234,56`, `2026-…` is two.
fn chains(text: &str) -> Vec<Vec<Group<'_>>> {
    let mut chains = Vec::new();
    let mut chain: Vec<Group<'_>> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        rest = &rest[at..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (digits, behind) = rest.split_at(end);
        rest = behind;
        let link = behind
            .chars()
            .next()
            .filter(|&mark| links(mark, &behind[mark.len_utf8()..]));
        chain.push((digits, link));
        if link.is_none() {
            chains.push(std::mem::take(&mut chain));
        }
    }
    chains
}

/// Whether the mark, with that behind it, may be within a number.
fn links(mark: char, behind: &str) -> bool {
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    match mark {
        '.' | ',' => digits > 0,
        '\'' | '’' => digits == 3,
        _ => is_space(mark) && digits == 3,
    }
}

fn read(groups: &[Group<'_>], figures: &mut Figures) {
    let marks: Vec<char> = groups[..groups.len() - 1]
        .iter()
        .filter_map(|group| group.1)
        .collect();
    let digits: Vec<&str> = groups.iter().map(|group| group.0).collect();
    let last = digits[digits.len() - 1];
    // All marks divide thousands.
    let alike = marks.windows(2).all(|pair| pair[0] == pair[1]);
    if alike && thousands(&digits) {
        figures.all.extend(value(&digits.concat(), ""));
    }
    // The last mark is the point, the others divide thousands.
    let Some((&point, before)) = marks.split_last() else {
        return;
    };
    let apart = before.windows(2).all(|pair| pair[0] == pair[1])
        && before.first().is_none_or(|&mark| mark != point);
    let whole = &digits[..digits.len() - 1];
    if matches!(point, '.' | ',') && apart && thousands(whole) && last.len() <= DECIMALS_MAX {
        let value = value(&whole.concat(), last);
        figures.all.extend(value);
        if last.len() == 2 {
            figures.amounts.extend(value);
        }
    }
}

/// Whether the groups are one number divided into thousands.
fn thousands(groups: &[&str]) -> bool {
    match groups {
        [] => false,
        [_] => true,
        [first, rest @ ..] => {
            first.len() <= 3 && !first.starts_with('0') && rest.iter().all(|group| group.len() == 3)
        }
    }
}

fn value(whole: &str, decimals: &str) -> Option<i64> {
    if whole.len() > DIGITS_MAX {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let decimals: i64 = format!("{decimals:0<DECIMALS_MAX$}").parse().ok()?;
    whole.checked_mul(ONE)?.checked_add(decimals)
}

/// An amount as answers write it: digits, a point, two to four digits, maybe a sign.
pub(super) fn plain(text: &str) -> Option<i64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text),
    };
    let (whole, decimals) = text.split_once('.')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > DECIMALS_MAX {
        return None;
    }
    Some(sign * value(whole, decimals)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_every_form() {
        for text in [
            "1234.56",
            "1,234.56",
            "1.234,56",
            "1 234,56",
            "1'234.56",
            "1’234.56",
            "1\u{a0}234,56",
            "EUR1.234,56-",
            "2 x 1.234,56 ",
            "7 1 234,56",
            "$1,234.56",
            "total 1234,56 EUR",
        ] {
            let read = figures(text);
            assert!(read.amounts.contains(&12_345_600), "{text}: {read:?}");
        }
        assert!(figures("1.250 Stk.").all.contains(&12_500_000));
        assert!(figures("0.125").all.contains(&1_250));
        assert!(figures("12.450,00 3 450.00").amounts.contains(&4_500_000));
    }

    #[test]
    fn what_is_not_printed_is_not_read() {
        let read = figures("1,250.00 and 1'250.00 and 4 x 1.250,00");
        assert!(
            !read.all.contains(&12_500),
            "1.25 is no part of 1,250.00: {read:?}"
        );
        assert!(!figures("120").all.contains(&(12 * ONE)));
        assert!(!figures("99999999999999999999").all.contains(&0));
    }

    #[test]
    fn an_amount_of_an_answer_is_read_as_it_is() {
        assert_eq!(plain("1250.00"), Some(12_500_000));
        assert_eq!(plain("-0.125"), Some(-1_250));
        for text in ["1,250.00", "AUD 50.00", "5", "1.23456", ".50", "5.", "٣.00"] {
            assert_eq!(plain(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_text_of_figures_is_read_in_bounded_time() {
        let text = "111 ".repeat(100_000);
        assert!(figures(&text).all.len() < 20);
    }
}
