//! Amounts and quantities in whole numbers, and the ways in which people write them.

use super::country::{Country, Currency};
use crate::rng::Rng;

/// How a paper writes figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    point: char,
    thousands: Option<char>,
    place: Place,
    currency: Currency,
    symbol: &'static str,
    /// Whether prices in rows name the currency too.
    marked_rows: bool,
    /// How an amount below zero is written.
    minus_behind: bool,
}

/// Where a paper puts the currency of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SymbolBefore,
    SymbolBeforeApart,
    SymbolAfter,
    CodeBefore,
    CodeAfter,
}

impl Figures {
    /// How a paper of that country writes amounts of that currency.
    pub(super) fn draw(rng: &mut Rng, country: &Country, currency: Currency) -> Self {
        let (thousands, point) = country.figures[rng.index(country.figures.len())];
        let places = [
            Place::SymbolBefore,
            Place::SymbolBeforeApart,
            Place::SymbolAfter,
            Place::CodeBefore,
            Place::CodeAfter,
        ];
        let place = if rng.chance(60) {
            [Place::SymbolBefore, Place::SymbolAfter][usize::from(point == ',')]
        } else {
            places[rng.index(places.len())]
        };
        Self {
            point,
            thousands,
            place,
            currency,
            symbol: currency.symbols[rng.index(currency.symbols.len())],
            marked_rows: rng.chance(30),
            minus_behind: rng.chance(10),
        }
    }

    /// The amount alone.
    pub(super) fn bare(&self, cents: i64) -> String {
        let digits = if self.currency.whole {
            self.grouped(cents.unsigned_abs() / 100)
        } else {
            format!(
                "{}{}{:02}",
                self.grouped(cents.unsigned_abs() / 100),
                self.point,
                cents.unsigned_abs() % 100
            )
        };
        match (cents < 0, self.minus_behind) {
            (false, _) => digits,
            (true, false) => format!("-{digits}"),
            (true, true) => format!("{digits}-"),
        }
    }

    /// The amount with its currency.
    pub(super) fn marked(&self, cents: i64) -> String {
        let (sign, amount) = match (self.place, self.bare(cents)) {
            (Place::SymbolBefore, amount) => match amount.strip_prefix('-') {
                Some(rest) => ("-", rest.to_owned()),
                None => ("", amount),
            },
            (_, amount) => ("", amount),
        };
        let (symbol, code) = (self.symbol, self.currency.code);
        match self.place {
            Place::SymbolBefore if symbol.ends_with(char::is_alphabetic) => {
                format!("{symbol} {sign}{amount}")
            }
            Place::SymbolBefore => format!("{sign}{symbol}{amount}"),
            Place::SymbolBeforeApart => format!("{symbol} {amount}"),
            Place::SymbolAfter => format!("{amount} {symbol}"),
            Place::CodeBefore => format!("{code} {amount}"),
            Place::CodeAfter => format!("{amount} {code}"),
        }
    }

    /// An amount in a row.
    pub(super) fn row(&self, cents: i64) -> String {
        if self.marked_rows {
            self.marked(cents)
        } else {
            self.bare(cents)
        }
    }

    /// A price in ten-thousandths, with as many decimals as it needs and at least two.
    pub(super) fn price(&self, e4: i64) -> String {
        if e4 % 100 == 0 {
            return self.row(e4 / 100);
        }
        let (whole, rest) = (e4.unsigned_abs() / 10_000, e4.unsigned_abs() % 10_000);
        let decimals = format!("{rest:04}");
        let sign = if e4 < 0 { "-" } else { "" };
        let decimals = decimals.trim_end_matches('0');
        format!("{sign}{}{}{decimals:0<3}", self.grouped(whole), self.point)
    }

    /// A quantity in thousandths.
    pub(super) fn quantity(&self, milli: i64, decimals: usize) -> String {
        let (whole, rest) = (milli.unsigned_abs() / 1_000, milli.unsigned_abs() % 1_000);
        let sign = if milli < 0 { "-" } else { "" };
        let whole = if whole >= 10_000 {
            self.grouped(whole)
        } else {
            whole.to_string()
        };
        if decimals == 0 {
            return format!("{sign}{whole}");
        }
        let rest = format!("{rest:03}");
        format!("{sign}{whole}{}{}", self.point, &rest[..decimals.min(3)])
    }

    fn grouped(&self, whole: u64) -> String {
        let digits = whole.to_string();
        let Some(mark) = self.thousands else {
            return digits;
        };
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                grouped.push(mark);
            }
            grouped.push(digit);
        }
        grouped
    }
}

/// An amount in cents as answers write it.
#[must_use]
pub(super) fn plain(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

/// A price in ten-thousandths as answers write it.
#[must_use]
pub(super) fn plain_price(e4: i64) -> String {
    if e4 % 100 == 0 {
        return plain(e4 / 100);
    }
    let sign = if e4 < 0 { "-" } else { "" };
    let e4 = e4.unsigned_abs();
    let decimals = format!("{:04}", e4 % 10_000);
    format!(
        "{sign}{}.{:0<3}",
        e4 / 10_000,
        decimals.trim_end_matches('0')
    )
}
