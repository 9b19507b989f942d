//! Start-up in the order in which things depend on each other, and shutdown in the reverse.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bitcoin::secp256k1::Keypair;
use dovetail_daemon::announce_not_ready;
use dovetail_jd::token::TokenKey;
use dovetail_jd::transactions::TransactionStore;
use dovetail_ledger::{Committer, CommitterConfig, Ledger, RewardsConfig};
use dovetail_lightning::Client;
use dovetail_lnurl::Lnurl;
use dovetail_onchain::WalletKeys;
use dovetail_sv2::listener::BoundPort;
use dovetail_sv2::{AuthorityKeys, AuthorityPublicKey};
use dovetail_telemetry::{JsonLines, Telemetry};
use dovetail_templates::block_publisher::{BlockPublisher, Publication, PublisherOptions};
use dovetail_templates::{Payout, Readiness, TemplateHandle};
use dovetail_vrf::VrfSecret;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accepted_shares;
use crate::agents::grpc::{self, Downloads, PayoutsService, RewardsService};
use crate::agents::openai::{self, OpenAiParts};
use crate::blocks;
use crate::chores;
use crate::claims::audit::Auditor;
use crate::claims::settle::{OF_A_WORKER_IN_LINE_MAX, Settler};
use crate::config::{Config, MiningConfig};
use crate::device_work;
use crate::embedded_declarator;
use crate::header_spaces::HeaderSpaces;
use crate::keys::{Keys, idempotency_secret};
use crate::known_accounts::KnownAccounts;
use crate::mailboxes::Mailboxes;
use crate::models::Models;
use crate::one_each::OneEach;
use crate::payouts::onchain::{self, OnchainParts, OnchainPayouts};
use crate::payouts::{InvoiceAnswers, Pace, PayoutParts, Payouts};
use crate::records;
use crate::rewards;
use crate::share_pace::SharePace;
use crate::shared::Shared;
use crate::solvency::Purses;
use crate::tasks::{Prices, TaskLimits, TaskParts, Tasks};
use crate::validation::{ReplayPace, pace_of, start_validators};

/// Bytes of the whole extranonce: those of the process, up to 3 to tell its channels apart, and 13 or more for miners to
/// roll. The coinbase's script has room for 100 bytes, of which the height and the tag take up to 30.
const EXTRANONCE_BYTES: u8 = 20;
/// Bytes that tell processes apart. Two pools on one node, or one before and after a restart, would else give miners the
/// same headers to hash, and pay the second nothing.
const PROCESS_BYTES: usize = 4;
/// How long the last shares may take to reach the ledger at shutdown.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);

/// Where a pool listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// For miners.
    pub mining: SocketAddr,
    /// For agents.
    pub api: SocketAddr,
    /// For miners that declare jobs, where the pool runs a declarator.
    pub declaration: Option<SocketAddr>,
}

/// Runs the pool until `shutdown`; `ready` is called with the addresses it listens on: once it is ready, and whenever it is
/// ready again.
///
/// # Errors
/// Whatever keeps the pool from starting, in words for its operator.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl Fn(Addresses),
) -> anyhow::Result<()> {
    config
        .check()
        .map_err(|reason| anyhow!("configuration: {reason}"))?;
    let keys = Keys::read(&config)?;
    let base = Base::start(&config, &keys.content).await?;
    let last = Last::default();
    let rewards = rewards::config(&config, keys.receipt)?;
    let settling = (keys.receipt, keys.vrf, rewards.clone());
    let settler = start_settler(&config, &base, settling, &last).await?;
    let (network, source) = (config.mining.network, config.templates.source.clone());
    let templates = dovetail_templates::start_on(network, source, last.stop.clone())
        .context("cannot start the template source")?;
    let (blocks, waiting) = start_blocks(&config, &templates, &last.stop, &shutdown).await?;
    let ports = Ports::bind(&config)?;
    let payout = config.mining.payout().map_err(|reason| anyhow!(reason))?;
    payout.tell(network);
    let (is_ready, readiness) = watch::channel(false);
    let services = services(&config, &base, &keys.receipt, &readiness, &shutdown)?;
    let api = ports.api.listen().context("cannot open api.listen")?;
    let api_address = api.local_addr()?;
    let committer = settler.committer.clone();
    let parts = (settler, templates, blocks.clone());
    let known = (keys.token, keys.authority.public());
    let shared = Arc::new(share(config, &base, parts, payout, known).await?);
    last.keep_counts(&shared);
    for publication in waiting {
        blocks::resume(&shared, publication);
    }
    let purses = Purses::of(&shared.config, keys.onchain.clone())?;
    chores::start(&shared, rewards, purses, &shutdown);
    let opening = async {
        if !has_work(&shared, &shutdown).await? {
            return Ok(());
        }
        let miners = (ports.mining, ports.declaration);
        let (mining, declaration) = open(miners, keys.authority, &shared, &shutdown).await?;
        start_payouts(&shared, &base, keys.onchain, &shutdown)?;
        let addresses = Addresses {
            mining,
            api: api_address,
            declaration,
        };
        let told = |readiness: Readiness<'_>| {
            is_ready.send_replace(readiness == Readiness::Ready);
            match readiness {
                Readiness::Ready => ready(addresses),
                Readiness::NotReady(reason) => announce_not_ready(reason),
            }
        };
        told(Readiness::Ready);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = shared.templates.tell_readiness(told) => {}
        }
        Ok(())
    };
    let serving = grpc::serve(api, keys.tls, services, readiness, shutdown.clone());
    let serving = async { tokio::try_join!(serving, opening).map(|_| ()) };
    let served = tokio::select! {
        served = serving => served,
        error = committer.failed() => Err(error.into()),
    };
    shutdown.cancel();
    base.drain(&blocks).await;
    drop(shared);
    last.stop().await;
    committer.stopped().await;
    served
}

/// What all connections share.
async fn share(
    config: Config,
    base: &Base,
    (settler, templates, blocks): (Settler, TemplateHandle, BlockPublisher),
    payout: Payout,
    (token_key, authority): (TokenKey, AuthorityPublicKey),
) -> anyhow::Result<Shared> {
    Ok(Shared {
        payout,
        devices: Arc::default(),
        share_pace: SharePace::new(config.mining.shares_per_account_and_second_max),
        known_accounts: KnownAccounts::read(&base.ledger).await?,
        ledger: base.ledger.clone(),
        templates,
        blocks,
        settler: Arc::new(settler),
        registrations: OneEach::new(OF_A_WORKER_IN_LINE_MAX),
        tasks: base.tasks.clone(),
        models: base.models.clone(),
        invoice_answers: InvoiceAnswers::default(),
        extranonces: Mutex::new(extranonces(&config.mining)?),
        job_salts: Arc::default(),
        header_spaces: HeaderSpaces::default(),
        telemetry: base.telemetry.clone(),
        tracker: base.tracker.clone(),
        token_key,
        authority,
        transactions: TransactionStore::default(),
        unusable_work: AtomicU64::new(0),
        config,
    })
}

/// What the agents' port serves.
fn services(
    config: &Config,
    base: &Base,
    receipt_key: &Keypair,
    readiness: &watch::Receiver<bool>,
    shutdown: &CancellationToken,
) -> anyhow::Result<grpc::Services> {
    let pool_key = receipt_key.x_only_public_key().0.serialize();
    Ok(grpc::Services {
        tasks: base.tasks.clone(),
        downloads: open_downloads(config, &base.tracker, shutdown)?,
        rewards: RewardsService::new(base.ledger.clone(), base.tracker.clone()),
        payouts: PayoutsService::new(base.ledger.clone(), pool_key, config),
        http: openai::router(OpenAiParts {
            tasks: base.tasks.clone(),
            tracker: base.tracker.clone(),
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
            requests_per_minute: config.api.requests_per_address_and_minute_max,
            secret: idempotency_secret(receipt_key),
        }),
        requests_per_connection_max: config.api.requests_per_connection_max,
        places: config.api.places(),
        tracker: base.tracker.clone(),
    })
}

/// The ports, ours from the start. Miners and declarators are let in once there is work for them; until then their
/// devices are refused and can go elsewhere.
struct Ports {
    mining: BoundPort,
    declaration: Option<BoundPort>,
    api: BoundPort,
}

impl Ports {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            mining: bind(config.mining.listen)?,
            declaration: config.job_declarator.listen.map(bind).transpose()?,
            api: bind(config.api.listen)?,
        })
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<BoundPort> {
    BoundPort::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// Waits for the first work, on the configured network; `false` if the pool stops before it.
async fn has_work(shared: &Shared, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    tokio::select! {
        () = shutdown.cancelled() => Ok(false),
        has_work = shared.templates.ready(announce_not_ready) => {
            has_work.context("the pool cannot start on this node")?;
            Ok(true)
        }
    }
}

/// Lets miners in; returns where they find the pool and its declarator.
async fn open(
    (mining, declaration): (BoundPort, Option<BoundPort>),
    authority: AuthorityKeys,
    shared: &Arc<Shared>,
    shutdown: &CancellationToken,
) -> anyhow::Result<(SocketAddr, Option<SocketAddr>)> {
    let declaration =
        embedded_declarator::start(shared, declaration, authority, shutdown.clone()).await?;
    let mining = mining.listen().context("cannot open mining.listen")?;
    let address = mining.local_addr()?;
    let serving = crate::mining::serve(mining, authority, Arc::clone(shared), shutdown.clone());
    shared.tracker.spawn(serving);
    Ok((address, declaration))
}

/// What the other parts stand on.
struct Base {
    ledger: Ledger,
    models: Models,
    telemetry: Telemetry,
    mailboxes: Mailboxes,
    tasks: Tasks,
    /// What asks the hosts of Lightning addresses, if they are paid.
    lnurl: Option<Lnurl>,
    pace: ReplayPace,
    /// Connections, and whatever has to run to its end.
    tracker: TaskTracker,
}

impl Base {
    async fn start(config: &Config, content_key: &[u8; 32]) -> anyhow::Result<Self> {
        let models = Models::load(&config.inference.models)?;
        let ledger = records::open(config, config.ledger.connections_max).await?;
        let ledger = ledger.with_content_key(content_key);
        ledger
            .migrate()
            .await
            .context("cannot migrate the ledger")?;
        let lnurl = config.destinations.lnurl_options().map(Lnurl::new);
        let lnurl = lnurl.transpose().context("destinations")?;
        let telemetry = Telemetry::none().and(JsonLines::stdout());
        let (mailboxes, tracker) = (Mailboxes::default(), TaskTracker::new());
        let pace = pace_of(&config.audit, &models);
        let tasks = Tasks::new(TaskParts {
            ledger: ledger.clone(),
            pace: pace.clone(),
            models: models.clone(),
            mailboxes: mailboxes.clone(),
            limits: TaskLimits::from(&config.inference),
            prices: Prices::new(&config.inference, &models)?,
            telemetry: telemetry.clone(),
            tracker: tracker.clone(),
        });
        tasks.fail_interrupted().await?;
        Ok(Self {
            ledger,
            models,
            telemetry,
            mailboxes,
            tasks,
            lnurl,
            pace,
            tracker,
        })
    }

    /// Waits for the last shares to reach the ledger, and for the last blocks to reach the source.
    async fn drain(&self, blocks: &BlockPublisher) {
        self.tracker.close();
        let ended = async { tokio::join!(self.tracker.wait(), blocks.stopped()) };
        let drained = tokio::time::timeout(DRAIN_TIME_MAX, ended);
        if drained.await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

/// What stops last, when nothing needs it any more: the committer, the validators, the template source, and what writes
/// the work of devices.
#[derive(Default)]
struct Last {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Last {
    /// Keeps what is counted of shares: the work of devices in the ledger, the rest told to programs.
    fn keep_counts(&self, shared: &Shared) {
        self.tracker.spawn(device_work::keep(
            Arc::clone(&shared.devices),
            shared.ledger.clone(),
            self.stop.clone(),
        ));
        self.tracker.spawn(accepted_shares::keep_telling(
            Arc::clone(&shared.settler.accepted),
            shared.telemetry.clone(),
            self.stop.clone(),
        ));
    }

    async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Starts what settles shares: the committer, the validators and the auditor.
async fn start_settler(
    config: &Config,
    base: &Base,
    (receipt_key, vrf, rewards): (Keypair, VrfSecret, Option<RewardsConfig>),
    last: &Last,
) -> anyhow::Result<Settler> {
    let dir = config.ledger.dir.join("log");
    let mut committer = CommitterConfig::new(dir, config.ledger.log_bytes_max);
    committer.settle_interval = Duration::from_secs(config.credit.settle_interval_s);
    committer.keep_blocks = config.ledger.keep_blocks;
    if rewards.is_none() {
        // What is found at a rate is the operator's, also if blocks are divided later.
        base.ledger.note_searched(None).await?;
    }
    committer.rewards = rewards;
    let committer = Committer::start(base.ledger.clone(), committer, last.stop.clone())
        .await
        .context("ledger.dir")?;
    let validators = start_validators(
        &config.audit,
        &base.models,
        base.pace.clone(),
        &last.tracker,
        &last.stop,
    )?;
    let audit_time_max = Duration::from_secs(config.audit.timeout_s);
    Ok(Settler {
        ledger: base.ledger.clone(),
        committer,
        auditor: Auditor::new(base.ledger.clone(), vrf, validators, audit_time_max),
        one_per_worker: OneEach::new(OF_A_WORKER_IN_LINE_MAX),
        tasks: base.tasks.clone(),
        telemetry: base.telemetry.clone(),
        accepted: Arc::default(),
        window: config.audit.window(),
        receipt_key,
    })
}

/// Starts what publishes blocks; with it come the blocks of an earlier run.
async fn start_blocks(
    config: &Config,
    templates: &TemplateHandle,
    stop_last: &CancellationToken,
    shutdown: &CancellationToken,
) -> anyhow::Result<(BlockPublisher, Vec<Publication>)> {
    let sinks = dovetail_templates::open_sinks(&config.templates.block_sinks, stop_last)
        .context("cannot start templates.block_sinks")?;
    let options = PublisherOptions {
        templates: templates.clone(),
        sinks,
        dir: Some(config.ledger.dir.join("blocks")),
        solves_templates: true,
        shutdown: shutdown.clone(),
    };
    Ok(BlockPublisher::start(options).await)
}

fn extranonces(config: &MiningConfig) -> anyhow::Result<ExtranonceAllocator> {
    let channels_max = config
        .connections_max
        .saturating_mul(config.channels_per_connection_max)
        .clamp(1, 1 << 24);
    let channels_max = u32::try_from(channels_max).unwrap_or(1 << 24);
    let process: [u8; PROCESS_BYTES] = rand::random();
    ExtranonceAllocator::new(process.to_vec(), EXTRANONCE_BYTES, channels_max)
        .map_err(|error| anyhow!("cannot lay out extranonces: {error}"))
}

/// The model files for workers, unless the operator hands out none.
fn open_downloads(
    config: &Config,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Downloads>> {
    let downloads_max = config.api.downloads_max;
    if downloads_max == 0 {
        return Ok(None);
    }
    let (tracker, shutdown) = (tracker.clone(), shutdown.clone());
    Downloads::open(&config.inference.models, downloads_max, tracker, shutdown).map(Some)
}

fn start_payouts(
    shared: &Shared,
    base: &Base,
    wallet: Option<WalletKeys>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let (lightning, onchain) = (&shared.config.lightning, &shared.config.onchain);
    if lightning.socket.is_none() && onchain.is_none() {
        tracing::warn!("no wallet is configured: balances grow, nothing is paid out");
        return Ok(());
    }
    let network = shared.config.mining.network;
    let pace = Pace::of(lightning);
    if let (Some(config), Some(keys)) = (onchain, wallet) {
        let node = onchain::node_of(config).map_err(|reason| anyhow!(reason))?;
        let parts = OnchainParts {
            ledger: shared.ledger.clone(),
            node,
            keys,
            config: config.clone(),
            network,
            mailboxes: base.mailboxes.clone(),
            telemetry: shared.telemetry.clone(),
            backoff: pace.backoff,
        };
        let payouts = OnchainPayouts::new(parts);
        shared.tracker.spawn(payouts.run(shutdown.clone()));
    }
    let parts = PayoutParts {
        ledger: shared.ledger.clone(),
        mailboxes: base.mailboxes.clone(),
        answers: shared.invoice_answers.clone(),
        wallet: lightning.socket.clone().map(Client::new),
        lnurl: base.lnurl.clone(),
        config: lightning.clone(),
        onchain: onchain.clone(),
        pace,
        network,
        telemetry: shared.telemetry.clone(),
    };
    shared.tracker.spawn(Payouts::run(parts, shutdown.clone()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_extranonce_of_one_process_is_one_of_another() {
        let config: Config =
            toml::from_str(include_str!("../../config/dovetail-pool.toml")).unwrap();
        let [mut one, mut other] = [(); 2].map(|()| extranonces(&config.mining).unwrap());
        for _ in 0..100 {
            let [ours, theirs] =
                [&mut one, &mut other].map(|process| process.allocate_extended(13).unwrap());
            assert_ne!(ours.as_bytes(), theirs.as_bytes());
        }
    }
}
