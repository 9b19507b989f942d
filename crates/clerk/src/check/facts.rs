//! What a text says, prepared for looking fields up in it.

use std::collections::HashSet;

use super::days::{Day, days, iso};
use super::figures::{Figures, ONE, figures, plain};
use super::{Doubt, Json};

/// What people print for a currency besides its code. A symbol may stand for several.
const SYMBOLS: [(&str, &[&str]); 19] = [
    ("EUR", &["€", "Euro", "EURO", "euro"]),
    ("USD", &["$", "US$"]),
    ("GBP", &["£"]),
    ("CHF", &["Fr.", "SFr.", "Fr", "sFr."]),
    ("AUD", &["$", "A$", "AU$"]),
    ("CAD", &["$", "C$", "CA$"]),
    ("NZD", &["$", "NZ$"]),
    ("MXN", &["$", "MX$"]),
    ("SGD", &["$", "S$"]),
    ("HKD", &["$", "HK$"]),
    ("SEK", &["kr", "kr.", "Kr", "SKr"]),
    ("DKK", &["kr", "kr.", "Kr"]),
    ("NOK", &["kr", "kr.", "Kr"]),
    ("PLN", &["zł", "zl"]),
    ("CZK", &["Kč"]),
    ("HUF", &["Ft"]),
    ("JPY", &["¥", "￥", "円"]),
    ("INR", &["₹", "Rs.", "Rs"]),
    ("ZAR", &["R"]),
];

/// A text, read.
pub(super) struct Facts {
    /// With each run of blanks as one space.
    folded: String,
    days: HashSet<Day>,
    pub(super) figures: Figures,
}

impl Facts {
    pub(super) fn of(text: &str) -> Self {
        Self {
            folded: folded(text),
            days: days(text),
            figures: figures(text),
        }
    }

    /// The doubt about a field of that key, as far as it alone tells.
    pub(super) fn doubt(&self, key: &str, value: &Json) -> Option<Doubt> {
        let stands = match (key, value) {
            (_, Json::Null) => return Some(Doubt::NotFound),
            ("vendor" | "text" | "item", Json::Text(text)) => self.says(text, &[]),
            // `RE-2026-08` does not stand in `RE-2026-08/15`.
            ("number", Json::Text(text)) => self.says(text, &['-', '/']),
            ("date", Json::Text(text)) => match iso(text) {
                Some(day) => self.days.contains(&day),
                None => return Some(Doubt::NotADay),
            },
            ("currency", Json::Text(code)) => self.says_currency(code),
            ("total" | "tax" | "discount" | "shipping" | "price", Json::Text(text)) => {
                plain(text).is_some_and(|amount| self.says_figure(amount))
            }
            // One of a thing is often not said.
            ("qty", Json::Number(number)) => thousandths(number)
                .is_some_and(|milli| milli == 1_000 || self.says_figure(milli * (ONE / 1_000))),
            ("on_hand" | "target", Json::Number(number)) => {
                thousandths(number).is_some_and(|milli| self.says_figure(milli * (ONE / 1_000)))
            }
            // Judged with the fields around them.
            ("order" | "credit", Json::Number(_) | Json::Bool(_)) => true,
            _ => false,
        };
        (!stands).then_some(Doubt::NotInTheText)
    }

    fn says_figure(&self, e4: i64) -> bool {
        self.figures.all.contains(&e4.abs())
    }

    /// Whether the words stand in the text, not within a longer word, nor joined to one by one of `joints`.
    fn says(&self, words: &str, joints: &[char]) -> bool {
        let words = folded(words);
        !words.is_empty()
            && self.folded.match_indices(&words).any(|(at, _)| {
                let (before, behind) = (&self.folded[..at], &self.folded[at + words.len()..]);
                let starts = !joined(words.chars(), before.chars().rev(), joints);
                let ends = !joined(words.chars().rev(), behind.chars(), joints);
                starts && ends
            })
    }

    fn says_currency(&self, code: &str) -> bool {
        let symbols = SYMBOLS.iter().find(|(known, _)| *known == code);
        let symbols = symbols.map_or(&[][..], |(_, symbols)| symbols);
        [code]
            .iter()
            .chain(symbols)
            .any(|word| self.says_symbol(word))
    }

    /// Whether the word or sign stands in the text without letters around it; figures may touch it.
    fn says_symbol(&self, word: &str) -> bool {
        self.folded.match_indices(word).any(|(at, _)| {
            let before = self.folded[..at].chars().next_back();
            let behind = self.folded[at + word.len()..].chars().next();
            let letter = |c: Option<char>| c.is_some_and(char::is_alphabetic);
            // In `A$5` the dollar is not the American one; behind a sign a letter says nothing.
            !(letter(before) || word.ends_with(char::is_alphabetic) && letter(behind))
        })
    }
}

/// Whether a word goes on beyond its edge: its last character and the next ones, both read away from it.
fn joined(
    mut word: impl Iterator<Item = char>,
    mut beyond: impl Iterator<Item = char>,
    joints: &[char],
) -> bool {
    if !word.next().is_some_and(char::is_alphanumeric) {
        return false;
    }
    match beyond.next() {
        Some(c) if joints.contains(&c) => beyond.next().is_some_and(char::is_alphanumeric),
        Some(c) => c.is_alphanumeric(),
        None => false,
    }
}

fn folded(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number of an answer in thousandths, if it is one of at most so fine parts.
pub(super) fn thousandths(number: &serde_json::Number) -> Option<i64> {
    let milli = number.as_f64()? * 1e3;
    let whole = milli.round();
    // Beyond this no quantity is meant, and floating point would not be exact.
    let exact = (milli - whole).abs() < 1e-6 && whole.abs() < 1e12;
    exact.then_some(whole as i64)
}
