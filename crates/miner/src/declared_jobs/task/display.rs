//! What hashers get: a job of ours, or the pool's jobs where there is none.

use std::time::Duration;

use dovetail_commitment::BatchRoot;
use tokio::time::Instant;

use super::Task;
use crate::claim::search_here;
use crate::job::SharedJob;
use crate::stats::Templates;

/// How long hashers stay on what they have while there is no job of ours for them: at the start of a
/// session, and when the pool is on a tip that our node has not heard of. As long as a declarator
/// waits for its own node.
const HOLD_TIME_MAX: Duration = Duration::from_secs(5);
/// How long hashers are on a job that is not accepted yet. A declarator takes a second or two over a full
/// block; what one that hangs may cost is this much hashing at each tip, and not all of it.
const PENDING_TIME_MAX: Duration = Duration::from_secs(10);

impl Task {
    /// Gives hashers a job of ours.
    pub(super) fn show(&mut self, job: &SharedJob, root: Option<BatchRoot>) {
        if self.options.between_batches {
            if self.fallen_back.take().is_some() {
                tracing::info!("hashing jobs on our own templates again");
            }
            self.board.set_own(job.clone());
            self.board.stats().set_templates(Templates::Own);
        } else {
            self.board.set_claim(job.clone());
        }
        self.search = match root {
            Some(_) if self.options.search_here => search_here(&self.board, job),
            _ => None,
        };
    }

    /// Gives hashers the pool's jobs.
    pub(super) fn fall_back(&mut self, reason: String) {
        self.hold_until = None;
        if !self.options.between_batches || self.fallen_back.as_ref() == Some(&reason) {
            return;
        }
        tracing::warn!(reason, "hashing the pool's jobs, not our own");
        self.board.open();
        let templates = Templates::FallenBack(reason.clone());
        self.board.stats().set_templates(templates);
        self.fallen_back = Some(reason);
    }

    /// While hashers have no job of ours that is worth anything, they stay on what they have, but not
    /// for long.
    pub(super) fn hold(&mut self, now: Instant) {
        if !self.options.between_batches || self.fallen_back.is_some() {
            self.hold_until = None;
            return;
        }
        if self.is_pending_for_too_long(now) {
            return self.hide();
        }
        let accepted = self.current.as_ref().filter(|job| self.is_on_our_tip(job));
        let elsewhere = self.tips.pool_is_elsewhere(accepted.is_some());
        if !elsewhere && (self.shown_until().is_some() || accepted.is_some()) {
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

    /// When the job that hashers are on is taken from them, if it is not accepted by then and there are
    /// others for them.
    pub(super) fn shown_until(&self) -> Option<Instant> {
        if !self.options.between_batches || self.fallen_back.is_some() {
            return None;
        }
        let (attempt, built) = (self.attempt.as_ref()?, self.pending.as_ref()?);
        built.shown.then(|| attempt.since + PENDING_TIME_MAX)
    }

    fn is_pending_for_too_long(&self, now: Instant) -> bool {
        self.shown_until().is_some_and(|until| until <= now)
    }

    /// Takes the job that is pending from hashers; its declaration goes on.
    fn hide(&mut self) {
        if let Some(built) = &mut self.pending {
            built.shown = false;
        }
        match &self.current {
            Some(current) if self.lives(current) => {
                let job = current.job.clone();
                self.show(&job, None);
            }
            _ => self.fall_back("our job is not accepted yet".to_owned()),
        }
    }
}
