//! Following one task: its tokens as they come, its states as they change. Some follow it past its output, until it is
//! settled or never will be.

use std::collections::VecDeque;
use std::time::Duration;

use dovetail_commitment::{OUTPUT_TOKENS_MAX, TaskId};
use dovetail_ledger::{TaskRecord, TaskState};
use tokio::sync::watch;
use tokio::time::timeout;

use super::audience::Following;
use super::caller::Caller;
use super::endings::Place;
use super::progress::{Phase, Progress};
use super::{TaskError, Tasks};

/// How often the ledger is asked about a task that waits for its share. It is told when the task ends, but for a step whose
/// answer from the ledger was lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

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
    /// Whether it wants tokens at all.
    reads_output: bool,
    ready: VecDeque<TaskEvent>,
    has_ended: bool,
    following: Option<Following>,
    /// Who follows the task past its output.
    until_settled: Option<Caller>,
    /// The output has been told, and what becomes of the task is waited for.
    place: Option<Place>,
}

impl Tasks {
    /// Follows a task from this position of its output on.
    pub(crate) async fn follow(&self, id: TaskId, from: usize) -> Result<Follower, TaskError> {
        // First: an agent that comes back is back, even if the ledger does not answer.
        let following = self.live.follow(&id);
        let (progress, record) = match self.live.watch_streaming(&id) {
            // Nothing is asked of the ledger on the way to the first token.
            Some((progress, record)) => {
                let mut record = TaskRecord::clone(&record);
                record.state = streaming_state(progress.borrow().phase).unwrap_or(record.state);
                (Some(progress), record)
            }
            None => {
                let record = self.task(id).await?;
                (self.live.watch(&id), record)
            }
        };
        Ok(Follower {
            progress,
            tasks: self.clone(),
            record,
            told: None,
            owes_state: false,
            position: from,
            reads_output: from < OUTPUT_TOKENS_MAX as usize,
            ready: VecDeque::new(),
            has_ended: false,
            following,
            until_settled: None,
            place: None,
        })
    }
}

impl Follower {
    /// Goes on after the output until the task is settled or has ended otherwise, if there is a place for this caller to
    /// wait. Nothing of the task is held meanwhile.
    pub(crate) fn until_settled(self, caller: Caller) -> Self {
        Self {
            until_settled: Some(caller),
            ..self
        }
    }

    /// Whether all of the output has been told, and only what becomes of the task is waited for.
    pub(crate) fn is_past_output(&self) -> bool {
        self.place.is_some() && self.ready.is_empty()
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        let record = &self.record;
        let is_empty = record.prompt.is_none() && record.output_tokens.is_none();
        is_empty && self.progress.is_none() && self.ready.is_empty() && self.following.is_none()
    }

    /// The agent has hung up. If it does not come back, its task is stopped; but not by one that has only waited for states,
    /// and gives that up.
    pub(crate) fn hang_up(self) {
        if let Some(following) = self.following.filter(|_| self.reads_output) {
            following.hang_up();
        }
    }

    /// What happened next; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<TaskEvent>, TaskError> {
        while self.ready.is_empty() && !self.has_ended {
            match (self.progress.take(), self.place.take()) {
                (Some(progress), _) => self.watch(progress).await?,
                (None, Some(place)) => self.wait_for_end(place).await?,
                (None, None) => self.replay(),
            }
        }
        Ok(self.ready.pop_front())
    }

    /// Waits for the next change of a task that somebody works on. Tokens go first: a reader waits for them, and the
    /// state that comes with the last of them has to be read from the ledger.
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
            match streaming_state(phase) {
                Some(state) => self.record.state = state,
                None => self.reread().await?,
            }
            self.tell_state();
            if !phase.is_streaming() {
                self.end_output();
                return Ok(());
            }
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
        self.end_output();
    }

    /// No more output comes, and all is told of it.
    fn end_output(&mut self) {
        self.following = None;
        let is_open = self.record.state == TaskState::Finished;
        let caller = self.until_settled.filter(|_| is_open);
        let endings = &self.tasks.live.endings;
        self.place = caller.and_then(|caller| endings.wait_for(self.record.id, &caller));
        self.has_ended = self.place.is_none();
        // It may take minutes.
        self.record.prompt = None;
        self.record.constraint = None;
        self.record.output_tokens = None;
    }

    /// Waits for what becomes of a task whose output is complete.
    async fn wait_for_end(&mut self, mut place: Place) -> Result<(), TaskError> {
        // It may have ended before the place was taken.
        while self.state().await? == TaskState::Finished {
            if timeout(LOOK_INTERVAL, place.ended()).await.is_ok() {
                break;
            }
        }
        self.reread().await?;
        self.tell_state();
        self.has_ended = true;
        Ok(())
    }

    async fn state(&self) -> Result<TaskState, TaskError> {
        let state = self.tasks.ledger.task_state(self.record.id).await;
        state.map_err(TaskError::Ledger)?.ok_or(TaskError::Unknown)
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

/// The state of a task whose output is not whole: the ledger has no more of it than that.
fn streaming_state(phase: Phase) -> Option<TaskState> {
    match phase {
        Phase::Queued => Some(TaskState::Queued),
        Phase::Running => Some(TaskState::Assigned),
        Phase::Finished | Phase::Settled | Phase::Failed | Phase::Cancelled => None,
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
