//! Where payees may be paid, and how that changes.

use std::path::PathBuf;
use std::time::Duration;

use dovetail_daemon::within;
use dovetail_lnurl::LnurlOptions;
use serde::Deserialize;

/// A month: nobody waits for longer.
const HOLD_S_MAX: u64 = 30 * 86_400;

/// Where payees may be paid (`docs/connect.md`).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DestinationsConfig {
    /// How long a change of where a payee is paid waits before it holds, in seconds. Whoever stole a key cannot take
    /// the money before its owner could notice.
    pub hold_s: u64,
    /// Whether the hosts of Lightning addresses are asked for invoices.
    pub lightning_addresses: bool,
    /// Whether such hosts are asked at private and loopback addresses too: for tests.
    pub allow_private_hosts: bool,
    /// A PEM file of certificates that these hosts may show besides those that the machine trusts.
    pub extra_roots: Option<PathBuf>,
}

impl Default for DestinationsConfig {
    fn default() -> Self {
        Self {
            // A day.
            hold_s: 86_400,
            lightning_addresses: true,
            allow_private_hosts: false,
            extra_roots: None,
        }
    }
}

impl DestinationsConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        within("destinations.hold_s", self.hold_s, 0..=HOLD_S_MAX)
    }

    pub(crate) fn hold(&self) -> Duration {
        Duration::from_secs(self.hold_s)
    }

    /// How hosts are asked; `None`: they are not.
    pub(crate) fn lnurl_options(&self) -> Option<LnurlOptions> {
        self.lightning_addresses.then(|| LnurlOptions {
            allow_private_hosts: self.allow_private_hosts,
            extra_roots: self.extra_roots.clone(),
            ..LnurlOptions::default()
        })
    }
}
