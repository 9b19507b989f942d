//! What work is worth: integer arithmetic from proven work and delivered tokens to millisatoshi.

use crate::config::CreditConfig;

/// Hash credit in msat for `work` expected hashes, rounded down. Saturates at `i64::MAX`, which
/// the ledger then refuses: no honest share comes near.
pub(crate) fn for_hashes(rates: &CreditConfig, work: u128) -> i64 {
    let rate = u128::try_from(rates.hash_msat_per_mebihash).unwrap_or(0);
    let msat = work.saturating_mul(rate) >> 20;
    i64::try_from(msat).unwrap_or(i64::MAX)
}

/// Scales a declared job's hash credit by what its coinbase pays the pool, against what the
/// pool's own template would: `credit * min(paid, reference) / reference`.
pub(crate) fn for_declared(credit_msat: i64, paid_sat: u64, reference_sat: u64) -> i64 {
    if reference_sat == 0 {
        return credit_msat;
    }
    let paid = u128::from(paid_sat.min(reference_sat));
    let credit = u128::try_from(credit_msat).unwrap_or(0);
    let scaled = credit.saturating_mul(paid) / u128::from(reference_sat);
    i64::try_from(scaled).unwrap_or(credit_msat)
}

/// Inference credit in msat for `tokens` output tokens.
pub(crate) fn for_tokens(rates: &CreditConfig, tokens: u64) -> i64 {
    i64::try_from(tokens)
        .unwrap_or(i64::MAX)
        .saturating_mul(rates.inference_msat_per_token.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: CreditConfig = CreditConfig {
        hash_msat_per_mebihash: 3,
        inference_msat_per_token: 50,
    };

    #[test]
    fn a_mebihash_earns_the_rate() {
        assert_eq!(for_hashes(&RATES, 1 << 20), 3);
        assert_eq!(for_hashes(&RATES, (1 << 20) - 1), 2);
        assert_eq!(for_hashes(&RATES, 0), 0);
        assert_eq!(for_tokens(&RATES, 4), 200);
    }

    #[test]
    fn a_coinbase_that_pays_half_earns_half_and_one_that_pays_double_earns_no_more() {
        assert_eq!(for_declared(100, 25, 50), 50);
        assert_eq!(for_declared(100, 100, 50), 100);
        assert_eq!(for_declared(100, 0, 50), 0);
    }

    proptest! {
        #[test]
        fn credit_never_overflows_and_never_shrinks_with_work(a: u128, b: u128) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(for_hashes(&RATES, less) <= for_hashes(&RATES, more));
            prop_assert!(for_hashes(&RATES, more) >= 0);
        }

        #[test]
        fn a_declared_job_never_earns_more_than_its_hashes(c in 0..i64::MAX, paid: u64, reference: u64) {
            let scaled = for_declared(c, paid, reference);
            prop_assert!((0..=c).contains(&scaled));
        }
    }
}
