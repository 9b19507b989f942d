//! The one division that money and weights are computed with: `whole * part / total`, exactly, whatever its product.

/// The largest total: twice a remainder and a part more must fit 128 bits.
pub(crate) const TOTAL_MAX: u128 = (1 << 126) - 1;

/// What [`proportion`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proportion {
    /// `floor(whole * part / total)`.
    pub(crate) quotient: u128,
    /// What the division leaves, below `total`.
    pub(crate) remainder: u128,
}

/// `whole * part / total` with its remainder. The product may have 254 bits, so it is never formed: the quotient is made
/// bit by bit, from the top of `whole`. That takes at most 128 steps, and as many as `whole` has bits.
///
/// # Panics
/// If `part` exceeds `total`, or `total` is 0 or above [`TOTAL_MAX`]. Callers' types exclude it.
pub(crate) fn proportion(whole: u128, part: u128, total: u128) -> Proportion {
    assert!(
        part <= total && (1..=TOTAL_MAX).contains(&total),
        "a part of a total"
    );
    let (mut quotient, mut remainder) = (0, 0);
    for bit in (0..u128::BITS - whole.leading_zeros()).rev() {
        // Of the bits so far, `prefix * part = quotient * total + remainder`. As part <= total, the quotient is at
        // most the prefix; as remainder < total < 2^126, the next remainder is below 3 * 2^126.
        quotient *= 2;
        remainder = 2 * remainder + part * (whole >> bit & 1);
        while remainder >= total {
            remainder -= total;
            quotient += 1;
        }
    }
    Proportion {
        quotient,
        remainder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `a * b` in two halves, by schoolbook over 64 bits: another way to the same numbers.
    fn product(a: u128, b: u128) -> (u128, u128) {
        let halves = |n: u128| (n >> 64, n & u128::from(u64::MAX));
        let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
        let middle = a1 * b0;
        let (middle, carried) = middle.overflowing_add(a0 * b1);
        let (low, carry) = (a0 * b0).overflowing_add(middle << 64);
        let high = a1 * b1 + (middle >> 64) + (u128::from(carried) << 64) + u128::from(carry);
        (high, low)
    }

    fn any_size() -> impl Strategy<Value = u128> {
        (any::<u128>(), 0_u32..128).prop_map(|(bits, shift)| bits >> shift)
    }

    #[test]
    fn the_largest_numbers_are_divided_exactly() {
        let all = proportion(u128::MAX, TOTAL_MAX, TOTAL_MAX);
        assert_eq!((all.quotient, all.remainder), (u128::MAX, 0));
        let none = proportion(u128::MAX, 0, TOTAL_MAX);
        assert_eq!((none.quotient, none.remainder), (0, 0));
        let most = proportion(u128::MAX, TOTAL_MAX - 1, TOTAL_MAX);
        // 2^128 - 1 = 4 * total + 3, so the product is u128::MAX * total - (4 * total + 3).
        assert_eq!(
            (most.quotient, most.remainder),
            (u128::MAX - 5, TOTAL_MAX - 3)
        );
    }

    proptest! {
        #[test]
        fn quotient_and_remainder_make_up_the_product(whole in any_size(), a in any_size(), b in any_size()) {
            let (part, total) = ((a >> 2).min(b >> 2), (a >> 2).max(b >> 2).max(1));
            let found = proportion(whole, part, total);
            prop_assert!(found.remainder < total);
            let (high, low) = product(found.quotient, total);
            let (low, carry) = low.overflowing_add(found.remainder);
            prop_assert_eq!((high + u128::from(carry), low), product(whole, part));
        }

        #[test]
        fn small_numbers_are_divided_as_the_machine_does(whole: u64, a: u64, b: u64) {
            let [whole, part, total] = [whole, a.min(b), a.max(b).max(1)].map(u128::from);
            let found = proportion(whole, part, total);
            prop_assert_eq!(found.quotient, whole * part / total);
            prop_assert_eq!(found.remainder, whole * part % total);
        }
    }
}
