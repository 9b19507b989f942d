//! The daemon: keeps a session with the pool, gives its tasks to the engine, its batches to the
//! claimer and its payouts to the wallet. It owns what outlives a session: the key, the models and
//! the transcripts that wait for a claim.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::Transcript;
use dovetail_engine::{Model, Runtime};
use dovetail_lightning::Client;
use dovetail_sv2::extension::{
    AssignTaskError, BatchOutcome, Bytes, DeliverTranscript, StreamTokens, codes,
};
use dovetail_sv2::{Outbox, OutboxError};
use dovetail_templates::TemplateHandle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::beacon::Beacon;
use crate::claim::{ClaimEnd, ClaimError, Claimer};
use crate::config::Config;
use crate::declarator::DeclaratorOptions;
use crate::keys::WorkerKeys;
use crate::session::{PoolEvent, PoolOptions, PoolSession, SessionError};
use crate::tasks::{Engine, Models, TaskEvent, TaskRunner};
use crate::transcripts::{BATCH_TRANSCRIPTS_MAX, ReadyBatch, Transcripts};
use crate::wallet::{InvoiceAnswer, invoice};

/// The waits between sessions.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);
/// How often expiry and batches are looked at, besides at events.
const TICK: Duration = Duration::from_millis(250);
/// Events of the pool that wait for the claimer; it is asked for a handful at a time.
const CLAIM_EVENTS_MAX: usize = 256;
/// Payouts whose invoice is being made. A pool asks for one at a time.
const INVOICES_MAX: usize = 8;
/// The wait before a claim that failed is tried again.
const CLAIM_RETRY: Duration = Duration::from_secs(2);

/// In place of a beacon's value where no audit took place.
const NO_AUDIT: [u8; 32] = [0; 32];

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file.
    #[error(transparent)]
    Key(#[from] crate::keys::KeyFileError),
    /// The engine's threads.
    #[error(transparent)]
    Engine(#[from] dovetail_engine::EngineError),
    /// A model file.
    #[error("cannot load the model {path}: {source}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: dovetail_engine::EngineError,
    },
    /// The template source.
    #[error(transparent)]
    Templates(#[from] dovetail_templates::TemplateError),
    /// The engine's thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A worker that is ready to connect.
pub struct Worker {
    config: Config,
    keys: WorkerKeys,
    options: PoolOptions,
    templates: TemplateHandle,
    runner: TaskRunner,
    task_events: mpsc::Receiver<TaskEvent>,
    transcripts: Transcripts,
    /// What we know of the pool's beacon; it outlives sessions, so that no step is shown twice.
    beacon: Beacon,
    /// When the oldest transcript that is ready began to wait for others.
    waiting_since: Option<Instant>,
    /// Before this no claim is started, after one failed.
    no_claim_before: Option<Instant>,
}

/// What a claim's task gives back.
struct ClaimDone {
    claimer: Claimer,
    result: Result<ClaimEnd, ClaimError>,
}

/// What belongs to one session.
struct Session {
    pool: PoolSession,
    channel: watch::Sender<crate::session::Channel>,
    claim_events: mpsc::Sender<PoolEvent>,
    idle_claimer: Option<Claimer>,
    claims: JoinSet<ClaimDone>,
    /// The batch that is being claimed; it goes back to the others if the session ends.
    in_flight: Option<ReadyBatch>,
    invoices: JoinSet<InvoiceAnswer>,
}

impl Worker {
    /// Reads the key and the models and starts the template source and the engine.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub fn start(config: Config, shutdown: &CancellationToken) -> Result<Self, StartError> {
        let keys = WorkerKeys::load_or_create(&config.worker.key_file)?;
        let models = load_models(&config.worker.models)?;
        let templates = dovetail_templates::start(config.templates.clone(), shutdown.clone())?;
        let options = PoolOptions {
            address: config.pool.address.clone(),
            authority: config.pool.authority_public_key,
            models: models.keys().copied().collect(),
            max_tasks: config.worker.max_tasks,
            nominal_hash_rate: config.worker.nominal_hash_rate,
        };
        let tasks_max = usize::from(config.worker.max_tasks);
        let engine = Engine {
            models,
            runtime: Runtime::new(config.worker.threads)?,
            prefix_bytes_max: config.worker.prefix_cache_mib << 20,
        };
        tracing::info!(
            kernel = engine.runtime.kernel().name(),
            threads = engine.runtime.threads(),
            "engine ready"
        );
        let (runner, task_events) = TaskRunner::start(engine, keys.name, tasks_max)?;
        Ok(Self {
            config,
            keys,
            options,
            templates,
            runner,
            task_events,
            transcripts: Transcripts::default(),
            beacon: Beacon::new(NO_AUDIT),
            waiting_since: None,
            no_claim_before: None,
        })
    }

    /// The key by which the pool knows this worker.
    pub fn keys(&self) -> &WorkerKeys {
        &self.keys
    }

    /// Works until `shutdown` is cancelled. `registered` is called after each registration.
    pub async fn run(mut self, shutdown: CancellationToken, mut registered: impl FnMut(&Self)) {
        let mut wait = *BACKOFF.start();
        while !shutdown.is_cancelled() {
            let since = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                opened = PoolSession::open(&self.options, &self.keys) => match opened {
                    Ok(pool) => {
                        tracing::info!(worker = %self.keys.name, channel = pool.channel().id, "registered with the pool");
                        registered(&self);
                        if self.beacon.tip() != pool.beacon_tip() {
                            self.beacon = Beacon::new(pool.beacon_tip());
                        }
                        let session = self.session(pool);
                        self.serve(session, &shutdown).await
                    }
                    Err(error) => Err(error),
                },
            };
            self.runner.cancel_all();
            let Err(error) = ended else {
                return;
            };
            tracing::warn!(%error, "no session with the pool; connecting again");
            if since.elapsed() > *BACKOFF.end() {
                wait = *BACKOFF.start();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(*BACKOFF.end());
        }
    }

    fn session(&self, pool: PoolSession) -> Session {
        let (channel, channel_now) = watch::channel(pool.channel().clone());
        let (claim_events, events) = mpsc::channel(CLAIM_EVENTS_MAX);
        let claimer = Claimer::new(
            pool.outbox().clone(),
            channel_now,
            events,
            self.templates.clone(),
            DeclaratorOptions {
                address: self.config.job_declarator.address.clone(),
                authority: self.config.job_declarator.authority_public_key,
            },
            self.keys.clone(),
        );
        Session {
            pool,
            channel,
            claim_events,
            idle_claimer: Some(claimer),
            claims: JoinSet::new(),
            in_flight: None,
            invoices: JoinSet::new(),
        }
    }

    /// Serves one session to its end; `Ok` only at shutdown.
    async fn serve(
        &mut self,
        mut session: Session,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let ended = self.serve_loop(&mut session, shutdown).await;
        if let Some(batch) = session.in_flight.take() {
            self.transcripts.put_back(batch);
        }
        ended
    }

    async fn serve_loop(
        &mut self,
        session: &mut Session,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        for transcript in self.transcripts.undelivered() {
            deliver(session.pool.outbox(), transcript)?;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = session.pool.next() => self.on_pool(session, event?)?,
                Some(event) = self.task_events.recv() => self.on_task(session, event)?,
                Some(done) = session.claims.join_next() => {
                    // A panic of the claim's task ends the session, loudly.
                    let done = done.map_err(|_| SessionError::Defect("a claim panicked"))?;
                    self.on_claim(session, done);
                }
                Some(Ok(answer)) = session.invoices.join_next() => match answer {
                    InvoiceAnswer::Invoice(invoice) => session.pool.send(&invoice)?,
                    InvoiceAnswer::Refused(error) => session.pool.send(&error)?,
                },
                _ = tick.tick() => {}
            }
            self.start_claim(session);
        }
    }

    fn on_pool(&mut self, session: &mut Session, event: PoolEvent) -> Result<(), SessionError> {
        match event {
            PoolEvent::Task(task) => {
                let task_id = task.task_id;
                tracing::info!(task = %task_id, model = %task.model_id, "took a task");
                if let Err(code) = self.runner.take(task) {
                    tracing::warn!(task = %task_id, code, "refused the task");
                    refuse(session.pool.outbox(), task_id, code)?;
                }
            }
            PoolEvent::Cancelled(task_id) => {
                tracing::info!(task = %task_id, "the task was cancelled");
                self.runner.cancel(&task_id);
            }
            PoolEvent::TranscriptAccepted(task_id) => {
                self.transcripts.accept(&task_id);
                self.waiting_since.get_or_insert_with(Instant::now);
            }
            PoolEvent::TranscriptRefused(task_id, code) => {
                tracing::warn!(task = %task_id, code, "the pool refused the transcript");
                // It stays undelivered and is offered again on the next session.
                if code != codes::INTERNAL {
                    self.transcripts.remove(&task_id);
                }
            }
            PoolEvent::InvoiceWanted(request) => {
                tracing::info!(payout = %hex::encode(request.payout_id), msat = request.amount_msat, "the pool wants to pay");
                if session.invoices.len() < INVOICES_MAX {
                    let wallet = self.config.wallet.as_ref();
                    let wallet = wallet.map(|wallet| Client::new(wallet.socket.clone()));
                    session.invoices.spawn(invoice(wallet, request));
                }
            }
            PoolEvent::Payout(result) => {
                tracing::info!(payout = %hex::encode(result.payout_id), paid = result.paid, "the payout ended");
            }
            PoolEvent::ChannelChanged => {
                session.channel.send_replace(session.pool.channel().clone());
            }
            PoolEvent::Other => {}
            PoolEvent::Outcome(outcome) => {
                check_beacon(&mut self.beacon, &outcome);
                forward(session, PoolEvent::Outcome(outcome));
            }
            answer => forward(session, answer),
        }
        Ok(())
    }

    fn on_task(&mut self, session: &Session, event: TaskEvent) -> Result<(), SessionError> {
        let outbox = session.pool.outbox();
        match event {
            TaskEvent::Tokens {
                task_id,
                first_position,
                tokens,
            } => outbox.send(&StreamTokens {
                task_id,
                first_position,
                tokens,
            })?,
            TaskEvent::Finished {
                transcript,
                expires,
            } => {
                tracing::info!(task = %transcript.task_id, tokens = transcript.output_tokens, "finished a task");
                deliver(outbox, &transcript)?;
                if self.transcripts.push(*transcript, expires).is_some() {
                    tracing::warn!("too many transcripts wait for a share; dropped the oldest");
                }
            }
            TaskEvent::Failed { task_id, code } => {
                tracing::warn!(task = %task_id, code, "the task failed");
                refuse(outbox, task_id, code)?;
            }
            TaskEvent::Dropped(task_id) => tracing::info!(task = %task_id, "dropped the task"),
        }
        Ok(())
    }

    /// Claims a batch if there is reason to: nothing is running, or enough wait, or for long enough.
    fn start_claim(&mut self, session: &mut Session) {
        let now = Instant::now();
        let expired = self.transcripts.expire(now);
        if expired > 0 {
            tracing::warn!(expired, "transcripts expired before a share claimed them");
        }
        let ready = self.transcripts.ready();
        if ready == 0 {
            self.waiting_since = None;
            return;
        }
        let wait = Duration::from_millis(self.config.worker.batch_wait_ms);
        let due = self.runner.open() == 0
            || ready >= BATCH_TRANSCRIPTS_MAX
            || self
                .waiting_since
                .is_some_and(|since| since.elapsed() >= wait);
        if !due || self.no_claim_before.is_some_and(|before| now < before) {
            return;
        }
        let Some(mut claimer) = session.idle_claimer.take() else {
            return;
        };
        let Some(batch) = self.transcripts.take_batch() else {
            session.idle_claimer = Some(claimer);
            return;
        };
        self.waiting_since = None;
        tracing::info!(root = %batch.root, transcripts = batch.task_ids.len(), "claiming a batch");
        session.in_flight = Some(batch.clone());
        session.claims.spawn(async move {
            let result = claimer.claim(&batch).await;
            ClaimDone { claimer, result }
        });
    }

    fn on_claim(&mut self, session: &mut Session, done: ClaimDone) {
        session.idle_claimer = Some(done.claimer);
        let Some(batch) = session.in_flight.take() else {
            return;
        };
        let root = batch.root;
        match done.result {
            Ok(ClaimEnd::Settled { accepted: true, .. }) => {
                tracing::info!(%root, transcripts = batch.task_ids.len(), "the pool credited the share and the batch");
            }
            Ok(ClaimEnd::Settled { code, .. }) => {
                tracing::warn!(%root, code, "the audit failed; the batch earns nothing");
            }
            Ok(ClaimEnd::Refused(code)) => {
                tracing::warn!(%root, code, "the pool refused the batch");
            }
            Err(error) => {
                tracing::warn!(%root, %error, "the claim did not come to an end; trying again");
                self.no_claim_before = Some(Instant::now() + CLAIM_RETRY);
                self.transcripts.put_back(batch);
            }
        }
    }
}

/// Hands an event to the claimer. A claimer that does not keep up would wait for nothing.
fn forward(session: &Session, event: PoolEvent) {
    if session.claim_events.try_send(event).is_err() {
        tracing::warn!("dropped an answer of the pool that nobody waits for");
    }
}

fn check_beacon(beacon: &mut Beacon, outcome: &BatchOutcome) {
    let (root, step) = (outcome.root, outcome.beacon_step);
    if outcome.preimage == NO_AUDIT {
        tracing::info!(%root, "the pool settled the batch without an audit");
        return;
    }
    match beacon.reveal(step, &outcome.preimage) {
        Ok(()) => {
            tracing::info!(%root, header = %outcome.header_hash, accepted = outcome.accepted, step, "the pool revealed the beacon of the audit, and it is of its chain");
        }
        Err(error) => {
            tracing::error!(%root, %error, "the pool may have chosen the sample");
        }
    }
}

fn deliver(outbox: &Outbox, transcript: &Transcript) -> Result<(), OutboxError> {
    outbox.send(&DeliverTranscript {
        task_id: transcript.task_id,
        transcript: Bytes(transcript.encode()),
    })
}

fn refuse(
    outbox: &Outbox,
    task_id: dovetail_commitment::TaskId,
    code: &str,
) -> Result<(), OutboxError> {
    outbox.send(&AssignTaskError {
        task_id,
        code: code.to_owned(),
    })
}

fn load_models(paths: &[PathBuf]) -> Result<Models, StartError> {
    let mut models = BTreeMap::new();
    for path in paths {
        let model = Model::load(path).map_err(|source| StartError::Model {
            path: path.clone(),
            source,
        })?;
        tracing::info!(model = %model.id(), name = model.name(), "loaded a model");
        models.insert(model.id(), Arc::new(model));
    }
    Ok(models)
}
