//! One miner's connection: a task that owns its channels, jobs and registration, and decides in
//! one visible place what happens next. Each message has a short handler in a file of its family.

mod frames;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_commitment::{TaskId, WorkerKey};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::server::Client;
use dovetail_sv2::setup::mining_flags;
use dovetail_sv2::{EndReason, FrameReader, HandshakeHash, Message, MiningClock, Outbox, Place};
use dovetail_templates::WorkSnapshot;
use dovetail_units::KeptCredit;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch_jobs::BatchJobs;
use super::channels::Channel;
use super::custom_jobs::accepted_jobs::AcceptedJobs;
use super::extension::challenge::Registering;
use super::shares::pending_share::PendingShares;
use super::template_jobs::job_maker::JobMaker;
use crate::known_accounts::Voucher;
use crate::mailboxes::WorkerCommand;
use crate::shared::Shared;
use crate::tasks::Connected;

/// How many shares of one connection may be under way to the log, or to their audit. Beyond it the connection is not read
/// from, which slows nobody else down. A sync of the log takes milliseconds: enough for ten thousand shares a second.
const SHARES_IN_FLIGHT_MAX: usize = 64;

/// How many transcripts of one connection may be on their way to the ledger; beyond it the connection is not read from.
/// A worker has no more tasks than that.
const DELIVERIES_MAX: usize = 16;

/// What the client asked for in `SetupConnection`.
#[derive(Debug, Clone, Copy)]
pub(in crate::mining) struct Flags {
    pub(in crate::mining) requires_standard_jobs: bool,
    pub(in crate::mining) requires_work_selection: bool,
}

/// The connection's state. Nobody else holds any of it.
pub(crate) struct Connection {
    pub(in crate::mining) id: u64,
    pub(in crate::mining) shared: Arc<Shared>,
    outbox: Outbox,
    /// What a registration on this connection is for.
    pub(in crate::mining) handshake: HandshakeHash,
    /// The connection's place on the port, which it keeps by proving work.
    pub(in crate::mining) place: Arc<Place>,
    /// What lets it keep a reserved place until it proves work.
    pub(in crate::mining) voucher: Option<Voucher>,
    pub(in crate::mining) flags: Flags,
    /// Whether extension 0x4149 was negotiated.
    pub(in crate::mining) extension: bool,
    /// Whether extension 0x0002 was negotiated: shares name the device that found them.
    pub(in crate::mining) names_devices: bool,
    pub(in crate::mining) group_id: u32,
    next_channel_id: u32,
    pub(in crate::mining) channels: BTreeMap<u32, Channel>,
    /// Those of them that have had a good share.
    pub(in crate::mining) proven_channels: BTreeSet<u32>,
    pub(in crate::mining) jobs: JobMaker,
    pub(in crate::mining) work: Option<Arc<WorkSnapshot>>,
    /// The least time of the newest job.
    pub(in crate::mining) min_ntime: u32,
    pub(in crate::mining) accepted: AcceptedJobs,
    pub(in crate::mining) batch_jobs: BatchJobs,
    pub(in crate::mining) registering: Option<Registering>,
    /// The worker that has registered. Dropping it gives the worker's tasks back.
    pub(in crate::mining) connected: Option<Connected>,
    /// How much of its credit that worker leaves held.
    pub(in crate::mining) kept: KeptCredit,
    /// Whether that worker has registered again elsewhere.
    pub(in crate::mining) is_superseded: bool,
    /// Shares that wait for their settlement. Dropping it drops the waiting, not the settling.
    pub(in crate::mining) in_flight: PendingShares,
    /// How many of them wait for an audit.
    pub(in crate::mining) claims_in_flight: usize,
    /// Transcripts that the ledger takes, each with the task that it is of.
    pub(in crate::mining) deliveries: JoinSet<(TaskId, Result<(), Code>)>,
    /// Nothing is read until then.
    paused_until: Option<Instant>,
}

/// Serves one miner whose connection is set up, to its end.
pub(in crate::mining) async fn serve(id: u64, shared: Arc<Shared>, client: Client) {
    let flags = Flags {
        requires_standard_jobs: client.flags & mining_flags::REQUIRES_STANDARD_JOBS != 0,
        requires_work_selection: client.flags & mining_flags::REQUIRES_WORK_SELECTION != 0,
    };
    tracing::info!(id, ?flags, "miner connected");
    let (outbox, place) = (client.outbox, client.place);
    let handshake = client.reader.handshake();
    let mut connection = Connection::new(id, shared, (outbox, handshake), place, flags);
    match connection.run(client.reader, &client.token).await {
        EndReason::Closed => tracing::info!(id, "miner disconnected"),
        other => tracing::warn!(id, error = %other, "a miner's connection was ended"),
    }
    // Before its worker's tasks are given back: these have ended, if the ledger takes them.
    while connection.deliveries.join_next().await.is_some() {}
}

impl Connection {
    fn new(
        id: u64,
        shared: Arc<Shared>,
        (outbox, handshake): (Outbox, HandshakeHash),
        place: Arc<Place>,
        flags: Flags,
    ) -> Self {
        let full_extranonce_size = usize::from(
            shared
                .extranonces
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .total_extranonce_len(),
        );
        let mining = &shared.config.mining;
        let jobs = JobMaker::new(
            Arc::clone(&shared.job_salts),
            &mining.tag,
            true,
            full_extranonce_size,
            shared.payout.clone(),
        );
        Self {
            id,
            shared,
            outbox,
            handshake,
            place,
            voucher: None,
            flags,
            extension: false,
            names_devices: false,
            // Group ids share the channels' id space (5.2.3); the group is the first of it.
            group_id: 1,
            next_channel_id: 2,
            channels: BTreeMap::new(),
            proven_channels: BTreeSet::new(),
            jobs,
            work: None,
            min_ntime: 0,
            accepted: AcceptedJobs::default(),
            batch_jobs: BatchJobs::new(Instant::now().into_std()),
            registering: None,
            connected: None,
            kept: KeptCredit::NONE,
            is_superseded: false,
            in_flight: PendingShares::default(),
            claims_in_flight: 0,
            deliveries: JoinSet::new(),
            paused_until: None,
        }
    }

    async fn run(&mut self, mut reader: FrameReader, token: &CancellationToken) -> EndReason {
        let mut templates = self.shared.templates.subscribe();
        // Before the first frame is read: a channel's first messages are a job of its own.
        let work = templates.borrow_and_update().clone();
        if let Some(Err(ended)) = work.map(|work| self.on_work(work)) {
            return ended;
        }
        let mut staleness = self.shared.templates.staleness();
        let mut clock = MiningClock::start();
        loop {
            let pause_end = self.paused_until.unwrap_or_else(Instant::now);
            let step = tokio::select! {
                () = token.cancelled() => return EndReason::Closed,
                changed = templates.changed() => {
                    if changed.is_err() {
                        return EndReason::Closed;
                    }
                    let work = templates.borrow_and_update().clone();
                    work.map_or(Ok(()), |work| self.on_work(work))
                }
                changed = staleness.changed() => {
                    if changed.is_err() {
                        return EndReason::Closed;
                    }
                    let stale = *staleness.borrow_and_update();
                    self.on_staleness(stale)
                }
                Some(done) = self.in_flight.next() => self.on_settled(done),
                Some(done) = self.deliveries.join_next() => match done {
                    Ok((task, taken)) => self.answer_delivery(task, taken),
                    Err(_) => Err(EndReason::Fault("a transcript was not taken to its end")),
                },
                command = next_command(&mut self.connected), if !self.is_superseded => match command {
                    Some(command) => self.on_command(command),
                    None => {
                        self.on_superseded();
                        Ok(())
                    }
                },
                () = clock.tick() => self
                    .on_vardiff()
                    .and_then(|()| clock.check_idle(!self.channels.is_empty())),
                () = sleep_until(pause_end), if self.paused_until.is_some() => {
                    self.paused_until = None;
                    Ok(())
                }
                frame = reader.read(), if self.reads() => match frame {
                    Ok(frame) => self.on_frame(frame).await,
                    Err(error) => {
                        tracing::debug!(id = self.id, %error, "reading from a miner ended");
                        Err(EndReason::Closed)
                    }
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// The worker has registered on a newer connection: it is known there, and one of many here.
    fn on_superseded(&mut self) {
        self.is_superseded = true;
        self.place.register(false);
    }

    /// Whether the connection is read from: not while too many of its shares or transcripts are under way, nor in a pause.
    fn reads(&self) -> bool {
        self.in_flight.len() < SHARES_IN_FLIGHT_MAX
            && self.deliveries.len() < DELIVERIES_MAX
            && self.paused_until.is_none()
    }

    /// Reads nothing for this long: its account sends shares faster than it may.
    pub(in crate::mining) fn pause_reading(&mut self, pause: Duration) {
        if !pause.is_zero() {
            self.paused_until = Some(Instant::now() + pause);
        }
    }

    /// Queues a message; a miner that does not read is dropped.
    pub(in crate::mining) fn send<M: Message>(&self, message: &M) -> Result<(), EndReason> {
        Ok(self.outbox.send(message)?)
    }

    /// The worker that has registered on this connection.
    pub(in crate::mining) fn worker(&self) -> Option<WorkerKey> {
        self.connected.as_ref().map(Connected::worker)
    }

    /// Whether the client is given the pool's own jobs. One that brings custom jobs has no use for them and knows the tip
    /// from its own node; but a worker of ours falls back to them.
    pub(in crate::mining) fn takes_pool_jobs(&self) -> bool {
        self.extension || !self.flags.requires_work_selection
    }

    pub(in crate::mining) fn take_channel_id(&mut self) -> u32 {
        let id = self.next_channel_id;
        self.next_channel_id = id.wrapping_add(1).max(2);
        id
    }

    pub(in crate::mining) fn extranonces(&self) -> MutexGuard<'_, ExtranonceAllocator> {
        self.shared
            .extranonces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn next_command(connected: &mut Option<Connected>) -> Option<WorkerCommand> {
    match connected {
        Some(connected) => connected.next_command().await,
        None => std::future::pending().await,
    }
}
