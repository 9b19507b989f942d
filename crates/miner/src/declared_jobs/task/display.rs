//! What devices get: a job of ours, or the pool's jobs while there is none.

use std::time::Duration;

use dovetail_commitment::BatchRoot;
use tokio::time::Instant;

use super::Task;
use crate::current_job::BatchDisplay;
use crate::job::SharedJob;
use crate::local_search::search_here;
use crate::stats::Templates;

/// How long devices stay on what they have while there is no job of ours for them: at the start of a
/// session, and when the pool is on a tip that our node has not heard of. As long as a declarator
/// waits for its own node.
const HOLD_TIME_MAX: Duration = Duration::from_secs(5);
/// How long devices are on a job that is not accepted yet. A declarator takes a second or two over a full
/// block; what one that hangs may cost is this much hashing at each tip, and not all of it.
const PENDING_TIME_MAX: Duration = Duration::from_secs(10);

impl Task {
    /// Gives devices a job of ours.
    pub(super) fn display(&mut self, job: &SharedJob, root: Option<BatchRoot>) {
        match &self.display {
            Some(display) => {
                if self.fallen_back.take().is_some() {
                    tracing::info!("hashing jobs on our own templates again");
                }
                display.offer(job.clone());
                self.current_job.stats().set_templates(Templates::Own);
            }
            None => {
                let display = BatchDisplay::new(self.current_job.clone(), job.clone());
                self.batch_display = Some(display);
            }
        }
        self.search = match root {
            Some(_) if self.options.search_here => search_here(&self.current_job, job),
            _ => None,
        };
    }

    /// Gives devices the newest job of ours that the pool has accepted, if it is still good. Whether it is.
    pub(super) fn display_accepted(&mut self) -> bool {
        let Some(newest) = self.accepted.as_ref().filter(|newest| self.lives(newest)) else {
            return false;
        };
        let job = newest.job.clone();
        self.display(&job, None);
        true
    }

    /// Gives devices the pool's jobs.
    pub(super) fn fall_back(&mut self, reason: String) {
        self.hold_until = None;
        let Some(display) = &self.display else {
            return;
        };
        if self.fallen_back.as_ref() == Some(&reason) {
            return;
        }
        tracing::warn!(
            reason,
            "hashing the pool's jobs: no job on an own template is possible now"
        );
        display.give_way();
        let templates = Templates::FallenBack {
            reason: reason.clone(),
        };
        self.current_job.stats().set_templates(templates);
        self.fallen_back = Some(reason);
    }

    /// While devices have no job of ours that is worth anything, they stay on what they have, but not
    /// for long.
    pub(super) fn hold(&mut self, now: Instant) {
        if !self.options.between_batches || self.fallen_back.is_some() {
            self.hold_until = None;
            return;
        }
        if self.display_until().is_some_and(|until| until <= now) {
            return self.hide();
        }
        let accepted = self
            .accepted
            .as_ref()
            .is_some_and(|newest| self.is_on_our_tip(newest));
        let elsewhere = self.tips.pool_is_elsewhere(accepted);
        if !elsewhere && (self.display_until().is_some() || accepted) {
            self.hold_until = None;
            return;
        }
        let until = *self.hold_until.get_or_insert(now + HOLD_TIME_MAX);
        if until <= now {
            let reason = match elsewhere {
                true => "our node is not on the pool's tip",
                false => "there is no template or no token for a job of ours yet",
            };
            self.fall_back(reason.to_owned());
        }
    }

    /// When the job that devices are on is taken from them, if it is not accepted by then and there are
    /// others for them.
    pub(super) fn display_until(&self) -> Option<Instant> {
        if !self.options.between_batches || self.fallen_back.is_some() {
            return None;
        }
        let (attempt, candidate) = (self.attempt.as_ref()?, self.candidate.as_ref()?);
        candidate
            .on_display
            .then(|| attempt.since + PENDING_TIME_MAX)
    }

    /// Takes the job that is not accepted yet from devices; its declaration goes on.
    fn hide(&mut self) {
        if let Some(candidate) = &mut self.candidate {
            candidate.on_display = false;
        }
        if !self.display_accepted() {
            self.fall_back("our job is not accepted yet".to_owned());
        }
    }
}
