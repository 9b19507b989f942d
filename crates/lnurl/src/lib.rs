//! Invoices for Lightning addresses: LNURL-pay (LUD-06) at the place that LUD-16 names. A host of an address is a
//! stranger whom any miner can name, so this trusts it with nothing: HTTPS only, public addresses only, little time, few
//! bytes, few places; and the invoice has to be the one that was asked for.
//!
//! It knows neither payouts nor the ledger. BIP 353, which asks the DNS instead, is not here: without DNSSEC its answer
//! would be anybody's, and nothing in this tree validates DNSSEC. Nor are `.onion` hosts, which would need Tor.

mod hosts;
mod http;
mod pay;
mod places;
#[cfg(feature = "test-host")]
pub mod test_host;
#[cfg(test)]
mod tests;

pub use hosts::Resolve;
pub use http::{HttpError, RootsError};
pub use pay::{FetchedInvoice, LnurlError};

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use dovetail_payee::LightningAddress;

use http::Http;

/// How the hosts are asked.
#[derive(Debug, Clone)]
pub struct LnurlOptions {
    /// Whether hosts at private and loopback addresses are asked: for tests, and for networks of one's own.
    pub allow_private_hosts: bool,
    /// A PEM file of certificates that are trusted besides the machine's own.
    pub extra_roots: Option<PathBuf>,
    /// How names become addresses.
    pub resolve: Resolve,
    /// How long a request may take, with its redirects; and how long it may wait for a place before.
    pub time_max: Duration,
    /// How many requests are under way at once ..
    pub places_max: usize,
    /// .. and how many of them to one host.
    pub places_per_host_max: usize,
}

impl Default for LnurlOptions {
    fn default() -> Self {
        Self {
            allow_private_hosts: false,
            extra_roots: None,
            resolve: Resolve::System,
            time_max: Duration::from_secs(10),
            places_max: 32,
            // A quarter: many miners may have one wallet's addresses, and none of them should keep the others waiting.
            places_per_host_max: 8,
        }
    }
}

/// Asks the hosts of Lightning addresses for invoices; clones share its places.
#[derive(Clone)]
pub struct Lnurl {
    http: Arc<Http>,
}

impl Lnurl {
    /// Reads the certificates that are trusted.
    ///
    /// # Errors
    /// [`RootsError`] if the file of extra certificates has none.
    pub fn new(options: LnurlOptions) -> Result<Self, RootsError> {
        Ok(Self {
            http: Arc::new(Http::new(options)?),
        })
    }

    /// An invoice for this address, for `amount_msat` or, where its host takes less at once, for whole satoshi of that. It
    /// was checked to be of this network, for this amount, and for what the host says that it is for.
    ///
    /// # Errors
    /// [`LnurlError`], within four times [`LnurlOptions::time_max`].
    pub async fn invoice(
        &self,
        address: &LightningAddress,
        amount_msat: u64,
        network: Network,
    ) -> Result<FetchedInvoice, LnurlError> {
        pay::fetch(&self.http, address, amount_msat, network).await
    }
}
