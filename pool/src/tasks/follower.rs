//! Following one task: its tokens as they come, its states as they change.

use std::collections::VecDeque;

use dovetail_commitment::TaskId;
use dovetail_ledger::{TaskRecord, TaskState};
use tokio::sync::watch;

use super::audience::Following;
use super::progress::{Phase, Progress};
use super::{TaskError, Tasks};

/// What happened to a task that is followed.
pub(crate) enum TaskEvent {
    /// More of its output.
    Tokens {
        /// The position of the first one in the output.
        first_position: usize,
        tokens: Vec<u32>,
        /// Of the tokens; a character may go on in the next event.
        text: Vec<u8>,
    },
    /// Where it stands.
    State(Box<TaskRecord>),
}

/// Follows a task from one position of its output on. Nothing gathers here: who asks late is given all that
/// came meanwhile, which the task's `max_tokens` bounds.
pub(crate) struct Follower {
    tasks: Tasks,
    record: TaskRecord,
    /// `None` once nobody works on the task any more.
    progress: Option<watch::Receiver<Progress>>,
    /// The phase that was told last.
    told: Option<Phase>,
    /// Whether a state is to be told that waited for tokens to go first.
    owes_state: bool,
    position: usize,
    ready: VecDeque<TaskEvent>,
    has_ended: bool,
    following: Option<Following>,
}

impl Tasks {
    /// Follows a task from this position of its output on.
    pub(crate) async fn follow(&self, id: TaskId, from: usize) -> Result<Follower, TaskError> {
        // First: an agent that comes back is back, even if the ledger does not answer.
        let following = self.live.follow(&id);
        let record = self.task(id).await?;
        Ok(Follower {
            progress: self.live.watch(&id),
            tasks: self.clone(),
            record,
            told: None,
            owes_state: false,
            position: from,
            ready: VecDeque::new(),
            has_ended: false,
            following,
        })
    }
}

impl Follower {
    /// The agent has hung up. If it does not come back, its task is stopped.
    pub(crate) fn hang_up(self) {
        if let Some(following) = self.following {
            following.hang_up();
        }
    }

    /// What happened next; `None` after the task's end.
    pub(crate) async fn next(&mut self) -> Result<Option<TaskEvent>, TaskError> {
        while self.ready.is_empty() && !self.has_ended {
            match self.progress.take() {
                Some(progress) => self.watch(progress).await?,
                None => self.replay(),
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Waits for the next change of a task that somebody works on. Tokens go first: a reader waits for them, and the
    /// state that comes with them has to be read from the ledger.
    async fn watch(&mut self, mut progress: watch::Receiver<Progress>) -> Result<(), TaskError> {
        match self.told {
            None => {
                self.told = Some(phase_of(&self.record, progress.borrow().phase));
                self.tell_state();
            }
            Some(_) if self.owes_state => {}
            Some(_) => {
                if progress.changed().await.is_err() {
                    // The task was forgotten: what the ledger has of it is all there will be.
                    return self.reread().await;
                }
            }
        }
        let (tokens, phase) = {
            let now = progress.borrow_and_update();
            let from = self.position.min(now.tokens.len());
            (now.tokens[from..].to_vec(), now.phase)
        };
        self.tell_tokens(tokens);
        let is_news = self.told != Some(phase) || !phase.is_streaming();
        // Once at most: tokens that keep coming do not keep a state back.
        let waits = is_news && !self.owes_state && !self.ready.is_empty();
        if is_news && !waits {
            self.told = Some(phase);
            self.reread().await?;
            self.tell_state();
            self.has_ended = !phase.is_streaming();
        }
        self.owes_state = waits;
        self.progress = Some(progress);
        Ok(())
    }

    /// A task that nobody works on any more: what the ledger has of it.
    fn replay(&mut self) {
        let tokens = self.record.output_tokens.clone().unwrap_or_default();
        let from = self.position.min(tokens.len());
        self.tell_tokens(tokens[from..].to_vec());
        self.tell_state();
        self.has_ended = true;
    }

    async fn reread(&mut self) -> Result<(), TaskError> {
        self.record = self.tasks.task(self.record.id).await?;
        Ok(())
    }

    fn tell_tokens(&mut self, tokens: Vec<u32>) {
        if tokens.is_empty() {
            return;
        }
        let first_position = self.position;
        self.position = self.position.saturating_add(tokens.len());
        let model = self.tasks.models.get(&self.record.model_id);
        let text = model.map(|model| model.decode(&tokens)).unwrap_or_default();
        self.ready.push_back(TaskEvent::Tokens {
            first_position,
            tokens,
            text,
        });
    }

    fn tell_state(&mut self) {
        let state = TaskEvent::State(Box::new(self.record.clone()));
        self.ready.push_back(state);
    }
}

/// The phase that a record tells of; `now`: the one of its task.
fn phase_of(record: &TaskRecord, now: Phase) -> Phase {
    match record.state {
        TaskState::Queued => Phase::Queued,
        TaskState::Assigned => Phase::Running,
        _ => now,
    }
}
