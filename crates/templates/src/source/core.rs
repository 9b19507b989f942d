//! Bitcoin Core over IPC, by `bitcoin_core_sv2`. Its client is not `Send`, so each session has a
//! thread with a runtime of its own; it ends at the first IPC error and never reconnects, which is
//! what [`upstream`](super::upstream) is for.

use std::fmt::Display;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use bitcoin::Network;
use bitcoin_core_sv2::runtime_api::BitcoinCoreVersion;
use bitcoin_core_sv2::runtime_api::template_distribution_protocol as tdp;
use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::network::check_node;
use super::upstream::{Connector, Link};
use crate::error::{TemplateError, Unreachable};

/// Messages in flight each way. Core sends two per tip and is sent few.
const MESSAGES_MAX: usize = 64;
/// Time for the node to accept an IPC connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Time for a session's thread to end; it interrupts what it waits for in the node first.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The node, and when a better template is worth telling.
pub(super) struct Core {
    socket: PathBuf,
    name: String,
    version: BitcoinCoreVersion,
    fee_threshold_sat: u64,
    interval_min_s: u8,
    network: Option<Network>,
}

impl Core {
    pub(super) fn new(
        socket: PathBuf,
        version: u8,
        fee_threshold_sat: u64,
        interval_min_s: u8,
    ) -> Result<Self, TemplateError> {
        let version = BitcoinCoreVersion::try_from(version).map_err(|version| {
            TemplateError::Config(format!("Bitcoin Core {version} is not supported (30, 31)"))
        })?;
        Ok(Self {
            name: socket.display().to_string(),
            socket,
            version,
            fee_threshold_sat,
            interval_min_s,
            network: None,
        })
    }

    /// A node that must be of this network, if one is given.
    pub(super) fn of_network(self, network: Option<Network>) -> Self {
        Self { network, ..self }
    }
}

impl Connector for Core {
    type Link = CoreLink;

    fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self) -> Result<CoreLink, TemplateError> {
        let (to_core, from_us) = async_channel::bounded(MESSAGES_MAX);
        let (to_us, from_core) = async_channel::bounded(MESSAGES_MAX);
        let (opened, open) = oneshot::channel();
        let (ending, ended) = oneshot::channel::<()>();
        // Cancelled by us to end the session, and by the client when the session has failed. The
        // guard ends the session also if this future is dropped half-way.
        let session = CancellationToken::new();
        let guard = session.clone().drop_guard();
        let thread = CoreThread {
            socket: self.socket.clone(),
            version: self.version,
            fee_threshold_sat: self.fee_threshold_sat,
            interval_min_s: self.interval_min_s,
            incoming: from_us,
            outgoing: to_us,
            session: session.clone(),
        };
        std::thread::Builder::new()
            .name("bitcoin-core-ipc".into())
            .spawn(move || {
                thread.run(opened);
                drop(ending);
            })
            .map_err(|error| TemplateError::Config(error.to_string()))?;
        tokio::time::timeout(CONNECT_TIME_MAX, open)
            .await
            .map_err(|_| TemplateError::TimeOut)?
            .map_err(|_| TemplateError::Unavailable)??;
        guard.disarm();
        let link = CoreLink {
            to_core,
            from_core,
            session,
            ended,
        };
        // Behind the session: if the node is replaced in between, the session is over.
        if let Some(network) = self.network
            && let Err(error) = check_node(&self.socket, network).await
        {
            link.close().await;
            return Err(error);
        }
        Ok(link)
    }
}

/// What a session's thread needs.
struct CoreThread {
    socket: PathBuf,
    version: BitcoinCoreVersion,
    fee_threshold_sat: u64,
    interval_min_s: u8,
    incoming: Receiver<Tdp>,
    outgoing: Sender<Tdp>,
    session: CancellationToken,
}

impl CoreThread {
    fn run(self, opened: oneshot::Sender<Result<(), TemplateError>>) {
        // Also where the client panics: the session is over when the thread is.
        let _over = self.session.clone().drop_guard();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = opened.send(Err(TemplateError::Config(error.to_string())));
                return;
            }
        };
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let client = tdp::new(
                self.version,
                &self.socket,
                self.fee_threshold_sat,
                self.interval_min_s,
                self.incoming,
                self.outgoing,
                self.session.clone(),
            );
            let client = tokio::select! {
                () = self.session.cancelled() => return,
                client = client => client,
            };
            match client {
                Ok(mut client) => {
                    let _ = opened.send(Ok(()));
                    client.run().await;
                }
                Err(error) => {
                    let unreachable = why_not(&self.socket, &error);
                    let _ = opened.send(Err(unreachable.into()));
                }
            }
        });
    }
}

/// The client's error does not say what is wrong with the socket; the system does.
fn why_not(socket: &Path, error: &impl Display) -> Unreachable {
    let place = socket.display().to_string();
    match UnixStream::connect(socket) {
        Err(error) => Unreachable::of(&place, &error),
        Ok(_) => Unreachable::other(&place, error),
    }
}

pub(super) struct CoreLink {
    to_core: Sender<Tdp>,
    from_core: Receiver<Tdp>,
    session: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl Link for CoreLink {
    async fn send(&mut self, message: Tdp) -> Result<(), TemplateError> {
        self.to_core
            .send(message)
            .await
            .map_err(|_| TemplateError::Unavailable)
    }

    async fn receive(&mut self) -> Result<Tdp, TemplateError> {
        tokio::select! {
            biased;
            () = self.session.cancelled() => Err(TemplateError::Unavailable),
            message = self.from_core.recv() => message.map_err(|_| TemplateError::Unavailable),
        }
    }

    async fn close(self) {
        self.session.cancel();
        // An error here is the thread's sender being dropped: that is the end awaited.
        if tokio::time::timeout(CLOSE_TIME_MAX, self.ended)
            .await
            .is_err()
        {
            tracing::warn!("the IPC thread of Bitcoin Core does not end; it is left behind");
        }
    }
}
