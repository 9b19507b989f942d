//! The days that a text names, in any of the forms that people write.

use std::collections::HashSet;

/// Year, month, day.
pub(super) type Day = (u32, u32, u32);

/// Names of months, whole and cut short, of six languages; each line is a month.
const MONTHS: [&[&str]; 12] = [
    &[
        "january", "januar", "jänner", "janvier", "januari", "enero", "gennaio", "jan", "janv",
        "ene", "gen",
    ],
    &[
        "february", "februar", "feber", "février", "fevrier", "februari", "febrero", "febbraio",
        "feb", "févr", "fev", "fév",
    ],
    &[
        "march", "märz", "maerz", "mars", "maart", "marzo", "mar", "mrz", "mär", "mrt",
    ],
    &["april", "avril", "abril", "aprile", "apr", "avr", "abr"],
    &["may", "mai", "mei", "mayo", "maggio", "mag"],
    &["june", "juni", "juin", "junio", "giugno", "jun", "giu"],
    &[
        "july", "juli", "juillet", "julio", "luglio", "jul", "juil", "lug",
    ],
    &["august", "août", "aout", "augustus", "agosto", "aug", "ago"],
    &[
        "september",
        "septembre",
        "septiembre",
        "settembre",
        "sep",
        "sept",
        "set",
    ],
    &[
        "october", "oktober", "octobre", "octubre", "ottobre", "oct", "okt", "ott",
    ],
    &["november", "novembre", "noviembre", "nov"],
    &[
        "december",
        "dezember",
        "décembre",
        "decembre",
        "diciembre",
        "dicembre",
        "dec",
        "dez",
        "déc",
        "dic",
    ],
];
/// What may stand between the parts of a day.
const BETWEEN: [&str; 10] = ["de", "of", "del", "den", "th", "st", "nd", "rd", "er", "º"];

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Digits(&'a str),
    Word(&'a str),
    Mark(char),
}

/// All days that the text may mean. Where nobody can tell month from day, both readings count.
pub(super) fn days(text: &str) -> HashSet<Day> {
    let pieces = pieces(text);
    let mut found = HashSet::new();
    for at in 0..pieces.len() {
        found.extend(in_figures(&pieces[at..]).into_iter().flatten());
        if let Piece::Word(word) = pieces[at] {
            let named = month(word).map(|month| named(&pieces, at, month));
            found.extend(named.into_iter().flatten().flatten());
        }
    }
    found
}

/// The day of `YYYY-MM-DD`, if the calendar has it.
pub(super) fn iso(text: &str) -> Option<Day> {
    let mut parts = text.split('-');
    let mut part = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| part.parse::<u32>().ok())?
    };
    let day = (part(4)?, part(2)?, part(2)?);
    if parts.next().is_some() {
        return None;
    }
    valid(day)
}

fn valid(day: Day) -> Option<Day> {
    let (year, month, of_month) = day;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    ((1900..=2199).contains(&year) && (1..=days).contains(&of_month)).then_some(day)
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = |c: char| {
            (first.is_ascii_digit() && c.is_ascii_digit())
                || (first.is_alphabetic() && c.is_alphabetic())
        };
        let end = rest.find(|c| !same(c)).unwrap_or(rest.len());
        let piece = &rest[..end.max(first.len_utf8())];
        if first.is_ascii_digit() {
            pieces.push(Piece::Digits(piece));
        } else if first.is_alphabetic() {
            pieces.push(Piece::Word(piece));
        } else if !first.is_whitespace() {
            pieces.push(Piece::Mark(first));
        }
        rest = &rest[piece.len()..];
    }
    pieces
}

/// Three numbers with a mark between them.
fn in_figures(pieces: &[Piece<'_>]) -> [Option<Day>; 2] {
    let [
        Piece::Digits(a),
        Piece::Mark(first @ ('.' | '/' | '-')),
        Piece::Digits(b),
        Piece::Mark(second),
        Piece::Digits(c),
        ..,
    ] = pieces
    else {
        return [None, None];
    };
    if first != second || b.len() > 2 {
        return [None, None];
    }
    let (Some(one), Some(two), Some(three)) = (number(a), number(b), number(c)) else {
        return [None, None];
    };
    match (a.len(), c.len()) {
        (4, 1 | 2) => [valid((one, two, three)), None],
        (1 | 2, 4) => [valid((three, two, one)), valid((three, one, two))],
        (1 | 2, 2) => [
            valid((2000 + three, two, one)),
            valid((2000 + three, one, two)),
        ],
        _ => [None, None],
    }
}

/// A day with its month's name at that place: the day before it and the year behind, or both behind. A number that
/// happens to stand before `May 26, 2026` makes both readings days.
fn named(pieces: &[Piece<'_>], at: usize, month: u32) -> [Option<Day>; 2] {
    let before = next_number(&mut pieces[..at].iter().rev().copied());
    let mut behind = pieces[at + 1..].iter().copied();
    let Some(first) = next_number(&mut behind) else {
        return [None, None];
    };
    let second = next_number(&mut behind);
    [
        day_of(month, before, Some(first)),
        day_of(month, Some(first), second.filter(|year| year.len() == 4)),
    ]
}

fn day_of(month: u32, day: Option<&str>, year: Option<&str>) -> Option<Day> {
    let (day, year) = (day.filter(|day| day.len() <= 2)?, year?);
    let century = if year.len() == 2 { 2000 } else { 0 };
    valid((century + number(year)?, month, number(day)?))
}

/// The number that comes next, with no more than a few small words and marks before it.
fn next_number<'a>(pieces: &mut impl Iterator<Item = Piece<'a>>) -> Option<&'a str> {
    for piece in pieces.take(3) {
        match piece {
            Piece::Digits(digits) => return Some(digits),
            Piece::Mark('.' | ',' | '-' | '/') => {}
            Piece::Word(word) if BETWEEN.contains(&word.to_lowercase().as_str()) => {}
            _ => return None,
        }
    }
    None
}

fn number(digits: &str) -> Option<u32> {
    (digits.len() <= 4).then(|| digits.parse().ok())?
}

fn month(word: &str) -> Option<u32> {
    let word = word.to_lowercase();
    let at = MONTHS
        .iter()
        .position(|names| names.contains(&word.as_str()))?;
    u32::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_found_in_every_form_that_people_write() {
        for text in [
            "2026-05-07",
            "2026/05/07",
            "07.05.2026",
            "7.5.2026",
            "7. 5. 2026",
            "07/05/26",
            "05/07/2026",
            "5/7/2026",
            "7 May 2026",
            "07 May 2026",
            "7th May 2026",
            "7th of May, 2026",
            "May 7, 2026",
            "May 07, 2026",
            "May 7th, 2026",
            "MAY 7 2026",
            "07-May-2026",
            "7-May-26",
            "7. Mai 2026",
            "7 mai 2026",
            "7 de mayo de 2026",
            "7 maggio 2026",
            "7 mei 2026",
            "Ulm, den 7. Mai 2026",
            "vom 7.5.2026, 3 Stk.",
        ] {
            assert!(
                days(text).contains(&(2026, 5, 7)),
                "{text}: {:?}",
                days(text)
            );
        }
        let both = days("no. 7-12 of May 26, 2026");
        assert!(both.contains(&(2026, 5, 26)), "{both:?}");
        assert!(days("1er février 2024").contains(&(2024, 2, 1)));
        assert!(days("Feb 29, 2024").contains(&(2024, 2, 29)));
    }

    #[test]
    fn what_is_no_day_is_none() {
        for text in [
            "2026-05-90",
            "31.4.2026",
            "Feb 29, 2025",
            "1.250,00",
            "RE-2026-0815",
            "May I ask 20 of 26?",
            "192.168.0.1",
        ] {
            assert!(days(text).is_empty(), "{text}: {:?}", days(text));
        }
        assert_eq!(iso("2026-05-90"), None);
        assert_eq!(iso("2026-5-9"), None);
        assert_eq!(iso("2024-02-29"), Some((2024, 2, 29)));
    }
}
