//! How long everything about a payout takes, and what it may cost.

use std::time::Duration;

use dovetail_ledger::{AttemptState, FeesBorneBy};
use dovetail_units::Msat;

use crate::config::LightningConfig;

/// An open attempt is looked at after this, and then ever more seldom ..
const OPEN_CHECK_MIN: Duration = Duration::from_millis(200);
/// .. up to this.
const OPEN_CHECK_MAX: Duration = Duration::from_secs(60);
/// One in review too: a wallet may come to know, once it is repaired.
const REVIEW_CHECK: Duration = Duration::from_secs(3_600);
/// For how long a success of a failed attempt is looked for. No payment is on its way for longer: a route's locks end
/// after two weeks at the most (2,016 blocks, which is what nodes accept).
const LATE_MAX: Duration = Duration::from_secs(14 * 86_400);
/// A part of the amount that a route may cost, besides a satoshi: 0.5 %.
const FEE_PART: i64 = 200;
const FEE_BASE_MSAT: i64 = 1_000;

/// How fast it goes. Tests are faster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// How long a payee waits after the first failure; twice as long after each further one.
    pub(crate) backoff: Duration,
    /// For how long what this process works on is nobody else's. Longer than a worker or a host may take for an invoice and
    /// a wallet for an answer.
    pub(crate) lease: Duration,
    /// How long a worker may take to make an invoice.
    pub(crate) invoice_time_max: Duration,
    /// An invoice has to live for this long when it comes: time to find a route, to fail, and to be tried again.
    pub(crate) invoice_life_min: Duration,
    /// One that a host of a Lightning address gives for this long: many live for a minute or a few.
    pub(crate) fetched_life_min: Duration,
    /// And for this long when it is tried again.
    pub(crate) retry_life_min: Duration,
    /// An invoice is not tried for longer than this, however long it lives: a payee that has no use for it any more is asked
    /// for another one.
    pub(crate) invoice_life_max: Duration,
    /// For how long an offer is tried before its payout is given up and another one begins.
    pub(crate) offer_life: Duration,
    /// An attempt that the wallet has not heard of is given up this long after its invoice or offer has ended: the wallet
    /// may still hold our request.
    pub(crate) unheard: Duration,
}

impl Pace {
    pub(crate) fn of(config: &LightningConfig) -> Self {
        Self {
            backoff: Duration::from_millis(config.retry_base_ms),
            lease: Duration::from_secs(60),
            invoice_time_max: Duration::from_secs(10),
            invoice_life_min: Duration::from_secs(600),
            fetched_life_min: Duration::from_secs(30),
            retry_life_min: Duration::from_secs(60),
            // As long as most wallets' invoices live.
            invoice_life_max: Duration::from_secs(86_400),
            offer_life: Duration::from_secs(3_600),
            unheard: Duration::from_secs(600),
        }
    }
}

/// When an attempt is looked at next; `None`: never.
pub(super) fn next_check(state: AttemptState, age: Duration) -> Option<Duration> {
    match state {
        AttemptState::Prepared | AttemptState::Dispatched => {
            Some((age / 2).clamp(OPEN_CHECK_MIN, OPEN_CHECK_MAX))
        }
        AttemptState::Review => Some(REVIEW_CHECK),
        AttemptState::Failed => (age < LATE_MAX).then_some(age.max(Duration::from_secs(10))),
        AttemptState::Succeeded => None,
    }
}

/// What a route may cost for this amount.
pub(super) fn fee_max(config: &LightningConfig, amount_msat: i64) -> i64 {
    config
        .fee_max_msat
        .min(FEE_BASE_MSAT + amount_msat / FEE_PART)
}

/// What a payee with this balance gets, in whole satoshi, and what its route may cost; `None` if nothing is left of it.
pub(super) fn amount(config: &LightningConfig, available: Msat) -> Option<(Msat, Msat)> {
    let most = available.get().min(config.payout_max_msat);
    let fee_max = fee_max(config, most);
    let borne = match config.fees_borne_by {
        FeesBorneBy::Pool => 0,
        FeesBorneBy::Payee => fee_max,
    };
    let amount = (most - borne) / 1_000 * 1_000;
    (amount > 0).then(|| (Msat::new(amount), Msat::new(fee_max)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(fees_borne_by: FeesBorneBy) -> LightningConfig {
        LightningConfig {
            fees_borne_by,
            ..LightningConfig::default()
        }
    }

    #[test]
    fn a_route_may_cost_a_satoshi_and_half_a_percent_up_to_the_cap() {
        let config = config(FeesBorneBy::Pool);
        assert_eq!(fee_max(&config, 10_000), 1_050);
        assert_eq!(fee_max(&config, 100_000), 1_500);
        assert_eq!(fee_max(&config, 100_000_000), config.fee_max_msat);
    }

    #[test]
    fn what_is_paid_and_what_it_may_cost_are_never_more_than_the_balance() {
        let pays = |by, msat| {
            amount(&config(by), Msat::new(msat)).map(|(amount, fee)| (amount.get(), fee.get()))
        };
        assert_eq!(pays(FeesBorneBy::Pool, 10_999), Some((10_000, 1_054)));
        assert_eq!(pays(FeesBorneBy::Payee, 10_999), Some((9_000, 1_054)));
        assert_eq!(pays(FeesBorneBy::Payee, 1_900), None);
        for msat in (0..2_000_000).step_by(777) {
            if let Some((amount, fee)) = pays(FeesBorneBy::Payee, msat) {
                assert!(amount + fee <= msat, "{msat}");
            }
        }
    }

    #[test]
    fn attempts_are_looked_at_ever_more_seldom_and_failed_ones_for_two_weeks() {
        let open = |s: u64| next_check(AttemptState::Dispatched, Duration::from_secs(s)).unwrap();
        assert_eq!(open(0), OPEN_CHECK_MIN);
        assert_eq!(open(20), Duration::from_secs(10));
        assert_eq!(open(86_400), OPEN_CHECK_MAX);
        let mut age = Duration::ZERO;
        let mut looked = 0;
        while let Some(wait) = next_check(AttemptState::Failed, age) {
            age += wait;
            looked += 1;
        }
        assert!((15..=20).contains(&looked), "{looked}");
        assert_eq!(next_check(AttemptState::Succeeded, Duration::ZERO), None);
    }
}
