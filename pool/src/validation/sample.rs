//! A sample on its way: what the queue and the validators have of it, and what whoever asked for it has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dovetail_audit::{Evidence, Verdict};
use dovetail_commitment::ModelId;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::validators::NotReplayed;

/// How often a sample is given to a validator that then fails. A request that breaks validators must
/// not go round for ever.
pub(super) const TRIES_MAX: usize = 3;

/// A claim's sample of one model.
pub(super) struct Waiting {
    pub(super) evidence: Vec<Arc<Evidence>>,
    pub(super) model: ModelId,
    /// Its verdict is to be confirmed: not by itself, unless it is a thread of the pool and no other has the model.
    pub(super) avoid: Option<usize>,
    /// These failed with it.
    pub(super) failed: Vec<usize>,
    /// Whether a validator has it.
    is_taken: watch::Sender<bool>,
    /// Nobody waits for it any more, but for what a validator that has it may still find.
    given_up: Arc<AtomicBool>,
    answer: oneshot::Sender<Replayed>,
}

impl Waiting {
    /// What waits, and what whoever asked for it keeps.
    pub(super) fn new(
        model: ModelId,
        evidence: Vec<Arc<Evidence>>,
        avoid: Option<usize>,
    ) -> (Self, Pending) {
        let (take, is_taken) = watch::channel(false);
        let given_up = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let waiting = Self {
            evidence,
            model,
            avoid,
            failed: Vec::new(),
            is_taken: take,
            given_up: Arc::clone(&given_up),
            answer,
        };
        let pending = Pending {
            is_taken,
            given_up,
            answered,
        };
        (waiting, pending)
    }

    /// How many tokens are replayed.
    pub(super) fn tokens(&self) -> u64 {
        let of_one = |of: &Arc<Evidence>| of.prompt.tokens().len() + of.output_tokens.len();
        let tokens: usize = self.evidence.iter().map(of_one).sum();
        u64::try_from(tokens).unwrap_or(u64::MAX)
    }

    /// Whether anybody waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answer.is_closed() && !self.given_up.load(Ordering::Relaxed)
    }

    /// A validator has it now.
    pub(super) fn take(&self) {
        self.is_taken.send_replace(true);
    }

    /// This validator has failed with it.
    pub(super) fn give_back(&mut self, member: usize) {
        self.failed.push(member);
        self.is_taken.send_replace(false);
    }

    /// Answers whoever asked for it, who may have run out of time.
    pub(super) fn answer(self, replayed: Replayed) {
        let _ = self.answer.send(replayed);
    }
}

/// A sample in the queue or in a validator's hands, as whoever asked for it sees it. Dropping it takes it out of the queue.
pub(super) struct Pending {
    is_taken: watch::Receiver<bool>,
    given_up: Arc<AtomicBool>,
    answered: oneshot::Receiver<Replayed>,
}

impl Pending {
    /// The verdicts. It may wait for a validator as long as the replay itself may then take: a crowd is nobody's fault, and
    /// must not look like a replay that takes too long.
    pub(super) async fn within(mut self, time_max: Duration) -> Result<Replayed, NotReplayed> {
        let taken = self.is_taken.wait_for(|is_taken| *is_taken);
        match timeout(time_max, taken).await {
            Err(_) => return Err(NotReplayed::Crowded),
            Ok(Err(_)) => return Err(NotReplayed::Failed),
            Ok(Ok(_)) => {}
        }
        match timeout(time_max, &mut self.answered).await {
            Ok(answered) => answered.map_err(|_| NotReplayed::Failed),
            // A validator has failed with it, and it waits again.
            Err(_) if !*self.is_taken.borrow() => Err(NotReplayed::Crowded),
            Err(_) => {
                self.given_up.store(true, Ordering::Relaxed);
                Err(NotReplayed::Late(Late(self.answered)))
            }
        }
    }

    /// The verdicts if they are there; `None` in it if there will be none.
    #[cfg(test)]
    pub(super) fn now(&mut self) -> Option<Option<Replayed>> {
        match self.answered.try_recv() {
            Ok(replayed) => Some(Some(replayed)),
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    /// As a replay that nobody waits for but whoever asks for its verdicts.
    pub(super) fn late(self) -> Late {
        Late(self.answered)
    }
}

/// A replay that takes too long and goes on: nothing stops a thread. What it finds is still true.
#[derive(Debug)]
pub(crate) struct Late(oneshot::Receiver<Replayed>);

impl Late {
    /// The verdicts, if the validator comes to an end. Cancellation-safe: it may be asked again.
    pub(crate) async fn verdicts(&mut self) -> Option<Replayed> {
        (&mut self.0).await.ok()
    }
}

/// Verdicts, in the order of the evidence.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) verdicts: Vec<Verdict>,
    /// The number of the validator that gave them.
    pub(crate) by: usize,
}
