//! A transaction that pays a batch, and one that replaces it. A replacement spends all that the earlier one spends, so that
//! only one of them can ever be in the chain, and pays the same: its fee comes out of the change.

use bitcoin::{
    Amount, FeeRate, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight,
    absolute, transaction,
};

use crate::fees::fee_of;
use crate::keys::WalletKeys;

/// The most inputs of one transaction: it weighs a third of what nodes pass on.
const INPUTS_MAX: usize = 500;

/// An output of the wallet's that a confirmed transaction made and that nothing has spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coin {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it is.
    pub output: TxOut,
}

/// What one payee gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its script.
    pub script: ScriptBuf,
    /// How much.
    pub amount: Amount,
}

/// What a replacement replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// What the earlier transaction costs.
    pub fee: Amount,
    /// What nodes ask besides, for passing the new one on (BIP 125, rule 4).
    pub incremental: FeeRate,
}

/// What a transaction is asked to do.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What it pays. The outputs come first, in this order.
    pub payments: &'a [Payment],
    /// What it must spend.
    pub required: &'a [Coin],
    /// What it may spend besides.
    pub spare: &'a [Coin],
    /// Where the rest goes.
    pub change: &'a Script,
    /// What it pays for its size.
    pub fee_rate: FeeRate,
    /// What it may cost in all.
    pub fee_max: Amount,
    /// What it replaces.
    pub replaces: Option<Replaced>,
}

/// A signed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    /// It.
    pub transaction: Transaction,
    /// What it costs.
    pub fee: Amount,
}

/// Why there is no such transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The wallet has not enough.
    #[error("the wallet has {has} in coins that may be spent, and {needs} are needed")]
    NotEnough {
        /// What there is.
        has: Amount,
        /// What it takes, at least.
        needs: Amount,
    },
    /// It would cost more than may be.
    #[error("it would cost {fee}, and at most {fee_max} may be spent on it")]
    TooCostly {
        /// What it would cost.
        fee: Amount,
        /// What it may.
        fee_max: Amount,
    },
    /// It would need too many coins.
    #[error("it would need more than {INPUTS_MAX} coins: join some of the wallet's")]
    TooManyCoins,
    /// An amount is out of range.
    #[error("an amount is out of range")]
    Amount,
    /// The wallet could not sign: a coin is not its own.
    #[error("the wallet cannot sign for one of the coins")]
    NotSigned,
}

/// What an output to this script must have, or nodes do not pass its transaction on.
pub fn dust_limit(script: &Script) -> Amount {
    script.minimal_non_dust()
}

/// Makes and signs it: the required coins, and of the spare ones the largest that it takes.
///
/// # Errors
/// [`ComposeError`].
pub fn compose(keys: &WalletKeys, request: &Request<'_>) -> Result<Composed, ComposeError> {
    let mut coins: Vec<&Coin> = request.required.iter().collect();
    let mut spare: Vec<&Coin> = request
        .spare
        .iter()
        .filter(|coin| {
            let is_there = |other: &Coin| other.outpoint == coin.outpoint;
            !request.required.iter().any(is_there)
        })
        .collect();
    // The largest last, where they are taken from. The place on the chain makes the choice the same each time.
    spare.sort_by_key(|coin| (coin.output.value, coin.outpoint));
    let paid = sum(request.payments.iter().map(|payment| payment.amount))?;
    loop {
        if coins.len() > INPUTS_MAX {
            return Err(ComposeError::TooManyCoins);
        }
        let has = sum(coins.iter().map(|coin| coin.output.value))?;
        match balance(keys, request, coins.len(), has, paid)? {
            Balance::Fits { fee, change } => {
                if fee > request.fee_max {
                    // What is left over may be what makes it costly: with another coin it becomes change.
                    if change.is_none()
                        && let Some(coin) = spare.pop()
                    {
                        coins.push(coin);
                        continue;
                    }
                    return Err(ComposeError::TooCostly {
                        fee,
                        fee_max: request.fee_max,
                    });
                }
                return finish(keys, request, &coins, fee, change);
            }
            Balance::Short { needs } => match spare.pop() {
                Some(coin) => coins.push(coin),
                None => return Err(ComposeError::NotEnough { has, needs }),
            },
        }
    }
}

fn sum(mut amounts: impl Iterator<Item = Amount>) -> Result<Amount, ComposeError> {
    amounts
        .try_fold(Amount::ZERO, Amount::checked_add)
        .ok_or(ComposeError::Amount)
}

enum Balance {
    Fits { fee: Amount, change: Option<Amount> },
    Short { needs: Amount },
}

/// Whether what so many coins have is enough.
fn balance(
    keys: &WalletKeys,
    request: &Request<'_>,
    coins: usize,
    has: Amount,
    paid: Amount,
) -> Result<Balance, ComposeError> {
    let fee = |change: bool| {
        let weight = weight(keys, request, coins, change);
        let fee = fee_of(request.fee_rate, weight)?;
        let Some(replaced) = request.replaces else {
            return Some(fee);
        };
        let passed_on = fee_of(replaced.incremental, weight)?;
        Some(fee.max(replaced.fee.checked_add(passed_on)?))
    };
    let with_change = fee(true).ok_or(ComposeError::Amount)?;
    let without = fee(false).ok_or(ComposeError::Amount)?;
    let needs = |fee: Amount| paid.checked_add(fee).ok_or(ComposeError::Amount);
    let rest = has.checked_sub(needs(with_change)?);
    if let Some(change) = rest
        && change >= dust_limit(request.change)
    {
        return Ok(Balance::Fits {
            fee: with_change,
            change: Some(change),
        });
    }
    // What is too little to be an output goes to whoever mines it.
    match has.checked_sub(needs(without)?) {
        Some(left) => Ok(Balance::Fits {
            fee: without.checked_add(left).ok_or(ComposeError::Amount)?,
            change: None,
        }),
        None => Ok(Balance::Short {
            needs: needs(without)?,
        }),
    }
}

/// What a transaction of so many coins weighs at most.
fn weight(keys: &WalletKeys, request: &Request<'_>, coins: usize, change: bool) -> Weight {
    let unsigned = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: Vec::new(),
        output: outputs(request, change.then_some(Amount::ZERO)),
    };
    // Two bytes for the marker and the flag of SegWit, and for the number of inputs two more than the one of none.
    let overhead = Weight::from_wu(2) + Weight::from_vb_unwrap(2);
    let inputs = u64::try_from(coins).unwrap_or(u64::MAX);
    let inputs = keys.input_weight().to_wu().saturating_mul(inputs);
    unsigned.weight() + overhead + Weight::from_wu(inputs)
}

fn outputs(request: &Request<'_>, change: Option<Amount>) -> Vec<TxOut> {
    let paid = request.payments.iter().map(|payment| TxOut {
        value: payment.amount,
        script_pubkey: payment.script.clone(),
    });
    let change = change.map(|value| TxOut {
        value,
        script_pubkey: request.change.to_owned(),
    });
    paid.chain(change).collect()
}

fn finish(
    keys: &WalletKeys,
    request: &Request<'_>,
    coins: &[&Coin],
    fee: Amount,
    change: Option<Amount>,
) -> Result<Composed, ComposeError> {
    let unsigned = Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                // BIP 125: it may be replaced.
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect(),
        output: outputs(request, change),
    };
    let spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
    let transaction = keys
        .sign(unsigned, &spent)
        .map_err(|_| ComposeError::NotSigned)?;
    Ok(Composed { transaction, fee })
}

#[cfg(test)]
mod tests;
