//! Amounts in cents, currencies, and the ways in which documents write them.

use crate::rng::Rng;

/// A currency of two decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Currency {
    /// ISO 4217, as answers write it.
    pub code: &'static str,
    /// What people write instead, which names this currency and no other in these documents.
    pub symbol: &'static str,
}

const CURRENCIES: [Currency; 6] = [
    Currency {
        code: "EUR",
        symbol: "€",
    },
    Currency {
        code: "USD",
        symbol: "$",
    },
    Currency {
        code: "GBP",
        symbol: "£",
    },
    Currency {
        code: "CHF",
        symbol: "Fr.",
    },
    Currency {
        code: "PLN",
        symbol: "zł",
    },
    Currency {
        code: "SEK",
        symbol: "kr",
    },
];

impl Currency {
    /// One of the currencies.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        CURRENCIES[rng.index(CURRENCIES.len())]
    }
}

/// Where a document puts the currency of an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    SymbolBefore,
    SymbolAfter,
    CodeBefore,
    CodeAfter,
}

/// How a document writes amounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MoneyStyle {
    currency: Currency,
    place: Place,
    decimal_comma: bool,
    thousands: Option<char>,
    /// Whether single prices name the currency too, and not only the total.
    pub marked_prices: bool,
}

impl MoneyStyle {
    /// A style for amounts of that currency.
    pub(crate) fn draw(rng: &mut Rng, currency: Currency) -> Self {
        let places = [
            Place::SymbolBefore,
            Place::SymbolAfter,
            Place::CodeBefore,
            Place::CodeAfter,
        ];
        let decimal_comma = rng.chance(45);
        let thousands = match (rng.below(3), decimal_comma) {
            (0, _) => None,
            (1, true) => Some('.'),
            (1, false) => Some(','),
            _ => Some(if decimal_comma { ' ' } else { '\'' }),
        };
        Self {
            currency,
            place: places[rng.index(places.len())],
            decimal_comma,
            thousands,
            marked_prices: rng.chance(35),
        }
    }

    /// The amount alone.
    #[must_use]
    pub(crate) fn bare(self, cents: u32) -> String {
        let (whole, rest) = (cents / 100, cents % 100);
        let point = if self.decimal_comma { ',' } else { '.' };
        match self.thousands {
            Some(mark) if whole >= 1000 => {
                format!("{}{mark}{:03}{point}{rest:02}", whole / 1000, whole % 1000)
            }
            _ => format!("{whole}{point}{rest:02}"),
        }
    }

    /// The amount with its currency.
    #[must_use]
    pub(crate) fn marked(self, cents: u32) -> String {
        let amount = self.bare(cents);
        let Currency { code, symbol } = self.currency;
        match self.place {
            Place::SymbolBefore if symbol.chars().count() == 1 => format!("{symbol}{amount}"),
            Place::SymbolBefore => format!("{symbol} {amount}"),
            Place::SymbolAfter => format!("{amount} {symbol}"),
            Place::CodeBefore => format!("{code} {amount}"),
            Place::CodeAfter => format!("{amount} {code}"),
        }
    }

    /// A price in a row of items.
    #[must_use]
    pub(crate) fn price(self, cents: u32) -> String {
        if self.marked_prices {
            self.marked(cents)
        } else {
            self.bare(cents)
        }
    }
}

/// An amount as answers write it: digits, a point, two digits.
#[must_use]
pub(crate) fn plain(cents: u32) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
