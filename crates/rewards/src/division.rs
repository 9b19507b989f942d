//! The division of a block's reward: the pool's fee, then each account by its weight, to the last millisatoshi.
//!
//! Whole msat by the largest remainder (Hamilton's method): no account is a whole msat away from its exact part.

use dovetail_units::Msat;

use crate::account::AccountId;
use crate::proportion::proportion;
use crate::weights::Weights;

/// What the pool keeps of a reward, in millionths: 0 to 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PoolFee(u32);

/// More than the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fee has at most 1,000,000 millionths")]
pub struct FeeTooHigh;

impl PoolFee {
    /// The pool works for nothing.
    pub const NONE: Self = Self(0);
    /// All of it.
    const WHOLE: u32 = 1_000_000;

    /// So many millionths.
    ///
    /// # Errors
    /// [`FeeTooHigh`].
    pub const fn from_millionths(millionths: u32) -> Result<Self, FeeTooHigh> {
        match millionths <= Self::WHOLE {
            true => Ok(Self(millionths)),
            false => Err(FeeTooHigh),
        }
    }

    /// The number of millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Of `reward` msat, rounded down: the miners have the rest.
    pub(crate) fn of(self, reward: u128) -> u128 {
        proportion(reward, self.0.into(), Self::WHOLE.into()).quotient
    }
}

/// What an account gets of a block; more than nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credit {
    /// Who gets it.
    pub account: AccountId,
    /// How much.
    pub amount: Msat,
}

/// A divided reward: the fee and the credits add up to it exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    /// The pool's part; perhaps nothing.
    pub fee: Msat,
    /// The miners' parts, in the order of the accounts' bytes. Accounts whose part is nothing are left out.
    pub credits: Vec<Credit>,
}

/// Why a reward cannot be divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DivisionError {
    /// Less than nothing.
    #[error("a reward is not negative")]
    Negative,
    /// The window holds no weight: no slice has closed yet. The first blocks of a pool are their finders'
    /// ([`to_finder`]).
    #[error("no account has weight")]
    NoWeight,
}

/// `reward` less the fee, over the accounts of a window by their weight: `p_i = floor(R w_i / W)`, and one msat more for
/// those with the largest remainders, among equals for the first by its bytes. The sum is exactly `reward`.
///
/// `R` has at most 63 bits and `w_i` at most 121, so their product need not fit 128 bits; it is never formed. O(accounts).
///
/// # Errors
/// [`DivisionError`].
pub fn by_weight(reward: Msat, fee: PoolFee, weights: &Weights) -> Result<Division, DivisionError> {
    let (fee, rest) = without_fee(reward, fee)?;
    if weights.is_empty() {
        return Err(DivisionError::NoWeight);
    }
    let total = weights.total().get();
    let mut parts: Vec<_> = weights
        .iter()
        .map(|(account, weight)| (account, proportion(rest, weight.get(), total)))
        .collect();
    let given: u128 = parts.iter().map(|(_, part)| part.quotient).sum();
    // The remainders add up to this many totals; each is less than one. So there are more accounts with a remainder.
    let left = usize::try_from(rest - given).expect("fewer than accounts");
    if left > 0 {
        parts.select_nth_unstable_by(left - 1, |(a, p), (b, q)| {
            q.remainder.cmp(&p.remainder).then_with(|| a.cmp(b))
        });
        for (_, part) in &mut parts[..left] {
            part.quotient += 1;
        }
        parts.sort_unstable_by_key(|(account, _)| *account);
    }
    let credits = parts
        .into_iter()
        .filter(|(_, part)| part.quotient > 0)
        .map(|(account, part)| Credit {
            account: account.clone(),
            amount: msat(part.quotient),
        })
        .collect();
    Ok(Division {
        fee: msat(fee),
        credits,
    })
}

/// `reward` less the fee to whoever found the block: solo mining, and a block before the first slice has closed.
///
/// # Errors
/// [`DivisionError::Negative`].
pub fn to_finder(
    reward: Msat,
    fee: PoolFee,
    finder: &AccountId,
) -> Result<Division, DivisionError> {
    let (fee, rest) = without_fee(reward, fee)?;
    let credit = Credit {
        account: finder.clone(),
        amount: msat(rest),
    };
    Ok(Division {
        fee: msat(fee),
        credits: Vec::from_iter((rest > 0).then_some(credit)),
    })
}

/// The fee, and the rest.
pub(crate) fn without_fee(reward: Msat, fee: PoolFee) -> Result<(u128, u128), DivisionError> {
    let reward = u128::try_from(reward.get()).map_err(|_| DivisionError::Negative)?;
    let fee = fee.of(reward);
    Ok((fee, reward - fee))
}

pub(crate) fn msat(amount: u128) -> Msat {
    Msat::new(i64::try_from(amount).expect("a part of an amount of 63 bits"))
}

#[cfg(test)]
mod tests;
