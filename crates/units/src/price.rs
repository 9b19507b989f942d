//! What tokens cost.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Msat;

/// What a model's tokens cost, in millisatoshi for a million of them. The prices of any number of tokens below 2^32 fit
/// [`Msat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct TokenPrices {
    input: u64,
    output: u64,
}

/// As configurations and the ledger write them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    input_msat_per_million: u64,
    output_msat_per_million: u64,
}

/// A price above [`TokenPrices::PER_MILLION_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceTooHigh;

impl fmt::Display for PriceTooHigh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a million tokens cost at most {} msat",
            TokenPrices::PER_MILLION_MAX
        )
    }
}

impl std::error::Error for PriceTooHigh {}

impl TokenPrices {
    /// A million satoshi for a token. With it 2^32 input and as many output tokens cost less than 2^63 msat.
    pub const PER_MILLION_MAX: u64 = 1_000_000_000_000_000;

    /// Tokens that cost nothing.
    pub const FREE: Self = Self {
        input: 0,
        output: 0,
    };

    /// These prices, in msat for a million tokens.
    ///
    /// # Errors
    /// [`PriceTooHigh`].
    pub fn new(
        input_msat_per_million: u64,
        output_msat_per_million: u64,
    ) -> Result<Self, PriceTooHigh> {
        if input_msat_per_million.max(output_msat_per_million) > Self::PER_MILLION_MAX {
            return Err(PriceTooHigh);
        }
        Ok(Self {
            input: input_msat_per_million,
            output: output_msat_per_million,
        })
    }

    /// Of a million input tokens, in msat.
    pub const fn input_msat_per_million(self) -> u64 {
        self.input
    }

    /// Of a million output tokens, in msat.
    pub const fn output_msat_per_million(self) -> u64 {
        self.output
    }

    /// What so many tokens cost together: `ceil((in * p_in + out * p_out) / 10^6)`.
    pub fn of(self, input_tokens: u32, output_tokens: u32) -> Msat {
        let input = u128::from(input_tokens) * u128::from(self.input);
        let output = u128::from(output_tokens) * u128::from(self.output);
        let msat = (input + output).div_ceil(1_000_000);
        Msat::new(i64::try_from(msat).expect("prices are at most PER_MILLION_MAX"))
    }
}

impl TryFrom<Fields> for TokenPrices {
    type Error = PriceTooHigh;

    fn try_from(fields: Fields) -> Result<Self, PriceTooHigh> {
        Self::new(
            fields.input_msat_per_million,
            fields.output_msat_per_million,
        )
    }
}

impl From<TokenPrices> for Fields {
    fn from(prices: TokenPrices) -> Self {
        Self {
            input_msat_per_million: prices.input,
            output_msat_per_million: prices.output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_rounded_up_once_over_input_and_output() {
        let prices = TokenPrices::new(400_000, 2_000_000).unwrap();
        assert_eq!(prices.of(0, 0), Msat::ZERO);
        assert_eq!(prices.of(1, 0), Msat::new(1));
        assert_eq!(prices.of(1, 1), Msat::new(3));
        assert_eq!(prices.of(5, 1), Msat::new(4));
        assert_eq!(TokenPrices::FREE.of(u32::MAX, u32::MAX), Msat::ZERO);
    }

    #[test]
    fn the_highest_prices_of_the_most_tokens_fit_and_higher_ones_are_refused() {
        let most = TokenPrices::PER_MILLION_MAX;
        let prices = TokenPrices::new(most, most).unwrap();
        let tokens = i64::from(u32::MAX);
        assert_eq!(
            prices.of(u32::MAX, u32::MAX),
            Msat::new(2 * tokens * 1_000_000_000)
        );
        assert_eq!(TokenPrices::new(most + 1, 0), Err(PriceTooHigh));
        assert_eq!(TokenPrices::new(0, most + 1), Err(PriceTooHigh));
    }
}
