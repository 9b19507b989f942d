//! Start-up in the order in which things depend on each other, and shutdown in the reverse.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_engine::Runtime;
use dovetail_jd::transactions::TransactionStore;
use dovetail_ledger::{Committer, CommitterConfig, Ledger};
use dovetail_lightning::Client;
use dovetail_sv2::{AuthorityKeys, AuthorityPublicKey, AuthoritySecretKey};
use dovetail_telemetry::{JsonLines, Telemetry};
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agents::grpc::{self, Downloads};
use crate::claims::audit::Auditor;
use crate::claims::one_per_worker::OnePerWorker;
use crate::claims::settle::Settler;
use crate::config::{AuditConfig, Config, MiningConfig};
use crate::mailboxes::Mailboxes;
use crate::models::Models;
use crate::payouts::{PayoutHandle, Payouts};
use crate::shared::Shared;
use crate::tasks::{Prices, TaskLimits, TaskParts, Tasks};
use crate::validation::{Member, RemoteValidator, ThreadValidator, Validators, ValidatorsConfig};

/// Bytes of the whole extranonce: 4 to tell channels apart and the rest for miners to roll. The
/// coinbase's script has room for 100 bytes, of which the height and the tag take up to 30.
const EXTRANONCE_BYTES: u8 = 16;
/// How often expired tasks are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
/// How often credit that has matured is looked for, besides after each batch of its worker.
const MATURITY_INTERVAL: Duration = Duration::from_secs(1);
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

/// Runs the pool until `shutdown`; `ready` is called once, with the addresses it listens on.
///
/// # Errors
/// Whatever keeps the pool from starting, in words for its operator.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Addresses),
) -> anyhow::Result<()> {
    config
        .check()
        .map_err(|reason| anyhow!("configuration: {reason}"))?;
    let keys = authority_keys(&config.mining)?;
    let receipt_key = receipt_key(&config)?;
    let token_key = dovetail_jd::config::token_key(&config.job_declarator.token_key)
        .context("job_declarator.token_key")?;
    let models = Models::load(&config.inference.models)?;

    let ledger = Ledger::connect(&config.ledger.url.read()?, config.ledger.connections_max)
        .await
        .context("cannot connect to Postgres: is ledger.url right and the server running?")?;
    ledger
        .migrate()
        .await
        .context("cannot migrate the ledger")?;
    let telemetry = Telemetry::none().and(JsonLines::to_stdout());
    let (mailboxes, tracker) = (Mailboxes::default(), TaskTracker::new());
    let tasks = Tasks::new(TaskParts {
        ledger: ledger.clone(),
        models: models.clone(),
        mailboxes: mailboxes.clone(),
        limits: TaskLimits::from(&config.inference),
        prices: Prices::new(config.inference.free_of_charge),
        telemetry: telemetry.clone(),
        tracker: tracker.clone(),
    });
    tasks.fail_interrupted().await?;

    let stop_last = CancellationToken::new();
    let committer = Committer::start(
        ledger.clone(),
        CommitterConfig {
            group_max: config.ledger.group_max,
            group_wait: Duration::from_millis(config.ledger.group_wait_ms),
            queue_max: 4 * config.ledger.group_max,
            spool_dir: config.ledger.spool_dir.clone(),
        },
        stop_last.clone(),
    )
    .await
    .context("cannot open the spool of shares")?;
    let replaying = TaskTracker::new();
    let validators = start_validators(&config.audit, &models, &replaying, &stop_last)?;
    let audit_time_max = Duration::from_secs(config.audit.timeout_s);
    let auditor = Auditor::start(ledger.clone(), validators, audit_time_max).await?;
    let templates = dovetail_templates::start(config.templates.clone(), stop_last.clone())
        .context("cannot start the template source")?;

    let mining = bind(config.mining.listen).await?;
    let api = bind(config.api.listen).await?;
    let (mining_address, api_address) = (mining.local_addr()?, api.local_addr()?);
    let downloads = open_downloads(&config, &tracker, &shutdown)?;
    let shared = Arc::new(Shared {
        ledger: ledger.clone(),
        templates,
        settler: Settler {
            ledger: ledger.clone(),
            committer,
            auditor,
            one_per_worker: OnePerWorker::default(),
            tasks: tasks.clone(),
            telemetry: telemetry.clone(),
            rates: config.credit,
            window: config.audit.window(),
            receipt_key,
        },
        tasks: tasks.clone(),
        models,
        payouts: PayoutHandle::default(),
        extranonces: Mutex::new(extranonces(&config.mining)?),
        telemetry,
        tracker: tracker.clone(),
        token_key,
        transactions: TransactionStore::default(),
        config,
    });
    let declaration = crate::embedded_declarator::start(&shared, keys, shutdown.clone()).await?;
    tracker.spawn(crate::mining::serve(
        mining,
        keys,
        Arc::clone(&shared),
        shutdown.clone(),
    ));
    tracker.spawn(expire(tasks.clone(), shutdown.clone()));
    tracker.spawn(mature(Arc::clone(&shared), shutdown.clone()));
    start_payouts(&shared, mailboxes, &shutdown);
    let services = grpc::Services {
        tasks: tasks.clone(),
        downloads,
        requests_per_connection_max: shared.config.api.requests_per_connection_max,
        tracker: tracker.clone(),
    };
    let serving = grpc::serve(api, services, shutdown.clone());
    ready(Addresses {
        mining: mining_address,
        api: api_address,
        declaration,
    });
    let served = serving.await;

    shutdown.cancel();
    tracker.close();
    if tokio::time::timeout(DRAIN_TIME_MAX, tracker.wait())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end in time");
    }
    drop(shared);
    stop_last.cancel();
    replaying.close();
    replaying.wait().await;
    served
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}

fn authority_keys(config: &MiningConfig) -> anyhow::Result<AuthorityKeys> {
    let public: AuthorityPublicKey = config
        .authority_public_key
        .parse()
        .context("mining.authority_public_key")?;
    let secret: AuthoritySecretKey = config
        .authority_secret_key
        .read()?
        .parse()
        .context("mining.authority_secret_key")?;
    AuthorityKeys::new(secret, public).context("mining: the authority keys")
}

fn receipt_key(config: &Config) -> anyhow::Result<Keypair> {
    let text = config.inference.receipt_key.read()?;
    let bytes: [u8; 32] = hex::decode(text.trim())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .context("inference.receipt_key must be 64 hex digits")?;
    let secret = SecretKey::from_slice(&bytes)
        .context("inference.receipt_key is not a secret key of secp256k1")?;
    Ok(Keypair::from_secret_key(SECP256K1, &secret))
}

/// The validators that the configuration names: threads of this process, and other processes.
fn start_validators(
    config: &AuditConfig,
    models: &Models,
    tracker: &TaskTracker,
    shutdown: &CancellationToken,
) -> anyhow::Result<Validators> {
    let mut members = Vec::new();
    for url in &config.validators {
        let validator = RemoteValidator::new(url)
            .map_err(|reason| anyhow!("configuration: audit.validators: {reason}"))?;
        members.push(Member {
            validator: Arc::new(validator),
            is_local: false,
        });
    }
    let runtime = Arc::new(Runtime::new(config.threads)?);
    for number in 0..config.in_process {
        members.push(Member {
            validator: Arc::new(ThreadValidator::new(
                number,
                Arc::clone(&runtime),
                models.clone(),
            )),
            is_local: true,
        });
    }
    let config = ValidatorsConfig {
        queue_max: config.queue_max,
        batch_max: config.batch_max,
        validator_timeout: Duration::from_secs(config.validator_timeout_s),
    };
    Ok(Validators::start(members, config, tracker, shutdown))
}

fn extranonces(config: &MiningConfig) -> anyhow::Result<ExtranonceAllocator> {
    let channels_max = config
        .connections_max
        .saturating_mul(config.channels_per_connection_max)
        .clamp(1, 1 << 24);
    let channels_max = u32::try_from(channels_max).unwrap_or(1 << 24);
    ExtranonceAllocator::new(Vec::new(), EXTRANONCE_BYTES, channels_max)
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

fn start_payouts(shared: &Shared, mailboxes: Mailboxes, shutdown: &CancellationToken) {
    let Some(socket) = shared.config.lightning.socket.clone() else {
        tracing::warn!("no wallet is configured: balances grow, nothing is paid out");
        return;
    };
    let payouts = Payouts {
        ledger: shared.ledger.clone(),
        mailboxes,
        handle: shared.payouts.clone(),
        wallet: Client::new(socket),
        config: shared.config.lightning.clone(),
        network: shared.config.mining.network,
        telemetry: shared.telemetry.clone(),
    };
    shared.tracker.spawn(payouts.run(shutdown.clone()));
}

/// Posts held credit whose window is over.
async fn mature(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(MATURITY_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => shared.settler.mature(None).await,
        }
    }
}

/// Ends tasks whose time is over, wherever they stand.
async fn expire(tasks: Tasks, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => tasks.expire().await,
        }
    }
}
