//! What the sections of the miners' and the agents' ports come to: who may hold how many connections, and where rewards
//! go.

use std::time::Duration;

use dovetail_daemon::within;
use dovetail_sv2::{IdentityRules, PlaceLimits};
use dovetail_templates::{Payout, PayoutKeys};

use super::{ApiConfig, MiningConfig};

impl ApiConfig {
    /// Who may hold how many connections.
    pub(crate) fn places(&self) -> PlaceLimits {
        PlaceLimits {
            per_address_max: self.connections_per_address_max,
            ..PlaceLimits::total(self.connections_max)
        }
    }
}

impl MiningConfig {
    /// Whom miners may work for.
    pub(crate) fn identity_rules(&self) -> IdentityRules {
        IdentityRules {
            network: self.network,
            plain_names: self.plain_names,
        }
    }

    /// Who may hold how many connections, and for how long.
    pub(crate) fn places(&self) -> PlaceLimits {
        PlaceLimits {
            connections_max: self.connections_max,
            per_address_max: self.connections_per_address_max,
            per_network_max: self.connections_per_network_max,
            reserved: self
                .connections_reserved
                .unwrap_or(self.connections_max / 8),
            first_proof: Some(Duration::from_secs(self.first_share_s)),
            silence: Some(Duration::from_secs(self.silence_s)),
        }
    }

    pub(super) fn check_places(&self) -> Result<(), String> {
        let key = |name: &str| format!("mining.{name}");
        let most = self.connections_max;
        within(&key("connections_max"), most, 1..=1 << 16)?;
        let each = self.connections_per_address_max;
        within(&key("connections_per_address_max"), each, 1..=1 << 16)?;
        let each = self.connections_per_network_max;
        within(&key("connections_per_network_max"), each, 1..=1 << 16)?;
        let reserved = self.connections_reserved.unwrap_or(0);
        within(&key("connections_reserved"), reserved, 0..=most - 1)?;
        within(&key("first_share_s"), self.first_share_s, 10..=86_400)?;
        within(&key("silence_s"), self.silence_s, 60..=7 * 86_400)?;
        let channels = self.channels_per_connection_max;
        within(&key("channels_per_connection_max"), channels, 1..=1 << 16)?;
        let channels = self.channels_unproven_max;
        within(&key("channels_unproven_max"), channels, 1..=1 << 16)
    }

    /// What blocks pay.
    ///
    /// # Errors
    /// A sentence that names the key and what is wrong with it.
    pub fn payout(&self) -> Result<Payout, String> {
        Payout::parse(PayoutKeys {
            section: "mining",
            network: self.network,
            address: self.payout_address.as_deref(),
            script: self.payout_script.as_deref(),
            first_height: self.payout_first_height,
        })
    }
}
