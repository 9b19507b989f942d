//! What a transaction costs, and whose cost it is.

use bitcoin::{Amount, FeeRate, Weight};

/// Divides what a transaction costs over its payments, each the same: the parts add up to `fee`, and the first ones are a
/// satoshi larger where it does not come out even. Empty if there are none.
pub fn fee_shares(fee: Amount, payments: usize) -> Vec<Amount> {
    let Ok(count) = u64::try_from(payments) else {
        return Vec::new();
    };
    if count == 0 {
        return Vec::new();
    }
    let (share, rest) = (fee.to_sat() / count, fee.to_sat() % count);
    (0..count)
        .map(|place| Amount::from_sat(share + u64::from(place < rest)))
        .collect()
}

/// What `weight` costs at this rate, as nodes reckon it: by whole virtual bytes, and rounded up.
pub(crate) fn fee_of(rate: FeeRate, weight: Weight) -> Option<Amount> {
    rate.fee_vb(weight.to_vbytes_ceil())
}

/// A rate as a node says it, in BTC for 1,000 virtual bytes; `None` if it is none.
pub fn fee_rate_from_btc_per_kvb(btc: f64) -> Option<FeeRate> {
    let per_kvb = Amount::from_btc(btc).ok()?;
    // A virtual byte is four weight units; rounded up, so that it is not below what the node asks.
    Some(FeeRate::from_sat_per_kwu(per_kvb.to_sat().div_ceil(4)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shares_add_up_and_differ_by_a_satoshi_at_most(fee in 0_u64..10_000_000, payments in 1_usize..1_000) {
            let shares = fee_shares(Amount::from_sat(fee), payments);
            prop_assert_eq!(shares.len(), payments);
            prop_assert_eq!(shares.iter().copied().sum::<Amount>().to_sat(), fee);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            prop_assert!(most.to_sat() - least.to_sat() <= 1);
        }
    }

    #[test]
    fn nobody_bears_the_fee_of_nothing() {
        assert_eq!(fee_shares(Amount::from_sat(5), 0), Vec::new());
        assert_eq!(
            fee_shares(Amount::from_sat(5), 3),
            [2, 2, 1].map(Amount::from_sat)
        );
    }

    #[test]
    fn a_nodes_rate_is_read_in_the_units_of_the_library() {
        let kwu = |btc| fee_rate_from_btc_per_kvb(btc).map(FeeRate::to_sat_per_kwu);
        // 1 and 0.1 sat/vB.
        assert_eq!(kwu(0.000_01), Some(250));
        assert_eq!(kwu(0.000_001), Some(25));
        assert_eq!(kwu(0.000_010_01), Some(251));
        assert_eq!(kwu(-1.0), None);
        assert_eq!(kwu(f64::NAN), None);
    }

    #[test]
    fn a_fee_is_reckoned_by_whole_virtual_bytes() {
        let rate = FeeRate::from_sat_per_kwu(250);
        let fee = |wu| fee_of(rate, Weight::from_wu(wu)).map(Amount::to_sat);
        assert_eq!(fee(400), Some(100));
        assert_eq!(fee(401), Some(101));
        // No transaction weighs as much as would overflow, but a rate may be anything.
        assert_eq!(fee_of(FeeRate::MAX, Weight::from_wu(4_000_000)), None);
    }
}
