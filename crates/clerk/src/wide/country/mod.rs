//! Countries: which language, money, taxes, dates, figures and addresses their papers have.

mod others;
mod usual;

use super::day::DayForm::{self, *};
use super::labels::Language;
use crate::rng::Rng;
use others::OTHERS;
use usual::USUAL;

/// A currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Currency {
    /// ISO 4217, as answers write it.
    pub(super) code: &'static str,
    /// What people write instead. The first may name other currencies too, see [`Currency::shared`].
    pub(super) symbols: &'static [&'static str],
    /// Whether it has no smaller unit that is used.
    pub(super) whole: bool,
    /// Whether its symbols mean another currency elsewhere, so that a paper has to give a hint.
    pub(super) shared: bool,
}

const fn money(code: &'static str, symbols: &'static [&'static str], shared: bool) -> Currency {
    Currency {
        code,
        symbols,
        whole: false,
        shared,
    }
}

const EUR: Currency = money("EUR", &["€", "€", "EUR", "Euro"], false);
const USD: Currency = money("USD", &["$", "$", "US$", "USD"], false);
const GBP: Currency = money("GBP", &["£", "£", "GBP"], false);
const CHF: Currency = money("CHF", &["CHF", "Fr.", "SFr.", "CHF"], false);
const AUD: Currency = money("AUD", &["$", "A$", "AUD", "AU$"], true);
const CAD: Currency = money("CAD", &["$", "C$", "CAD", "CA$"], true);
const DKK: Currency = money("DKK", &["kr.", "kr", "DKK"], true);
const SEK: Currency = money("SEK", &["kr", "SEK", "kr"], true);
const NOK: Currency = money("NOK", &["kr", "NOK", "kr"], true);
const PLN: Currency = money("PLN", &["zł", "PLN", "zł"], false);
const CZK: Currency = money("CZK", &["Kč", "CZK"], false);
const HUF: Currency = Currency {
    code: "HUF",
    symbols: &["Ft", "HUF"],
    whole: true,
    shared: false,
};
const JPY: Currency = Currency {
    code: "JPY",
    symbols: &["¥", "JPY", "￥"],
    whole: true,
    shared: false,
};
const NZD: Currency = money("NZD", &["$", "NZ$", "NZD"], true);
const INR: Currency = money("INR", &["₹", "Rs.", "INR"], false);
const ZAR: Currency = money("ZAR", &["R", "ZAR"], false);
const MXN: Currency = money("MXN", &["$", "MXN", "MX$"], true);

/// What foreign customers are billed in.
const ABROAD: [Currency; 7] = [EUR, USD, GBP, CHF, JPY, SEK, CAD];

type Mark = (Option<char>, char);
const POINT: Mark = (None, '.');
const COMMAS: Mark = (Some(','), '.');
const COMMA: Mark = (None, ',');
const DOTS: Mark = (Some('.'), ',');
const SPACES: Mark = (Some(' '), ',');
const HARD_SPACES: Mark = (Some('\u{a0}'), ',');
const APOSTROPHES: Mark = (Some('\''), '.');
const CURLY: Mark = (Some('’'), '.');

/// How a country's papers look.
#[derive(Debug)]
pub(super) struct Country {
    /// As it stands in an address there.
    pub(super) name: &'static str,
    pub(super) language: Language,
    pub(super) currency: Currency,
    /// Rates of value added or sales tax, in tenths of a percent; usual ones first.
    pub(super) rates: &'static [u32],
    pub(super) days: &'static [DayForm],
    /// Thousands' mark and decimal mark.
    pub(super) figures: &'static [Mark],
    /// Cities with what stands before or behind them; `#` is a digit, `@` a letter.
    pub(super) cities: &'static [&'static str],
    /// Behind a vendor's name.
    pub(super) forms: &'static [&'static str],
    /// Telephone numbers, tax numbers, register numbers, bank accounts: `#` is a digit, `@` a letter.
    pub(super) phones: &'static [&'static str],
    pub(super) tax_ids: &'static [&'static str],
    pub(super) registers: &'static [&'static str],
    pub(super) banks: &'static [&'static str],
    /// Whether a house's number stands before its street.
    pub(super) number_first: bool,
    /// Whether people there pay prices that already hold the tax more often than not.
    pub(super) sales_tax: bool,
}

macro_rules! country {
    ($name:literal, $language:ident, $currency:ident, $rates:expr, $days:expr, $figures:expr, $cities:expr,
     $forms:expr, $phones:expr, $tax_ids:expr, $registers:expr, $banks:expr, $number_first:literal) => {
        Country {
            name: $name,
            language: Language::$language,
            currency: $currency,
            rates: $rates,
            days: $days,
            figures: $figures,
            cities: $cities,
            forms: $forms,
            phones: $phones,
            tax_ids: $tax_ids,
            registers: $registers,
            banks: $banks,
            number_first: $number_first,
            sales_tax: false,
        }
    };
}
use country;

const EN_DAYS: &[DayForm] = &[
    Named,
    Named,
    NamedPadded,
    Joined('/'),
    JoinedPlain('/'),
    Ordinal,
    Short,
    ShortDashes,
    ShortDashesYear,
    Iso,
    Joined('.'),
    JoinedPlain('.'),
    JoinedShort('/'),
    NamedUpper,
    Joined('-'),
    MonthDay,
];
const US_DAYS: &[DayForm] = &[
    MonthDay,
    MonthDay,
    MonthDayPadded,
    MonthFirst,
    MonthFirstPlain,
    MonthFirstPlain,
    ShortMonthDay,
    Iso,
    MonthOrdinal,
    ShortDashes,
    Named,
    IsoSlashes,
];
const DE_DAYS: &[DayForm] = &[
    Joined('.'),
    Joined('.'),
    JoinedPlain('.'),
    Named,
    JoinedShort('.'),
    Iso,
    Joined('/'),
    NamedPadded,
];
const FR_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    JoinedShort('/'),
    Joined('.'),
    Joined('-'),
    Short,
    Iso,
];
const NL_DAYS: &[DayForm] = &[
    Joined('-'),
    Joined('-'),
    JoinedPlain('-'),
    Named,
    Joined('/'),
    Short,
    JoinedShort('-'),
    Iso,
    Joined('.'),
];
const ES_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    Joined('-'),
    JoinedShort('/'),
    Short,
    Iso,
    Joined('.'),
];
const IT_DAYS: &[DayForm] = &[
    Joined('/'),
    Joined('/'),
    Named,
    JoinedPlain('/'),
    Joined('-'),
    Joined('.'),
    JoinedShort('/'),
    Short,
    Iso,
];

/// Of a hundred papers, those of the usual countries.
const USUAL_PERCENT: u32 = 75;
/// Of a hundred papers, those in another currency than the country's.
const ABROAD_PERCENT: u32 = 7;

/// A country, and the currency of a paper from there.
pub(super) fn draw(rng: &mut Rng) -> (&'static Country, Currency) {
    let country = if rng.chance(USUAL_PERCENT) {
        &USUAL[rng.index(USUAL.len())]
    } else {
        &OTHERS[rng.index(OTHERS.len())]
    };
    let currency = if rng.chance(ABROAD_PERCENT) {
        ABROAD[rng.index(ABROAD.len())]
    } else {
        country.currency
    };
    (country, currency)
}

/// A pattern with its `#` as digits and its `@` as letters. What begins a number is no zero.
pub(super) fn filled(rng: &mut Rng, pattern: &str) -> String {
    let mut before = ' ';
    pattern
        .chars()
        .map(|c| {
            let c = match c {
                '#' if before == ' ' => digit(rng.between(1, 9)),
                '#' => digit(rng.below(10)),
                '@' => crate::shipped::letter(rng),
                other => other,
            };
            before = c;
            c
        })
        .collect()
}

/// One of the patterns, [`filled`].
pub(super) fn filled_one(rng: &mut Rng, patterns: &[&'static str]) -> String {
    let pattern = patterns[rng.index(patterns.len())];
    filled(rng, pattern)
}

fn digit(value: u32) -> char {
    char::from_digit(value, 10).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filled_with_digits_and_letters() {
        let number = filled(&mut Rng::new(4), "DE## @# ##x");
        assert_eq!(number.len(), 11);
        assert!(number.starts_with("DE") && number.ends_with('x'));
        assert!(!number.contains(['#', '@']));
    }

    #[test]
    fn every_country_is_drawn_and_some_bill_in_foreign_money() {
        let mut rng = Rng::new(1);
        let drawn: Vec<_> = (0..5_000).map(|_| draw(&mut rng)).collect();
        for country in USUAL.iter().chain(OTHERS) {
            assert!(
                drawn.iter().any(|(c, _)| c.name == country.name),
                "{}",
                country.name
            );
        }
        assert!(drawn.iter().any(|(c, money)| c.currency != *money));
    }
}
