//! What the sections of the miners' and the agents' ports come to: who may hold how many connections, TLS, and where
//! rewards go.

use std::time::Duration;

use dovetail_daemon::within;
use dovetail_sv2::{IdentityRules, PlaceLimits};
use dovetail_templates::{Payout, PayoutKeys};

use super::{ApiConfig, MiningConfig};
use crate::grpc_listener::TlsFiles;

impl ApiConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        match self.tls_certificate.is_some() == self.tls_key.is_some() {
            true => Ok(()),
            false => Err(
                "api.tls_certificate and api.tls_key belong together: give both or neither".into(),
            ),
        }
    }

    /// Where the port's certificate is, if it speaks TLS.
    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate.clone()?,
            key: self.tls_key.clone()?,
        })
    }

    /// Says in the log that others may read what agents send, if they may.
    pub(crate) fn warn_of_plain_text(&self) {
        if self.tls_certificate.is_none() && !self.listen.ip().is_loopback() {
            tracing::warn!(
                "api.listen is {} and speaks no TLS: whoever is on the way reads prompts and agents' keys. Set api.tls_certificate \
                 and api.tls_key, unless a TLS proxy or a network of your own is all that reaches it",
                self.listen
            );
        }
    }

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
