//! What work is worth: integer arithmetic from proven work to millisatoshi.

use dovetail_units::{Msat, Work};

use crate::config::CreditConfig;

/// Hash credit in msat for `work` expected hashes, rounded down. Saturates at `i64::MAX`, which
/// the ledger then refuses: no honest share comes near.
pub(crate) fn for_hashes(rates: &CreditConfig, work: Work) -> Msat {
    let rate = u128::try_from(rates.hash_msat_per_mebihash).unwrap_or(0);
    let msat = work.get().saturating_mul(rate) >> 20;
    Msat::new(i64::try_from(msat).unwrap_or(i64::MAX))
}

/// Scales a declared job's hash credit by what its coinbase pays the pool, against what the
/// pool's own template would: `credit * min(paid, reference) / reference`.
pub(crate) fn for_declared(credit: Msat, paid_sat: u64, reference_sat: u64) -> Msat {
    if reference_sat == 0 {
        return credit;
    }
    let paid = u128::from(paid_sat.min(reference_sat));
    let whole = u128::try_from(credit.get()).unwrap_or(0);
    let scaled = whole.saturating_mul(paid) / u128::from(reference_sat);
    i64::try_from(scaled).map_or(credit, Msat::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: CreditConfig = CreditConfig {
        hash_msat_per_mebihash: 3,
    };

    fn hashes(work: u128) -> Msat {
        for_hashes(&RATES, Work::new(work))
    }

    #[test]
    fn a_mebihash_earns_the_rate() {
        assert_eq!(hashes(1 << 20), Msat::new(3));
        assert_eq!(hashes((1 << 20) - 1), Msat::new(2));
        assert_eq!(hashes(0), Msat::ZERO);
    }

    #[test]
    fn a_coinbase_that_pays_half_earns_half_and_one_that_pays_double_earns_no_more() {
        let earned = |paid_sat| for_declared(Msat::new(100), paid_sat, 50).get();
        assert_eq!(earned(25), 50);
        assert_eq!(earned(100), 100);
        assert_eq!(earned(0), 0);
    }

    proptest! {
        #[test]
        fn credit_never_overflows_and_never_shrinks_with_work(a: u128, b: u128) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(hashes(less) <= hashes(more));
            prop_assert!(hashes(more) >= Msat::ZERO);
        }

        #[test]
        fn a_declared_job_never_earns_more_than_its_hashes(c in 0..i64::MAX, paid: u64, reference: u64) {
            let scaled = for_declared(Msat::new(c), paid, reference).get();
            prop_assert!((0..=c).contains(&scaled));
        }
    }
}
