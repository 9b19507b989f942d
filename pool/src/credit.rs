//! What work is worth: integer arithmetic from proven work to parts of a millisatoshi.

use dovetail_units::{ShareCredit, Work};

use crate::config::CreditConfig;

/// Hash credit for `work` expected hashes, to the last part of a millisatoshi. Saturates at [`ShareCredit::MAX`]: no honest
/// share comes near.
pub(crate) fn for_hashes(rates: &CreditConfig, work: Work) -> ShareCredit {
    let rate = u128::from(rates.hash_msat_per_mebihash.get());
    ShareCredit::new(work.get().saturating_mul(rate))
}

/// Scales a declared job's hash credit by what its coinbase pays the pool, against what the
/// pool's own template would: `credit * min(paid, reference) / reference`, rounded down.
pub(crate) fn for_declared(credit: ShareCredit, paid_sat: u64, reference_sat: u64) -> ShareCredit {
    if reference_sat == 0 {
        return credit;
    }
    let (paid, reference) = (
        u128::from(paid_sat.min(reference_sat)),
        u128::from(reference_sat),
    );
    // Neither product is larger than a credit or two numbers of 64 bits.
    let whole = credit.get() / reference * paid;
    let rest = credit.get() % reference * paid / reference;
    ShareCredit::new(whole + rest)
}

#[cfg(test)]
mod tests {
    use dovetail_units::Msat;
    use proptest::prelude::*;

    use super::*;
    use crate::config::HashRate;

    const RATES: CreditConfig = CreditConfig {
        hash_msat_per_mebihash: HashRate::whole(3),
        settle_interval_s: 0,
    };

    fn hashes(work: u128) -> ShareCredit {
        for_hashes(&RATES, Work::new(work))
    }

    #[test]
    fn a_mebihash_earns_the_rate_and_one_hash_its_part() {
        assert_eq!(hashes(1 << 20), Msat::new(3).into());
        assert_eq!(hashes(1).get(), 3_000_000_000_000);
        assert_eq!(hashes(0), ShareCredit::ZERO);
    }

    #[test]
    fn a_coinbase_that_pays_half_earns_half_and_one_that_pays_double_earns_no_more() {
        let earned = |paid_sat| for_declared(Msat::new(100).into(), paid_sat, 50).to_msat();
        assert_eq!(earned(25), Msat::new(50));
        assert_eq!(earned(100), Msat::new(100));
        assert_eq!(earned(0), Msat::ZERO);
    }

    proptest! {
        #[test]
        fn credit_never_overflows_and_never_shrinks_with_work(a: u128, b: u128) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(hashes(less) <= hashes(more));
            prop_assert!(hashes(more) <= ShareCredit::MAX);
        }

        #[test]
        fn a_declared_job_never_earns_more_than_its_hashes(
            credit in 0..=ShareCredit::MAX.get(), paid: u64, reference: u64,
        ) {
            let credit = ShareCredit::new(credit);
            prop_assert!(for_declared(credit, paid, reference) <= credit);
        }
    }
}
