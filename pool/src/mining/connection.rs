//! One miner's connection: a task that owns its channels, jobs and registration, and decides in
//! one visible place what happens next. Each message has a short handler in a file of its family.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use dovetail_sv2::extension::{self as ext, EXTENSION_TYPE};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol, mining_flags};
use dovetail_sv2::{
    DecodeError, Frame, FrameReader, FrameWriter, Message, Outbox, messages, negotiate, setup,
};
use dovetail_templates::WorkSnapshot;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use stratum_core::channels_sv2::server::jobs::extended::ExtendedJob;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::batch_jobs::BatchJobs;
use super::channel::Channel;
use super::custom::AcceptedJobs;
use super::extension::Registering;
use super::jobs::JobMaker;
use super::shares::InFlight;
use crate::dispatch::{GivenBack, WorkerCommand};
use crate::shared::Shared;

/// How many frames may wait for one miner. The longest burst of a healthy one is a job and a tip
/// for each of its channels.
const OUTBOX_MAX: usize = 1_024;
/// How many shares of one connection may be under way to the ledger; beyond it we stop reading
/// from the miner, which slows nobody else down.
const IN_FLIGHT_MAX: usize = 256;
/// How often difficulty is reconsidered.
const VARDIFF_INTERVAL: Duration = Duration::from_secs(20);
/// A connection without a channel is closed after this (5.3.2).
const IDLE_TIME_MAX: Duration = Duration::from_secs(120);

/// Why a connection ended, where it did not simply close.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The peer is gone or does not keep up.
    #[error("the connection closed")]
    Closed,
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// A message did not decode.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Something of ours is wrong; only this connection suffers.
    #[error("internal fault: {0}")]
    Fault(&'static str),
    /// No channel for too long.
    #[error("the connection had no channel for too long")]
    Idle,
}

/// What the client asked for in `SetupConnection`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags {
    pub(super) requires_standard_jobs: bool,
    pub(super) requires_work_selection: bool,
}

/// The connection's state. Nobody else holds any of it.
pub(crate) struct Connection {
    pub(super) id: u64,
    pub(super) shared: Arc<Shared>,
    outbox: Outbox,
    pub(super) flags: Flags,
    /// Whether extension 0x4149 was negotiated.
    pub(super) extension: bool,
    pub(super) group_id: u32,
    next_channel_id: u32,
    pub(super) channels: BTreeMap<u32, Channel>,
    pub(super) jobs: JobMaker,
    pub(super) work: Option<Arc<WorkSnapshot>>,
    pub(super) group_job: Option<Arc<ExtendedJob>>,
    pub(super) accepted: AcceptedJobs,
    pub(super) batch_jobs: BatchJobs,
    pub(super) registering: Option<Registering>,
    pub(super) worker: Option<dovetail_commitment::WorkerKey>,
    pub(super) commands: Option<mpsc::Receiver<WorkerCommand>>,
    /// Shares that wait for their settlement. Dropping it drops the waiting, not the settling.
    pub(super) in_flight: JoinSet<InFlight>,
    /// How many of them wait for an audit.
    pub(super) claims_in_flight: usize,
}

/// Serves one miner from `SetupConnection` to its end.
pub(crate) async fn serve(
    id: u64,
    shared: Arc<Shared>,
    mut reader: FrameReader,
    mut writer: FrameWriter,
    shutdown: CancellationToken,
) {
    let policy = ServerPolicy {
        protocol: SetupProtocol::MiningProtocol,
        supported_flags: mining_flags::REQUIRES_STANDARD_JOBS
            | mining_flags::REQUIRES_WORK_SELECTION
            | mining_flags::REQUIRES_VERSION_ROLLING,
        required_flags: 0,
        success_flags: 0,
    };
    let request = match setup::serve(&mut reader, &mut writer, &policy).await {
        Ok(request) => request,
        Err(error) => return tracing::debug!(id, %error, "a connection was not set up"),
    };
    let token = shutdown.child_token();
    let (outbox, writing) = Outbox::spawn(writer, OUTBOX_MAX, token.clone());
    let flags = Flags {
        requires_standard_jobs: request.flags & mining_flags::REQUIRES_STANDARD_JOBS != 0,
        requires_work_selection: request.flags & mining_flags::REQUIRES_WORK_SELECTION != 0,
    };
    tracing::info!(id, ?flags, "miner connected");
    let mut connection = Connection::new(id, shared, outbox, flags);
    let ended = connection.run(reader, &token).await;
    match ended {
        Ended::Closed => tracing::info!(id, "miner disconnected"),
        other => tracing::warn!(id, error = %other, "a miner's connection was ended"),
    }
    connection.leave().await;
    drop(connection);
    let _ = writing.await;
}

impl Connection {
    fn new(id: u64, shared: Arc<Shared>, outbox: Outbox, flags: Flags) -> Self {
        let full_extranonce_size = usize::from(
            shared
                .extranonces
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .total_extranonce_len(),
        );
        let mining = &shared.config.mining;
        let jobs = JobMaker::new(
            &mining.tag,
            true,
            full_extranonce_size,
            mining.payout_script.clone(),
        );
        Self {
            id,
            shared,
            outbox,
            flags,
            extension: false,
            // Group ids share the channels' id space (5.2.3); the group is the first of it.
            group_id: 1,
            next_channel_id: 2,
            channels: BTreeMap::new(),
            jobs,
            work: None,
            group_job: None,
            accepted: AcceptedJobs::default(),
            batch_jobs: BatchJobs::new(Instant::now().into_std()),
            registering: None,
            worker: None,
            commands: None,
            in_flight: JoinSet::new(),
            claims_in_flight: 0,
        }
    }

    async fn run(&mut self, mut reader: FrameReader, token: &CancellationToken) -> Ended {
        let mut templates = self.shared.templates.subscribe();
        templates.mark_changed();
        let mut vardiff = interval_at(Instant::now() + VARDIFF_INTERVAL, VARDIFF_INTERVAL);
        vardiff.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = Some(Instant::now());
        loop {
            let step = tokio::select! {
                () = token.cancelled() => return Ended::Closed,
                changed = templates.changed() => {
                    if changed.is_err() {
                        return Ended::Closed;
                    }
                    let work = templates.borrow_and_update().clone();
                    work.map_or(Ok(()), |work| self.on_work(work))
                }
                Some(done) = self.in_flight.join_next() => match done {
                    Ok(done) => self.on_settled(done),
                    Err(_) => Err(Ended::Fault("a settlement did not end")),
                },
                Some(command) = next_command(&mut self.commands) => self.on_command(command),
                _ = vardiff.tick() => self.on_vardiff().and_then(|()| self.check_idle(&mut idle_since)),
                frame = reader.read(), if self.in_flight.len() < IN_FLIGHT_MAX => match frame {
                    Ok(frame) => self.on_frame(frame).await,
                    Err(error) => {
                        tracing::debug!(id = self.id, %error, "reading from a miner ended");
                        Err(Ended::Closed)
                    }
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Looks the message up by its header alone: `parsers_sv2` would refuse what it does not know.
    async fn on_frame(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame.extension_type {
            0 => self.on_mining_frame(&frame).await,
            messages::RequestExtensions::EXTENSION_TYPE => self.on_negotiation_frame(&frame),
            EXTENSION_TYPE if self.extension => self.on_extension_frame(&frame).await,
            // Unknown extensions are discarded; the connection stays (3.4.1).
            _ => Ok(()),
        }
    }

    async fn on_mining_frame(&mut self, frame: &Frame) -> Result<(), Ended> {
        if frame.is::<messages::OpenStandardMiningChannel>() {
            self.on_open_standard(whole(frame)?)
        } else if frame.is::<messages::OpenExtendedMiningChannel>() {
            self.on_open_extended(whole(frame)?)
        } else if frame.is::<messages::UpdateChannel>() {
            self.on_update_channel(&whole(frame)?)
        } else if frame.is::<messages::CloseChannel>() {
            self.on_close_channel(&whole(frame)?);
            Ok(())
        } else if frame.is::<messages::SubmitSharesStandard>() {
            self.on_submit_standard(whole(frame)?)
        } else if frame.is::<messages::SubmitSharesExtended>() {
            let (share, fields) = frame.decode_with_tlvs::<messages::SubmitSharesExtended>()?;
            self.on_submit_extended(share, &fields)
        } else if frame.is::<messages::SetCustomMiningJob>() {
            self.on_set_custom_job(whole(frame)?).await
        } else {
            Err(Ended::Protocol("a message that miners do not send"))
        }
    }

    fn on_negotiation_frame(&mut self, frame: &Frame) -> Result<(), Ended> {
        if !frame.is::<messages::RequestExtensions>() {
            return Ok(());
        }
        let request: messages::RequestExtensions = whole(frame)?;
        match negotiate::answer(&request, &[EXTENSION_TYPE], &[]) {
            Ok(success) => {
                self.extension |= success
                    .supported_extensions
                    .as_slice()
                    .contains(&EXTENSION_TYPE);
                self.send(&success)
            }
            Err(error) => self.send(&error),
        }
    }

    async fn on_extension_frame(&mut self, frame: &Frame) -> Result<(), Ended> {
        if frame.is::<ext::RegisterWorker>() {
            self.on_register(whole(frame)?)
        } else if frame.is::<ext::RegisterWorkerProof>() {
            self.on_proof(&whole(frame)?)
        } else if frame.is::<ext::StreamTokens>() {
            self.on_stream(&whole(frame)?)
        } else if frame.is::<ext::DeliverTranscript>() {
            self.on_transcript(whole(frame)?).await
        } else if frame.is::<ext::RegisterBatch>() {
            self.on_register_batch(&whole(frame)?).await
        } else if frame.is::<ext::RequestBatchJob>() {
            self.on_request_batch_job(&whole(frame)?).await
        } else if frame.is::<ext::AssignTaskError>() {
            self.on_assign_error(&whole(frame)?).await;
            Ok(())
        } else if frame.is::<ext::Invoice>() {
            self.on_invoice(whole(frame)?);
            Ok(())
        } else if frame.is::<ext::InvoiceError>() {
            self.on_invoice_error(&whole(frame)?);
            Ok(())
        } else {
            Err(Ended::Protocol("a message that workers do not send"))
        }
    }

    fn check_idle(&self, idle_since: &mut Option<Instant>) -> Result<(), Ended> {
        if !self.channels.is_empty() {
            *idle_since = None;
            return Ok(());
        }
        let since = *idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() > IDLE_TIME_MAX {
            return Err(Ended::Idle);
        }
        Ok(())
    }

    /// Gives back what others know of this connection, tasks that it ran among them.
    async fn leave(&mut self) {
        let Some(worker) = self.worker.take() else {
            return;
        };
        // Closed before the dispatcher forgets us, so that no task is sent to where nobody reads.
        self.commands = None;
        for task in self.shared.dispatcher.unregister(&worker, self.id) {
            self.shared.give_back(task, worker, GivenBack::Lost).await;
        }
        self.shared.spawn_pairing();
    }

    /// Queues a message; a miner that does not read is dropped.
    pub(super) fn send<M: Message>(&self, message: &M) -> Result<(), Ended> {
        self.outbox.send(message).map_err(|error| {
            tracing::debug!(id = self.id, %error, "a message was not queued");
            Ended::Closed
        })
    }

    pub(super) fn take_channel_id(&mut self) -> u32 {
        let id = self.next_channel_id;
        self.next_channel_id = id.wrapping_add(1).max(2);
        id
    }

    pub(super) fn extranonces(&self) -> MutexGuard<'_, ExtranonceAllocator> {
        self.shared
            .extranonces
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The message, with nothing behind it but whole fields of extensions.
fn whole<M: Message>(frame: &Frame) -> Result<M, Ended> {
    Ok(frame.decode_with_tlvs::<M>()?.0)
}

async fn next_command(
    commands: &mut Option<mpsc::Receiver<WorkerCommand>>,
) -> Option<WorkerCommand> {
    match commands {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}
