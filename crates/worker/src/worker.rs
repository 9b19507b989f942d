//! The daemon: keeps a session with the pool, gives its tasks to the engine, its batches to the
//! claimer and its payouts to the wallet. It owns what outlives a session: the key, the models and
//! the transcripts that wait for a claim.

mod serving;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use dovetail_engine::Runtime;
use dovetail_sv2::{AuthorityKeys, AuthorityPublicKey};
use dovetail_templates::TemplateHandle;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::beacon::{BeaconFileError, Beacons};
use crate::board::Board;
use crate::claim::{ClaimEnd, ClaimError, Claimer};
use crate::config::{Config, Downstream};
use crate::declarator::DeclaratorOptions;
use crate::downstream;
use crate::keys::WorkerKeys;
use crate::pool_jobs::PoolJobs;
use crate::session::{PoolEvent, PoolOptions, PoolSession};
use crate::tasks::{Engine, TaskEvent, TaskRunner};
use crate::transcripts::{ReadyBatch, Transcripts};
use crate::wallet::InvoiceAnswer;

/// The waits between sessions.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(60);
/// Events of the pool that wait for the claimer; it is asked for a handful at a time.
const CLAIM_EVENTS_MAX: usize = 256;
/// How often it is said that a pool was left for good.
const LEFT_REMINDER: Duration = Duration::from_secs(300);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file.
    #[error(transparent)]
    Key(#[from] crate::keys::KeyFileError),
    /// The engine's threads.
    #[error(transparent)]
    Engine(#[from] dovetail_engine::EngineError),
    /// What is remembered of pools' beacons.
    #[error(transparent)]
    Beacons(#[from] BeaconFileError),
    /// A model.
    #[error(transparent)]
    Model(#[from] crate::models::ModelError),
    /// The template source.
    #[error(transparent)]
    Templates(#[from] dovetail_templates::TemplateError),
    /// The engine's thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The port for firmware.
    #[error("cannot listen for firmware on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A worker that is ready to connect.
pub struct Worker {
    config: Config,
    keys: WorkerKeys,
    options: PoolOptions,
    /// Of our own node, where we have one.
    templates: Option<TemplateHandle>,
    board: Arc<Board>,
    firmware: Option<FirmwarePort>,
    runner: TaskRunner,
    task_events: mpsc::Receiver<TaskEvent>,
    transcripts: Transcripts,
    /// What we know of pools' beacons; it outlives sessions and restarts, so that no step is shown twice.
    beacons: Beacons,
    /// When the oldest transcript that is ready began to wait for others.
    waiting_since: Option<Instant>,
    /// Before this no claim is started, after one failed.
    no_claim_before: Option<Instant>,
}

/// The port for firmware, bound and not served yet.
struct FirmwarePort {
    listener: std::net::TcpListener,
    address: SocketAddr,
    keys: AuthorityKeys,
    config: Downstream,
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
    /// The payout that an invoice was made for last, and its amount.
    asked: Option<([u8; 32], u64)>,
    pool_jobs: PoolJobs,
    /// Numbers of requests and shares.
    numbers: Arc<AtomicU32>,
    /// The step of the beacon that was the next one when the claim under way, or the last, began.
    floor: u32,
}

impl Worker {
    /// Reads the key and the models, fetching those that are not here, and starts the template source and
    /// the engine. While the pool cannot be reached, it waits for it.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub async fn start(config: Config, shutdown: &CancellationToken) -> Result<Self, StartError> {
        let keys = WorkerKeys::load_or_create(&config.worker.key_file)?;
        let beacons = Beacons::load(&config.worker.key_file.with_extension("beacons"))?;
        let models = crate::models::obtain(&config).await?;
        let templates = config
            .templates
            .clone()
            .map(|source| dovetail_templates::start(source, shutdown.clone()))
            .transpose()?;
        let options = PoolOptions {
            address: config.pool.address.clone(),
            authority: config.pool.authority_public_key,
            models: models.keys().copied().collect(),
            max_tasks: config.worker.max_tasks,
            nominal_hash_rate: config.worker.nominal_hash_rate,
            declares_jobs: config.job_declarator.is_some(),
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
        let firmware = config.downstream.clone().map(firmware_port).transpose()?;
        Ok(Self {
            config,
            keys,
            options,
            templates,
            board: Arc::default(),
            firmware,
            runner,
            task_events,
            transcripts: Transcripts::default(),
            beacons,
            waiting_since: None,
            no_claim_before: None,
        })
    }

    /// The key by which the pool knows this worker.
    pub fn keys(&self) -> &WorkerKeys {
        &self.keys
    }

    /// Where firmware connects, and the key that it recognises this worker by.
    pub fn firmware_port(&self) -> Option<(SocketAddr, AuthorityPublicKey)> {
        let port = self.firmware.as_ref()?;
        Some((port.address, port.keys.public()))
    }

    /// Works until `shutdown` is cancelled. `registered` is called after each registration.
    pub async fn run(mut self, shutdown: CancellationToken, mut registered: impl FnMut(&Self)) {
        let firmware = self.serve_firmware(&shutdown);
        self.sessions(&shutdown, &mut registered).await;
        if let Some(firmware) = firmware
            && firmware.await.is_err()
        {
            tracing::error!("the port for firmware failed");
        }
    }

    /// Starts serving firmware, where a port is configured.
    fn serve_firmware(&self, shutdown: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
        let port = self.firmware.as_ref()?;
        let listener = port.listener.try_clone().and_then(TcpListener::from_std);
        let listener = match listener {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot serve firmware");
                return None;
            }
        };
        tracing::info!(address = %port.address, authority_public_key = %port.keys.public(), "serving firmware");
        let (keys, config, board) = (port.keys, port.config.clone(), self.board.clone());
        let served = downstream::serve(listener, keys, config, board, shutdown.clone());
        Some(tokio::spawn(served))
    }

    /// One session after another.
    async fn sessions(&mut self, shutdown: &CancellationToken, registered: &mut impl FnMut(&Self)) {
        let mut wait = *BACKOFF.start();
        let pool_name = self.options.name();
        while !shutdown.is_cancelled() {
            if let Some(reason) = self.beacons.left(&pool_name) {
                tracing::error!(pool = pool_name, reason, file = %self.beacons.path().display(), "this worker has left the pool, which broke its own beacon; take its entry out of the file to go back");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(LEFT_REMINDER) => continue,
                }
            }
            let since = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                opened = PoolSession::open(&self.options, &self.keys) => match opened {
                    Ok(pool) => {
                        tracing::info!(worker = %self.keys.name, channel = pool.channel().id, "registered with the pool");
                        registered(self);
                        self.beacons.meet(&pool_name, pool.beacon_tip());
                        let session = self.session(pool);
                        self.serve(session, shutdown).await
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
        let (outbox, keys) = (pool.outbox().clone(), self.keys.clone());
        let claimer = match (&self.templates, &self.config.job_declarator) {
            (Some(templates), Some(declarator)) => {
                let templates = templates.clone();
                let declarator = DeclaratorOptions {
                    address: declarator.address.clone(),
                    authority: declarator.authority_public_key,
                };
                Claimer::new(outbox, channel_now, events, templates, declarator, keys)
            }
            _ => Claimer::without_node(outbox, channel_now, events, keys),
        };
        let claimer = claimer.on_board(self.board.clone(), self.config.worker.search);
        let numbers = claimer.numbers();
        Session {
            pool,
            channel,
            claim_events,
            idle_claimer: Some(claimer),
            claims: JoinSet::new(),
            in_flight: None,
            invoices: JoinSet::new(),
            asked: None,
            pool_jobs: PoolJobs::new(self.board.clone()),
            numbers,
            floor: self.beacons.next_step(&self.options.name()),
        }
    }
}

fn firmware_port(config: Downstream) -> Result<FirmwarePort, StartError> {
    let keys = crate::keys::authority_keys(&config.key_file)?;
    let bind = || {
        let listener = std::net::TcpListener::bind(config.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let (listener, address) = bind().map_err(|source| StartError::Listen {
        address: config.listen,
        source,
    })?;
    Ok(FirmwarePort {
        listener,
        address,
        keys,
        config,
    })
}
