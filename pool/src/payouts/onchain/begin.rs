//! The beginning of a payout on the chain: money is set aside, and the attempt waits for a batch.

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network};
use dovetail_ledger::{FeesBorneBy, NewAttempt, Rail};
use dovetail_onchain::dust_limit;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;

use crate::config::OnchainConfig;
use crate::payouts::{PayoutError, Payouts};

/// For how long an attempt may wait for a batch: a month. Then the payee has its balance back.
const WAIT_S_MAX: u64 = 30 * 86_400;
/// In one block's time: `attempts` has a bound for what routes hold, and the chain holds nothing.
const NOT_HELD: u16 = 1;

/// What a payout moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::payouts) struct Terms {
    /// What the payee gets, in whole satoshi.
    pub(in crate::payouts) amount: Msat,
    /// Who bears the fee.
    pub(in crate::payouts) fees_borne_by: FeesBorneBy,
}

/// Why an address cannot be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::payouts) enum AddressRefusal {
    #[error("it is not an address of {0}")]
    NotAnAddress(Network),
    #[error("nodes pass on no output to it that is as small as {0}")]
    Dust(Amount),
}

/// The script of an address of this network, to which so much can be sent.
pub(super) fn script_of(
    address: &str,
    network: Network,
    amount: Amount,
) -> Result<bitcoin::ScriptBuf, AddressRefusal> {
    let script = address
        .parse::<Address<NetworkUnchecked>>()
        .ok()
        .and_then(|address| address.require_network(network).ok())
        .ok_or(AddressRefusal::NotAnAddress(network))?
        .script_pubkey();
    match amount >= dust_limit(&script) {
        true => Ok(script),
        false => Err(AddressRefusal::Dust(amount)),
    }
}

/// What a payee with this balance gets, in whole satoshi; `None` if nothing is left of it.
pub(super) fn amount(config: &OnchainConfig, available: Msat) -> Option<Msat> {
    let borne = match config.fees_borne_by {
        FeesBorneBy::Pool => 0,
        FeesBorneBy::Payee => config.fee_max_msat,
    };
    let most = available.get().min(config.payout_max_msat);
    // What is set aside for the fee comes from the balance too, and not from what is paid if there is more.
    let amount = most.min(available.get().checked_sub(borne)?) / 1_000 * 1_000;
    (amount > 0).then_some(Msat::new(amount))
}

impl Payouts {
    /// The terms and the attempt of a payout to this address. Whoever begins it with them need do no more: nothing is
    /// dispatched, a batch takes all that wait.
    ///
    /// # Errors
    /// If nobody is paid on the chain here, the balance does not pay for the fee, or the address is none of this network.
    pub(in crate::payouts) fn onchain(
        &self,
        address: &str,
        available: Msat,
    ) -> Result<(Terms, NewAttempt), PayoutError> {
        let config = self.parts.onchain.as_ref();
        let config = config.ok_or(PayoutError::NoDestination)?;
        let amount = amount(config, available).ok_or(PayoutError::TooSmall)?;
        let sat = u64::try_from(amount.get() / 1_000).map_err(|_| PayoutError::Amount)?;
        script_of(address, self.parts.network, Amount::from_sat(sat))
            .map_err(PayoutError::Address)?;
        let terms = Terms {
            amount,
            fees_borne_by: config.fees_borne_by,
        };
        let attempt = NewAttempt {
            id: rand::random(),
            rail: Rail::Onchain,
            destination: address.to_owned(),
            payment_hash: None,
            fee_max: Msat::new(config.fee_max_msat),
            cltv_max: NOT_HELD,
            expires_at_unix: unix_now().saturating_add(WAIT_S_MAX),
        };
        Ok((terms, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(fees_borne_by: &str) -> OnchainConfig {
        let text = format!(
            "rpc = 'node:1'\ndescriptor = ''\nfee_max_msat = 2000000\npayout_max_msat = 10000000\nfees_borne_by = '{fees_borne_by}'"
        );
        toml::from_str(&text).unwrap()
    }

    #[test]
    fn a_payout_and_its_fee_are_never_more_than_the_balance() {
        let pays = |by, msat| amount(&config(by), Msat::new(msat)).map(Msat::get);
        assert_eq!(pays("pool", 6_000_999), Some(6_000_000));
        assert_eq!(pays("payee", 6_000_999), Some(4_000_000));
        // The most that is paid at once is the payee's, if there is enough for the fee besides.
        assert_eq!(pays("payee", 20_000_000), Some(10_000_000));
        assert_eq!(pays("payee", 11_000_000), Some(9_000_000));
        assert_eq!(pays("payee", 2_000_999), None);
        assert_eq!(pays("payee", 0), None);
        assert_eq!(pays("pool", -5), None);
    }

    #[test]
    fn addresses_of_other_networks_and_dust_are_refused() {
        let sat = Amount::from_sat;
        let ours = "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw";
        script_of(ours, Network::Regtest, sat(294)).unwrap();
        assert_eq!(
            script_of(ours, Network::Regtest, sat(293)),
            Err(AddressRefusal::Dust(sat(293)))
        );
        for other in ["", "alice", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"] {
            assert_eq!(
                script_of(other, Network::Regtest, sat(10_000)),
                Err(AddressRefusal::NotAnAddress(Network::Regtest)),
                "{other}"
            );
        }
    }
}
