//! What all connections of the pool share: handles that are cheap to clone and bounded inside.

use std::sync::{Arc, Mutex};

use dovetail_jd::token::TokenKey;
use dovetail_jd::transactions::TransactionStore;
use dovetail_templates::TemplateHandle;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::dispatch::{Assignment, Dispatcher, Phase};
use crate::events::Event;
use crate::models::Models;
use crate::payouts::PayoutHandle;
use crate::settle::Settler;

/// Handles to every part of the pool.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) templates: TemplateHandle,
    pub(crate) settler: Settler,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) models: Models,
    pub(crate) payouts: PayoutHandle,
    pub(crate) extranonces: Mutex<ExtranonceAllocator>,
    pub(crate) tracker: TaskTracker,
    /// What tokens of declared jobs are checked with.
    pub(crate) token_key: TokenKey,
    /// The transactions of declared jobs.
    pub(crate) transactions: TransactionStore,
}

impl Shared {
    /// Gives waiting tasks to free workers. Each pair is confirmed by the ledger before the worker
    /// hears of it, so a task never runs twice.
    pub(crate) fn spawn_pairing(self: &Arc<Self>) {
        for pair in self.dispatcher.pair() {
            let shared = Arc::clone(self);
            self.tracker.spawn(async move { shared.assign(pair).await });
        }
    }

    async fn assign(&self, pair: Assignment) {
        let ledger = &self.settler.ledger;
        match ledger.assign_task(pair.task, pair.worker).await {
            Ok(true) => {}
            Ok(false) => {
                return self
                    .dispatcher
                    .finish(&pair.task, Phase::Failed, Some("expired"));
            }
            Err(error) => {
                tracing::error!(task = %pair.task, %error, "cannot assign a task");
                return self
                    .dispatcher
                    .finish(&pair.task, Phase::Failed, Some("internal"));
            }
        }
        if self.dispatcher.start(pair) {
            Event::TaskAssigned {
                task: &pair.task.to_string(),
                worker: &pair.worker.to_string(),
            }
            .emit();
            return;
        }
        if let Err(error) = ledger
            .fail_task(pair.task, Some(pair.worker), "worker-lost")
            .await
        {
            tracing::error!(task = %pair.task, %error, "cannot fail a task");
        }
        self.dispatcher
            .finish(&pair.task, Phase::Failed, Some("worker-lost"));
    }
}
