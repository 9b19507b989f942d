//! The sources behind a handle: one task each, which owns the source and its state.

mod blocks;
mod core;
mod embedded_chain;
mod network;
mod node_info;
mod provider;
mod rpc;
mod session;
mod upstream;

use std::time::Duration;

use bitcoin::Network;
use tokio_util::sync::CancellationToken;

pub(crate) use network::ask;
pub(crate) use node_info::NodeInfo;
pub use session::COINBASE_BYTES_ADDITIONAL;

use crate::block_publisher::Sink;
use crate::config::{BLOCK_SINKS_MAX, SinkConfig, SourceConfig};
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
                Some(Duration::from_secs(stale_after_s)),
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
                Some(Duration::from_secs(stale_after_s)),
                shutdown,
            ));
        }
    }
    Ok(handle)
}

/// Opens the nodes that get solved blocks besides the source. Must be called inside a tokio runtime. A node that is away
/// is no error. They run until `shutdown` is cancelled.
///
/// # Errors
/// [`TemplateError::Config`] for a node that cannot exist.
pub fn open_sinks(
    sinks: &[SinkConfig],
    shutdown: &CancellationToken,
) -> Result<Vec<Sink>, TemplateError> {
    if sinks.len() > BLOCK_SINKS_MAX {
        let words = format!("there are more than {BLOCK_SINKS_MAX} templates.block_sinks");
        return Err(TemplateError::Config(words));
    }
    let open = |sink: &SinkConfig| {
        let shutdown = shutdown.clone();
        Ok(match sink.clone() {
            SinkConfig::BitcoinCore { socket } => {
                let name = socket.display().to_string();
                Sink::node(name, blocks::open(socket, shutdown)?)
            }
            SinkConfig::BitcoinRpc {
                address,
                cookie_file,
            } => Sink::node(address.clone(), rpc::open(address, cookie_file, shutdown)),
            SinkConfig::TemplateProvider {
                address,
                authority_public_key,
            } => {
                let (handle, port) = channel();
                let provider = provider::Provider {
                    address: address.clone(),
                    authority: authority_public_key,
                };
                // Nobody works on its templates, so it does not matter whether they are stale.
                tokio::spawn(upstream::run(provider, port, None, shutdown));
                Sink::source(address, handle)
            }
        })
    };
    sinks.iter().map(open).collect()
}
