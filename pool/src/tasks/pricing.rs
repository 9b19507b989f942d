//! What tasks cost, and the proof that one is paid for. Nothing is admitted without a [`Paid`].

use std::time::Duration;

use dovetail_units::Msat;

/// How long a quote holds. Prices only change with the configuration.
pub(super) const QUOTE_VALIDITY: Duration = Duration::from_secs(60);

/// The pool's prices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prices {
    free_of_charge: bool,
}

impl Prices {
    /// The prices of a pool that works for nothing, or of one that cannot take payments yet.
    pub(crate) fn new(free_of_charge: bool) -> Self {
        Self { free_of_charge }
    }

    /// The price of one output token.
    pub(crate) fn per_token(self) -> Msat {
        Msat::ZERO
    }

    /// The price of a task of so many output tokens.
    pub(super) fn of_tokens(self, tokens: u32) -> Msat {
        Msat::new(self.per_token().get().saturating_mul(i64::from(tokens)))
    }
}

/// What a task would cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quote {
    pub(crate) id: [u8; 32],
    /// The whole task at most.
    pub(crate) price_max: Msat,
    pub(crate) price_per_token: Msat,
    /// Until when it holds, since 1970.
    pub(crate) expires_at: Duration,
}

/// This pool does not work for nothing, and the task is not paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this pool does not work free of charge")]
pub(crate) struct PaymentRequired;

/// The proof that a task is paid for. Only the functions here make one.
#[derive(Debug)]
pub(crate) struct Paid {
    price: Msat,
}

impl Paid {
    /// A task that costs nothing, where the pool works free of charge.
    ///
    /// # Errors
    /// [`PaymentRequired`] where it does not.
    pub(crate) fn free_of_charge(prices: Prices) -> Result<Self, PaymentRequired> {
        if !prices.free_of_charge {
            return Err(PaymentRequired);
        }
        Ok(Self { price: Msat::ZERO })
    }

    /// What was paid.
    pub(super) fn price(&self) -> Msat {
        self.price
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_asks_for_payment_admits_nothing_for_nothing() {
        assert_eq!(
            Paid::free_of_charge(Prices::new(false)).unwrap_err(),
            PaymentRequired
        );
        let paid = Paid::free_of_charge(Prices::new(true)).unwrap();
        assert_eq!(paid.price(), Msat::ZERO);
    }
}
