//! The daemon: keeps a session with one of its pools, gives its tasks to the engine, its batches to
//! the claimer and its payouts to the wallet. It owns what outlives a session: the key, the models and
//! the transcripts that wait for a claim.

mod hash_rate;
mod session;
mod session_failure;
mod uncredited;
mod upstreams;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_commitment::TaskId;
use dovetail_engine::Runtime;
use dovetail_lightning::Client;
use dovetail_miner::current_job::CurrentJob;
use dovetail_miner::declarator_client::DeclaratorOptions;
use dovetail_miner::declared_jobs::{DeclaredJobs, DeclaredJobsOptions, ShareRequests, Start};
use dovetail_miner::firmware::{self, FirmwareOptions};
use dovetail_miner::keys::{KeyFileError, WorkerKeys, authority_keys};
use dovetail_miner::pool_jobs::PoolJobs;
use dovetail_miner::pool_session::{Channel, PoolOptions, PoolSession};
use dovetail_miner::pool_watch::{Patience, PoolWatch};
use dovetail_miner::share_numbers::ShareNumbers;
use dovetail_miner::stats::Upstream as InUse;
use dovetail_miner::submitter::Submitter;
use dovetail_serving::downloads::Downloads;
use dovetail_serving::engine::Engine;
use dovetail_serving::fetch::AuthorityError;
use dovetail_serving::models::{self, ModelError, Models};
use dovetail_serving::task::TaskEvent;
use dovetail_serving::task_runner::TaskRunner;
use dovetail_sv2::{AuthorityKeys, AuthorityPublicKey};
use dovetail_templates::Readiness;
use dovetail_templates::block_publisher::{BlockPublisher, PublisherOptions};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claim::{ClaimEnd, ClaimError, ClaimTimes, Claimer, SentClaims};
use crate::config::{BetweenBatches, Config, Firmware};
use crate::page::{self, Page};
use crate::promises::{LeftPools, LeftPoolsError};
use crate::stats::Stats;
use crate::wallet::Payouts;

use session::{ChangeOver, Chatter, End, NodeTips, Rates, Session};
pub use upstreams::NoPoolLeft;
use upstreams::Upstream;

/// Events of the pool that wait for the claimer; it is asked for a handful at a time.
const CLAIM_EVENTS_MAX: usize = 256;
/// How long the last blocks may take to reach our node when we stop.
const LAST_BLOCKS_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The engine's threads.
    #[error(transparent)]
    Engine(#[from] dovetail_engine::EngineError),
    /// The pools that were left.
    #[error(transparent)]
    Left(#[from] LeftPoolsError),
    /// The authority of the pool's API.
    #[error("fetch.ca: {0}")]
    Authority(#[from] AuthorityError),
    /// A model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The template source.
    #[error(transparent)]
    Templates(#[from] dovetail_templates::TemplateError),
    /// The engine's thread.
    #[error("cannot start the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The port for firmware, or for the page.
    #[error("cannot listen for {whom} on {address}: {source}")]
    Listen {
        /// For whom.
        whom: &'static str,
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
    /// The pools in order of preference.
    upstreams: Vec<Upstream>,
    /// Where blocks go: to our own node, where we have one.
    blocks: Option<BlockPublisher>,
    /// What devices hash.
    current_job: Arc<CurrentJob>,
    stats: Arc<Stats>,
    firmware: Option<FirmwarePort>,
    page: Option<Bound>,
    started: Instant,
    /// The models that are served, and those that are still to come from a pool.
    models: Models,
    downloads: Option<Downloads>,
    runner: TaskRunner,
    task_events: mpsc::Receiver<TaskEvent>,
    /// The pools that broke their word; it outlives sessions and restarts.
    left: LeftPools,
    /// How long a pool may leave what undone.
    patience: Patience,
    /// Whose the running tasks are, by the pool's place in the list.
    owners: HashMap<TaskId, usize>,
    /// Payouts under way; a pool may pay on a later session than the one that it announced it on.
    payouts: Payouts,
    /// How long pools may take for claims.
    claim_times: ClaimTimes,
}

/// A port that is bound and not served yet.
struct Bound {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

/// The port for firmware.
struct FirmwarePort {
    bound: Bound,
    keys: AuthorityKeys,
    options: FirmwareOptions,
}

/// What a claim's task gives back.
struct ClaimDone {
    claimer: Claimer,
    result: Result<ClaimEnd, ClaimError>,
}

impl Worker {
    /// Reads the key and the models that are here, and starts the template source and the engine. It waits for no
    /// model that is to be fetched: sessions and devices do without it until it is there.
    ///
    /// # Errors
    /// The first thing that is missing.
    pub async fn start(config: Config, shutdown: &CancellationToken) -> Result<Self, StartError> {
        let keys = WorkerKeys::load_or_create(&config.worker.key_file)?;
        let left = LeftPools::load(&config.worker.key_file.with_extension("left"))?;
        let models = models::load(&config.worker.models)?;
        let downloads = config.downloads(&models)?;
        if let Some(downloads) = &downloads {
            downloads.serve_cached().await;
        }
        let blocks = start_blocks(&config, shutdown).await?;
        let upstream = |pool: &crate::config::Pool| {
            let options = PoolOptions {
                address: pool.address.clone(),
                authority: pool.authority_public_key,
                models: models.ids(),
                max_tasks: config.worker.max_tasks,
                keep: config.worker.keep_msat,
                nominal_hash_rate: config.worker.nominal_hash_rate,
                declares_jobs: pool.job_declarator.is_some(),
            };
            Upstream::new(pool, options)
        };
        let upstreams = config.pool.iter().map(upstream).collect();
        let tasks_max = usize::from(config.worker.max_tasks);
        let engine = Engine {
            models: models.clone(),
            runtime: Runtime::new(config.worker.threads)?,
            prefix_bytes_max: config.worker.prefix_cache_mib << 20,
        };
        tracing::info!(
            kernel = engine.runtime.kernel().name(),
            threads = engine.runtime.threads(),
            "engine ready"
        );
        let (runner, task_events) = TaskRunner::start(engine, keys.name, tasks_max)?;
        let firmware = config.firmware.as_ref().map(firmware_port).transpose()?;
        let page = config
            .page
            .as_ref()
            .map(|page| bind("the page", page.listen));
        let page = page.transpose()?;
        let current_job = Arc::<CurrentJob>::default();
        Ok(Self {
            stats: Arc::new(Stats::beside(current_job.stats().clone())),
            payouts: payouts(&config),
            claim_times: ClaimTimes::default(),
            config,
            keys,
            upstreams,
            blocks,
            current_job,
            firmware,
            page,
            started: Instant::now(),
            models,
            downloads,
            runner,
            task_events,
            left,
            patience: Patience::default(),
            owners: HashMap::new(),
        })
    }

    /// Waits this long for pools to answer claims, and no longer.
    #[must_use]
    pub fn with_claim_times(mut self, times: ClaimTimes) -> Self {
        self.claim_times = times;
        self
    }

    /// Leaves pools that leave this undone for as long, and no sooner.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The key by which the pool knows this worker.
    pub fn keys(&self) -> &WorkerKeys {
        &self.keys
    }

    /// Where firmware connects, and the key that it recognises this worker by.
    pub fn firmware_port(&self) -> Option<(SocketAddr, AuthorityPublicKey)> {
        let port = self.firmware.as_ref()?;
        Some((port.bound.address, port.keys.public()))
    }

    /// Where the page is.
    pub fn page(&self) -> Option<SocketAddr> {
        self.page.as_ref().map(|page| page.address)
    }

    /// Works until `shutdown` is cancelled. `told` hears whenever devices have somebody to work for: after each
    /// registration, and when solo mining begins; and, each time that it was tried in vain, that they have nobody.
    ///
    /// # Errors
    /// No pool may be used any more.
    pub async fn run(
        mut self,
        shutdown: CancellationToken,
        mut told: impl FnMut(&Self, Readiness<'_>),
    ) -> Result<(), NoPoolLeft> {
        let serving = shutdown.child_token();
        let beside = [
            self.serve_firmware(&serving),
            self.serve_page(&serving),
            self.fetch_models(&serving),
        ];
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            ended = self.sessions(&shutdown, &mut told) => ended,
        };
        serving.cancel();
        for task in beside.into_iter().flatten() {
            if task.await.is_err() {
                tracing::error!("a port, or the fetching of models, failed");
            }
        }
        if let Some(blocks) = &self.blocks
            && timeout(LAST_BLOCKS_TIME_MAX, blocks.stopped())
                .await
                .is_err()
        {
            tracing::warn!(
                "our node did not answer for a block; it is sent again at the next start"
            );
        }
        ended
    }

    /// Starts serving firmware, where a port is configured.
    fn serve_firmware(&self, shutdown: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
        let port = self.firmware.as_ref()?;
        let listener = port.bound.listener()?;
        tracing::info!(address = %port.bound.address, authority_public_key = %port.keys.public(), "serving firmware");
        let (options, current_job) = (port.options.clone(), self.current_job.clone());
        let served = firmware::serve(listener, port.keys, options, current_job, shutdown.clone());
        Some(tokio::spawn(served))
    }

    /// Starts serving the page, where one is configured.
    fn serve_page(&self, shutdown: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
        let port = self.page.as_ref()?;
        let listener = port.listener()?;
        tracing::info!(address = %port.address, "serving the page");
        if !port.address.ip().is_loopback() {
            tracing::warn!("the page can be read by everybody who reaches this machine");
        }
        let page = Page {
            worker: self.keys.name.to_string(),
            started: self.started,
            stats: self.stats.clone(),
            models: self.models.clone(),
            downloads: self.downloads.clone(),
        };
        Some(tokio::spawn(page::serve(listener, page, shutdown.clone())))
    }

    /// Starts to fetch the models that are not here. A session registers them once they have arrived.
    fn fetch_models(&self, shutdown: &CancellationToken) -> Option<tokio::task::JoinHandle<()>> {
        let (downloads, shutdown) = (self.downloads.clone()?, shutdown.clone());
        Some(tokio::spawn(async move {
            shutdown.run_until_cancelled(downloads.run()).await;
        }))
    }

    /// One session after another.
    async fn sessions(
        &mut self,
        shutdown: &CancellationToken,
        told: &mut impl FnMut(&Self, Readiness<'_>),
    ) -> Result<(), NoPoolLeft> {
        let mut next = None;
        loop {
            let (index, pool) = match next.take() {
                Some(opened) => opened,
                None => self.find_pool(told).await?,
            };
            let upstream = &self.upstreams[index];
            tracing::info!(worker = %self.keys.name, pool = upstream.options.address, channel = pool.channel().id, "registered with the pool");
            let address = upstream.options.address.clone();
            self.stats.mining.set_upstream(InUse::Pool { address });
            told(self, Readiness::Ready);
            let since = Instant::now();
            let session = self.session(index, pool);
            let ended = self.serve(session, shutdown).await;
            self.runner.cancel_all();
            self.stats.mining.session_ended();
            match ended {
                Ok(End::Shutdown) => return Ok(()),
                Ok(End::ChangeOver(preferred, opened)) => next = Some((preferred, *opened)),
                Err(error) => self.session_ended(index, since.elapsed(), &error),
            }
        }
    }

    fn session(&self, index: usize, pool: PoolSession) -> Session {
        let (channel, channel_now) = watch::channel(pool.channel().clone());
        let (claim_events, events) = mpsc::channel(CLAIM_EVENTS_MAX);
        let numbers = Arc::<ShareNumbers>::default();
        let claim_shares = self.upstreams[index].claim_shares.clone();
        let sent_claims = SentClaims::new(claim_shares, pool.vrf_key());
        let claimer = Claimer::new(
            pool.outbox().clone(),
            channel_now.clone(),
            events,
            self.current_job.clone(),
            self.config.worker.search,
            numbers.clone(),
            sent_claims.clone(),
        )
        .with_times(self.claim_times);
        let submitter = Submitter::new(
            pool.outbox().clone(),
            numbers.clone(),
            self.stats.mining.clone(),
        );
        let (declared_jobs, claimer) = match self.declared_jobs(index, submitter, channel_now) {
            Some((jobs, requests)) => (Some(jobs), claimer.with_declared_jobs(requests)),
            None => (None, claimer),
        };
        Session {
            index,
            pool,
            channel,
            claim_events,
            sent_claims,
            idle_claimer: Some(claimer),
            claims: JoinSet::new(),
            in_flight: None,
            credited: None,
            chatter: Chatter::new(Instant::now()),
            pool_jobs: PoolJobs::new(self.current_job.clone()),
            declared_jobs,
            numbers,
            watch: PoolWatch::new(self.patience, tokio::time::Instant::now()),
            rates: Rates::default(),
            node: self
                .blocks
                .as_ref()
                .map(|blocks| NodeTips::of(blocks.templates())),
            told_hash_rate: (self.options(index).nominal_hash_rate, Instant::now()),
            scout: self.scout(index),
            change_over: ChangeOver::default(),
        }
    }

    /// Starts to declare jobs on templates of our own node, where that is possible.
    fn declared_jobs(
        &self,
        index: usize,
        submitter: Submitter,
        channel: watch::Receiver<Channel>,
    ) -> Option<(DeclaredJobs, ShareRequests)> {
        let blocks = self.blocks.clone()?;
        let declarator = self.upstreams[index].declarator.as_ref()?;
        // Between batches there are devices that hash, or nobody.
        let between_batches =
            declarator.between_batches == BetweenBatches::OwnTemplates && self.firmware.is_some();
        Some(DeclaredJobs::start(Start {
            options: DeclaredJobsOptions {
                blocks,
                declarator: DeclaratorOptions {
                    address: declarator.address.clone(),
                    authority: declarator.authority_public_key,
                },
                between_batches,
                renew_interval: declarator.renew_interval(),
                search_here: self.config.worker.search,
            },
            keys: self.keys.clone(),
            current_job: self.current_job.clone(),
            submitter,
            channel,
        }))
    }
}

/// Payouts to our wallet, where we have one.
fn payouts(config: &Config) -> Payouts {
    match &config.wallet {
        Some(wallet) => {
            let client = Client::new(wallet.socket.clone());
            Payouts::new(Some(client), wallet.payouts_msat())
        }
        None => Payouts::new(None, 0..=u64::MAX),
    }
}

/// Starts our own node's template source, and what publishes blocks there.
async fn start_blocks(
    config: &Config,
    shutdown: &CancellationToken,
) -> Result<Option<BlockPublisher>, StartError> {
    let Some(config_templates) = config.templates.clone() else {
        return Ok(None);
    };
    // Without solo mining the pool says what is worth hashing.
    let source = config_templates.source;
    let templates = match &config.solo {
        Some(solo) => dovetail_templates::start_on(solo.network, source, shutdown.clone())?,
        None => dovetail_templates::start(source, shutdown.clone())?,
    };
    let (blocks, _) = BlockPublisher::start(PublisherOptions {
        templates,
        sinks: dovetail_templates::open_sinks(&config_templates.block_sinks, shutdown)?,
        dir: Some(config.worker.key_file.with_extension("blocks")),
        solves_templates: true,
        shutdown: shutdown.clone(),
    })
    .await;
    Ok(Some(blocks))
}

impl Bound {
    /// The port, to be served.
    fn listener(&self) -> Option<TcpListener> {
        let listener = self.listener.try_clone().and_then(TcpListener::from_std);
        listener
            .inspect_err(
                |error| tracing::error!(address = %self.address, %error, "cannot serve a port"),
            )
            .ok()
    }
}

fn bind(whom: &'static str, address: SocketAddr) -> Result<Bound, StartError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Bound { listener, address })
    };
    bind().map_err(|source| StartError::Listen {
        whom,
        address,
        source,
    })
}

fn firmware_port(config: &Firmware) -> Result<FirmwarePort, StartError> {
    Ok(FirmwarePort {
        keys: authority_keys(&config.key_file)?,
        bound: bind("firmware", config.listen)?,
        options: config.options(),
    })
}
