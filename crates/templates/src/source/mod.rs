//! The sources behind a handle: one task each, which owns the source and its state.

mod blocks;
mod core;
mod embedded_chain;
mod network;
mod node_info;
mod provider;
mod session;
mod upstream;

use std::time::Duration;

use bitcoin::Network;
use tokio_util::sync::CancellationToken;

pub(crate) use network::ask;
pub(crate) use node_info::NodeInfo;
pub use session::COINBASE_BYTES_ADDITIONAL;

use crate::config::SourceConfig;
use crate::error::TemplateError;
use crate::handle::{TemplateHandle, channel};
use crate::readiness::Origin;

/// Starts a source of whatever network. Must be called inside a tokio runtime. A source that is away is no error: it
/// is connected to in the background, again and again, until `shutdown` is cancelled; await
/// [`TemplateHandle::stopped`] for the end of what was started here.
///
/// # Errors
/// [`TemplateError::Config`] or [`TemplateError::Chain`] for a source that cannot exist.
pub fn start(
    config: SourceConfig,
    shutdown: CancellationToken,
) -> Result<TemplateHandle, TemplateError> {
    start_of(None, config, shutdown)
}

/// Starts a source of this network. Each time that it is connected to it is asked for its network, as far as it can be
/// asked, and of another one no work is taken: a node may be restarted on another chain.
///
/// # Errors
/// As [`start`], and [`TemplateError::WrongNetwork`] for an embedded chain of another network.
pub fn start_on(
    network: Network,
    config: SourceConfig,
    shutdown: CancellationToken,
) -> Result<TemplateHandle, TemplateError> {
    start_of(Some(network), config, shutdown)
}

fn start_of(
    required: Option<Network>,
    config: SourceConfig,
    shutdown: CancellationToken,
) -> Result<TemplateHandle, TemplateError> {
    config.check().map_err(TemplateError::Config)?;
    let (handle, mut port) = channel();
    let handle = handle.of_network(required);
    port.publisher.network = required;
    match config {
        SourceConfig::Embedded { bits, network } => {
            if let Some(required) = required {
                network::compare(required, network)?;
            }
            embedded_chain::start(
                bits,
                network,
                embedded_chain::TEMPLATE_INTERVAL,
                port,
                shutdown,
            )?;
            return Ok(handle.of_origin(Origin::Chain).judging_solutions());
        }
        SourceConfig::BitcoinCore {
            socket,
            version,
            fee_threshold_sat,
            interval_min_s,
            stale_after_s,
        } => {
            let door = blocks::open(socket.clone(), shutdown.clone())?;
            let handle = handle.of_origin(Origin::Node(socket.clone()));
            let core = core::Core::new(socket, version, fee_threshold_sat, interval_min_s)?
                .of_network(required);
            tokio::spawn(upstream::run(
                core,
                port,
                Duration::from_secs(stale_after_s),
                shutdown,
            ));
            return Ok(handle.with_node(door));
        }
        SourceConfig::TemplateProvider {
            address,
            authority_public_key,
            stale_after_s,
        } => {
            if authority_public_key.is_none() {
                tracing::warn!(address, "the template provider is not authenticated");
            }
            let provider = provider::Provider {
                address,
                authority: authority_public_key,
            };
            tokio::spawn(upstream::run(
                provider,
                port,
                Duration::from_secs(stale_after_s),
                shutdown,
            ));
        }
    }
    Ok(handle)
}
