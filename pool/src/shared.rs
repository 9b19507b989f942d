//! What all connections of the pool share: handles that are cheap to clone and bounded inside.

use std::sync::{Arc, Mutex};

use dovetail_api::codes;
use dovetail_commitment::{TaskId, WorkerKey};
use dovetail_jd::token::TokenKey;
use dovetail_jd::transactions::TransactionStore;
use dovetail_templates::TemplateHandle;
use stratum_core::channels_sv2::extranonce_manager::ExtranonceAllocator;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::tasks::{Assignment, Dispatcher, GivenBack, Next, Phase, REFUSAL_PAUSE};
use crate::events::Event;
use crate::models::Models;
use crate::payouts::PayoutHandle;
use crate::claims::settle::Settler;

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
        let found = self.dispatcher.pair();
        for pair in found.pairs {
            let shared = Arc::clone(self);
            self.tracker.spawn(async move { shared.assign(pair).await });
        }
        for (task, code) in found.hopeless {
            let shared = Arc::clone(self);
            self.tracker
                .spawn(async move { shared.fail(task, None, code).await });
        }
    }

    async fn assign(self: &Arc<Self>, pair: Assignment) {
        let ledger = &self.settler.ledger;
        match ledger.assign_task(pair.task, pair.worker).await {
            Ok(true) => {}
            Ok(false) => {
                return self.dispatcher.finish(
                    &pair.task,
                    Phase::Failed,
                    Some(codes::TASK_EXPIRED),
                );
            }
            Err(error) => {
                tracing::error!(task = %pair.task, %error, "cannot assign a task");
                return self
                    .dispatcher
                    .finish(&pair.task, Phase::Failed, Some(codes::INTERNAL));
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
        self.give_back(pair.task, pair.worker, GivenBack::Lost)
            .await;
        self.spawn_pairing();
    }

    /// A worker does not run a task that it was given: another one may, or the task fails. Either way the
    /// ledger knows it first. The caller then has tasks paired again.
    pub(crate) async fn give_back(
        self: &Arc<Self>,
        task: TaskId,
        worker: WorkerKey,
        why: GivenBack,
    ) {
        match self.dispatcher.give_back(&task, &worker, why) {
            None => {}
            Some(Next::Fail(code)) => self.fail(task, Some(worker), code).await,
            Some(Next::Another) => {
                match self.settler.ledger.release_task(task, worker).await {
                    Ok(true) => {
                        tracing::info!(%task, %worker, ?why, "a task goes to another worker");
                        self.dispatcher.requeue(&task);
                        // By then a worker that refused it may have room.
                        let shared = Arc::clone(self);
                        self.tracker.spawn(async move {
                            tokio::time::sleep(REFUSAL_PAUSE).await;
                            shared.spawn_pairing();
                        });
                    }
                    Ok(false) => {
                        self.dispatcher
                            .finish(&task, Phase::Failed, Some(codes::TASK_EXPIRED));
                    }
                    Err(error) => {
                        // It expires there; nobody runs it.
                        tracing::error!(%task, %error, "cannot release a task");
                        self.dispatcher
                            .finish(&task, Phase::Failed, Some(codes::INTERNAL));
                    }
                }
            }
        }
    }

    /// Ends a task, of this worker if one is named.
    pub(crate) async fn fail(&self, task: TaskId, worker: Option<WorkerKey>, code: &'static str) {
        let failed = self.settler.ledger.fail_task(task, worker, code).await;
        if let Err(error) = failed {
            tracing::error!(%task, %error, "cannot fail a task");
        }
        self.dispatcher.finish(&task, Phase::Failed, Some(code));
    }
}
