//! What all connections of the pool share: handles that are cheap to clone and bounded inside.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dovetail_commitment::WorkerKey;
use dovetail_jd::token::TokenKey;
use dovetail_jd::transactions::TransactionStore;
use dovetail_ledger::Ledger;
use dovetail_sv2::AuthorityPublicKey;
use dovetail_telemetry::Telemetry;
use dovetail_templates::block_publisher::BlockPublisher;
use dovetail_templates::{Payout, TemplateHandle, WorkSnapshot};
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio_util::task::TaskTracker;

use crate::claims::settle::Settler;
use crate::config::Config;
use crate::device_work::DeviceWork;
use crate::header_spaces::{HeaderSpaces, JobSalts};
use crate::known_accounts::KnownAccounts;
use crate::models::Models;
use crate::one_each::OneEach;
use crate::payouts::InvoiceAnswers;
use crate::share_pace::SharePace;
use crate::tasks::Tasks;

/// Handles to every part of the pool.
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// What blocks pay.
    pub(crate) payout: Payout,
    pub(crate) ledger: Ledger,
    pub(crate) templates: TemplateHandle,
    /// Where solved blocks go.
    pub(crate) blocks: BlockPublisher,
    pub(crate) known_accounts: KnownAccounts,
    pub(crate) share_pace: SharePace,
    /// The work of each device, for its miner.
    pub(crate) devices: Arc<DeviceWork>,
    pub(crate) settler: Arc<Settler>,
    /// One registration of a batch at a time of each worker: however many connections a worker has, it takes one of those
    /// to the ledger.
    pub(crate) registrations: OneEach<WorkerKey>,
    pub(crate) tasks: Tasks,
    pub(crate) models: Models,
    /// Where connections hand in what payouts wait for.
    pub(crate) invoice_answers: InvoiceAnswers,
    pub(crate) extranonces: Mutex<ExtranonceAllocator>,
    /// What tells the jobs on one template apart.
    pub(crate) job_salts: Arc<JobSalts>,
    /// The targets that custom jobs were given.
    pub(crate) header_spaces: HeaderSpaces,
    pub(crate) telemetry: Telemetry,
    pub(crate) tracker: TaskTracker,
    /// What tokens of declared jobs are checked with.
    pub(crate) token_key: TokenKey,
    /// What miners know this pool by; registrations are for it alone.
    pub(crate) authority: AuthorityPublicKey,
    /// The transactions of declared jobs.
    pub(crate) transactions: TransactionStore,
    /// The newest template that gave no job, by its place among the source's work.
    pub(crate) unusable_work: AtomicU64,
}

impl Shared {
    /// Tells the operator that a template gives no job: once, and not once for each connection.
    pub(crate) fn alarm_about(&self, work: &WorkSnapshot, error: &str) {
        let alarmed = self
            .unusable_work
            .fetch_max(work.sequence, Ordering::Relaxed);
        if alarmed < work.sequence {
            tracing::error!(
                template = work.template_id(),
                error,
                "ALARM: a template gives no job; miners stay on the work before it"
            );
        }
    }
}
