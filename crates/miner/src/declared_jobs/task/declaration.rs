//! One declaration after the other: from its beginning to the declarator's answer, the pool's answer, and its end.

use std::sync::Arc;
use std::time::Duration;

use dovetail_sv2::OutboxError;
use dovetail_templates::WorkSnapshot;
use tokio::time::Instant;

use super::{Attempt, Newest, Task};
use crate::current_job::BatchDisplay;
use crate::declarator_client::DeclareError;
use crate::declared_jobs::JobError;
use crate::declared_jobs::candidate::{Plan, custom_job};
use crate::declared_jobs::declaration_step::{Declared, Prepared, Step};
use crate::declared_jobs::next_job::NextJob;
use crate::submitter::{AcceptedJob, Solutions};

/// Time for the pool to answer a custom job.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

impl Task {
    /// Begins with a job; devices get it at once unless the last one failed.
    pub(super) fn begin(&mut self, next: NextJob, work: Arc<WorkSnapshot>) {
        let now = Instant::now();
        self.rate.begin(now);
        let batch = match next {
            NextJob::Batch { root, request } => Some((root, request)),
            NextJob::Tip | NextJob::Renewal => None,
        };
        let doubtful = match next {
            NextJob::Batch { .. } => self.batch_refused,
            NextJob::Tip => false,
            NextJob::Renewal => true,
        };
        let at_once = !doubtful && !self.rate.is_failing();
        self.attempt = Some(Attempt {
            work: work.clone(),
            channel: self.channel.borrow().clone(),
            batch,
            at_once,
            since: now,
        });
        if let (true, Some(payout)) = (at_once, self.payout.clone())
            && let Err(error) = self.build(&payout)
        {
            return self.fail(error);
        }
        if !at_once
            && !self
                .accepted
                .as_ref()
                .is_some_and(|newest| self.lives(newest))
        {
            let reason = self.failure.clone();
            self.fall_back(reason.unwrap_or_else(|| "no job of ours is accepted".to_owned()));
        }
        self.step = Step::prepare(
            self.connection.take(),
            self.options.declarator.clone(),
            self.keys.name,
            self.options.blocks.templates().clone(),
            work.template_id(),
        );
    }

    /// Builds the job of the attempt for these outputs, and gives it to devices if they get it at once.
    pub(super) fn build(&mut self, payout: &[u8]) -> Result<(), JobError> {
        let Some(attempt) = &self.attempt else {
            return Ok(());
        };
        let plan = Plan {
            work: &attempt.work,
            channel: &attempt.channel,
            root: attempt.batch.as_ref().map(|(root, _)| root),
            payout,
        };
        let offers = self.offers.clone();
        let mut candidate = plan.build(&self.options.blocks, &self.current_job, offers)?;
        if attempt.at_once {
            let batch = attempt.batch.map(|(root, _)| root);
            self.display(&candidate.job, batch);
            candidate.on_display = true;
        }
        self.lose(self.candidate.as_ref());
        self.candidate = Some(candidate);
        Ok(())
    }

    pub(super) fn declare(&mut self, prepared: Prepared) {
        let known = self.candidate.as_ref();
        let fits = known.is_some_and(|known| known.payout == prepared.token.outputs);
        if !fits && let Err(error) = self.build(&prepared.token.outputs) {
            self.connection = Some(prepared.declarator);
            return self.fail(error);
        }
        self.payout = Some(prepared.token.outputs.clone());
        if let (Some(attempt), Some(candidate)) = (&self.attempt, &self.candidate) {
            self.step = Step::declare(prepared, attempt.work.clone(), candidate.coinbase.clone());
        }
    }

    /// The declarator has answered: the pool is next.
    pub(super) fn hand_over(&mut self, declared: Declared) -> Result<(), OutboxError> {
        let Declared { declarator, token } = declared;
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                // After a refusal the connection is as good as before, after anything else it is not.
                if matches!(error, DeclareError::Refused(_)) {
                    self.connection = Some(declarator);
                }
                self.fail(error.into());
                return Ok(());
            }
        };
        let solutions = declarator.outbox().clone();
        self.connection = Some(declarator);
        let (Some(attempt), Some(candidate)) = (&self.attempt, &self.candidate) else {
            return Ok(());
        };
        let request_id = self.submitter.number();
        let message = custom_job(
            &attempt.work,
            &attempt.channel,
            &candidate.coinbase,
            token,
            request_id,
            candidate.job.parts().min_ntime,
        );
        match message {
            Ok(message) => self.submitter.outbox().send(&message)?,
            Err(error) => {
                self.fail(JobError::Fields(error.to_string()));
                return Ok(());
            }
        }
        self.step = Step::Handing {
            request_id,
            until: Instant::now() + ANSWER_TIME_MAX,
            declarator: solutions,
        };
        Ok(())
    }

    /// The pool has accepted the job: what was found on it meanwhile is worth something now.
    pub(super) fn on_accepted(&mut self, job_id: u32) -> Result<(), OutboxError> {
        let Step::Handing { declarator, .. } = std::mem::replace(&mut self.step, Step::Idle) else {
            return Ok(());
        };
        let (Some(attempt), Some(candidate)) = (self.attempt.take(), self.candidate.take()) else {
            return Ok(());
        };
        self.rate.succeeded();
        self.failure = None;
        self.tips.pools(attempt.work.prev_hash());
        self.batch_refused &= attempt.batch.is_none();
        let root = attempt.batch.map(|(root, _)| root);
        tracing::info!(
            root = root.map(tracing::field::display),
            template = attempt.work.template_id(),
            job_id,
            "the pool accepted our job"
        );
        let accepted = AcceptedJob {
            id: candidate.job.id,
            job_id,
            root,
            request: attempt.batch.map(|(_, request)| request),
            prev_hash: attempt.work.prev_hash(),
            channel: attempt.channel,
            solutions: Some(Solutions {
                work: attempt.work.clone(),
                declarator,
            }),
        };
        self.submitter.remember(accepted.clone());
        if !candidate.on_display || self.fallen_back.is_some() {
            self.display(&candidate.job, root);
        }
        self.accepted = Some(Newest {
            job: candidate.job,
            accepted,
            template: attempt.work.template_id(),
            since: Instant::now(),
        });
        for share in candidate.kept {
            self.on_share(share)?;
        }
        Ok(())
    }

    /// The attempt failed: devices go back to the last job of ours that is still good, or to the pool's.
    pub(super) fn fail(&mut self, error: JobError) {
        let now = Instant::now();
        let tip = self
            .attempt
            .as_ref()
            .map(|attempt| attempt.work.prev_hash());
        if error.is_stale() && self.stale_on != tip {
            // Two nodes hear of a block at different moments. Refused again, it is no such moment.
            tracing::info!(%error, "a job on our own template was overtaken");
            self.stale_on = tip;
            self.rate.pause(now);
            return self.give_up(None);
        }
        let batch = self.attempt.as_ref().and_then(|attempt| attempt.batch);
        tracing::warn!(root = batch.map(|(root, _)| tracing::field::display(root)), %error, "a job on our own template was not accepted");
        if batch.is_some() && error.is_refusal() {
            // It says nothing about plain jobs.
            self.batch_refused = true;
            self.give_up(None);
        } else {
            self.rate.failed(now);
            let reason = error.to_string();
            self.failure = Some(reason.clone());
            self.give_up(Some(reason));
        }
        if let Some((_, request)) = batch {
            self.answer(request, Err(error));
        }
    }

    /// Ends the attempt. `failed` says why, unless it was only overtaken.
    pub(super) fn give_up(&mut self, failed: Option<String>) {
        self.step = Step::Idle;
        self.attempt = None;
        self.search = None;
        let candidate = self.candidate.take();
        self.lose(candidate.as_ref());
        if !self.options.between_batches {
            if let Some(candidate) = candidate {
                let is_it = |display: &mut BatchDisplay| display.job().id == candidate.job.id;
                self.batch_display.take_if(is_it);
            }
            return;
        }
        // Where it was only overtaken, what takes its place is about to be displayed.
        if !self.display_accepted()
            && let Some(reason) = failed
        {
            self.fall_back(reason);
        }
    }
}
