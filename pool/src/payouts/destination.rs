//! Where a payee's money goes now: what it has stated, else what its name says; and its Bitcoin address once Lightning has
//! failed too often.

use bitcoin::{Address, Network};
use dovetail_commitment::WorkerKey;
use dovetail_ledger::{DuePayee, TRIES_BEFORE_ONCHAIN};
use dovetail_payee::{LightningAddress, PayTo, PayToKind, bitcoin_address};
use dovetail_sv2::identity::{Identity, Payee};
use dovetail_units::Msat;

use crate::config::{Config, OnchainConfig};

/// The class of a payee that is not paid out: nothing leads to it but its name.
pub(super) const NO_DESTINATION: &str = "no_destination";

/// Where one payout goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To an invoice that this worker is asked for.
    Worker(WorkerKey),
    /// To an offer.
    Offer(String),
    /// To an invoice that the host of the address is asked for.
    LightningAddress(LightningAddress),
    /// On-chain.
    Onchain(Address),
}

/// What is paid on-chain at least; `None` if this pool pays nothing on-chain.
pub(crate) fn onchain_threshold(config: Option<&OnchainConfig>) -> Option<Msat> {
    config.map(|onchain| Msat::new(onchain.threshold_msat))
}

/// What a name says of where its account is paid, if it says anything.
pub(crate) fn way_of_name(account: &str) -> Option<PayTo> {
    let (kind, value) = match Identity::parse(account).ok()?.payee {
        Payee::WorkerKey(key) => (PayToKind::Worker, key),
        Payee::Offer(offer) => (PayToKind::Bolt12, offer),
        Payee::LightningAddress(address) => (PayToKind::LightningAddress, address),
        Payee::Address(address) => (PayToKind::Onchain, address),
        Payee::Name(_) => return None,
    };
    Some(PayTo::kept(kind, value))
}

/// Why an account that has stated nothing cannot be paid, if nothing leads to it.
pub(crate) fn destination_class(account: &str, pays: Pays) -> Option<&'static str> {
    let is_possible = way_of_name(account).is_some_and(|way| pays.by(way.kind()));
    (!is_possible).then_some(NO_DESTINATION)
}

/// What this pool pays by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pays {
    pub(crate) lightning_addresses: bool,
    pub(crate) onchain: bool,
}

impl Pays {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            lightning_addresses: config.destinations.lightning_addresses,
            onchain: config.onchain.is_some(),
        }
    }

    pub(crate) fn by(self, kind: PayToKind) -> bool {
        match kind {
            PayToKind::Worker | PayToKind::Bolt12 => true,
            PayToKind::LightningAddress => self.lightning_addresses,
            PayToKind::Onchain => self.onchain,
        }
    }
}

impl Destination {
    /// Where this payee is paid now, by a pool that pays on-chain from `onchain_threshold` on; `None` if nowhere.
    pub(crate) fn of(
        due: &DuePayee,
        network: Network,
        onchain_threshold: Option<Msat>,
    ) -> Option<Self> {
        let way = due.stated.clone().or_else(|| way_of_name(&due.payee))?;
        let is_enough = onchain_threshold.is_some_and(|threshold| due.available >= threshold);
        let is_failing = due.tries >= TRIES_BEFORE_ONCHAIN && way.kind() != PayToKind::Onchain;
        if is_failing && is_enough {
            let address = due.fallback.as_deref().unwrap_or(&due.payee);
            if let Some(address) = address_of(address, network) {
                return Some(Self::Onchain(address));
            }
        }
        Some(match way.kind() {
            PayToKind::Worker => Self::Worker(way.value().parse().ok()?),
            PayToKind::Bolt12 => Self::Offer(way.value().to_owned()),
            PayToKind::LightningAddress => {
                Self::LightningAddress(LightningAddress::parse(way.value())?)
            }
            PayToKind::Onchain => Self::Onchain(address_of(way.value(), network)?),
        })
    }
}

fn address_of(text: &str, network: Network) -> Option<Address> {
    bitcoin_address(text)?.0.require_network(network).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
    const KEY: &str = "4f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa";

    fn due(payee: &str, tries: u32, stated: Option<(PayToKind, &str)>) -> DuePayee {
        DuePayee {
            payee: payee.to_owned(),
            available: Msat::new(100_000),
            tries,
            stated: stated.map(|(kind, value)| PayTo::kept(kind, value.to_owned())),
            fallback: None,
        }
    }

    fn of(due: &DuePayee) -> Option<Destination> {
        Destination::of(due, Network::Regtest, Some(Msat::new(100_000)))
    }

    fn onchain() -> Option<Destination> {
        address_of(ADDRESS, Network::Regtest).map(Destination::Onchain)
    }

    fn you() -> Option<Destination> {
        LightningAddress::parse("you@wallet.com").map(Destination::LightningAddress)
    }

    #[test]
    fn a_payee_is_paid_where_its_name_says_or_where_it_has_stated() {
        let worker = Some(Destination::Worker(KEY.parse().unwrap()));
        assert_eq!(of(&due(KEY, 0, None)), worker);
        assert_eq!(of(&due("you@wallet.com", 0, None)), you());
        assert_eq!(of(&due(ADDRESS, 0, None)), onchain());
        let offer = format!("lno1{}", "q".repeat(60));
        assert_eq!(of(&due(&offer, 0, None)), Some(Destination::Offer(offer)));
        assert_eq!(of(&due("alice", 0, None)), None);
        let stated = Some((PayToKind::LightningAddress, "you@wallet.com"));
        assert_eq!(of(&due(KEY, 0, stated)), you());
        assert_eq!(of(&due(ADDRESS, 0, stated)), you());
        assert_eq!(of(&due("alice", 0, Some((PayToKind::Worker, KEY)))), worker);
        // An address of another network is nobody's.
        let other = Destination::of(&due(ADDRESS, 0, None), Network::Bitcoin, None);
        assert_eq!(other, None);
    }

    #[test]
    fn after_eight_failed_tries_a_known_address_is_paid_if_there_is_enough() {
        let stated = Some((PayToKind::LightningAddress, "you@wallet.com"));
        assert_eq!(of(&due(ADDRESS, 7, stated)), you());
        assert_eq!(of(&due(ADDRESS, 8, stated)), onchain());
        assert_eq!(of(&due(KEY, 8, stated)), you());
        let mut besides = due(KEY, 8, stated);
        besides.fallback = Some(ADDRESS.to_owned());
        assert_eq!(of(&besides), onchain());
        besides.available = Msat::new(99_999);
        assert_eq!(of(&besides), you());
        let none = Destination::of(&due(ADDRESS, 8, stated), Network::Regtest, None);
        assert_eq!(none, you());
    }

    #[test]
    fn the_class_of_an_account_follows_what_the_pool_pays_by() {
        let class = |account: &str, lightning_addresses, onchain| {
            let pays = Pays {
                lightning_addresses,
                onchain,
            };
            destination_class(account, pays)
        };
        assert_eq!(class("alice", true, true), Some(NO_DESTINATION));
        assert_eq!(class(KEY, false, false), None);
        assert_eq!(class("you@wallet.com", true, false), None);
        assert_eq!(class("you@wallet.com", false, false), Some(NO_DESTINATION));
        assert_eq!(class(ADDRESS, true, true), None);
        assert_eq!(class(ADDRESS, true, false), Some(NO_DESTINATION));
    }
}
