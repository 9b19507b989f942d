//! Whether the agent of a task is still there. One that follows its task and then hangs up has left it, unless it comes
//! back soon. One that never followed the task has not: it may only ask now and then.

use std::time::{Duration, Instant};

use dovetail_commitment::TaskId;

use super::live_tasks::LiveTasks;
use super::{TaskError, Tasks};

/// Who follows a task.
#[derive(Debug, Default)]
pub(super) struct Audience {
    followers: usize,
    /// When the last of them hung up, or whoever did was heard of for the last time since.
    left_at: Option<Instant>,
}

impl Audience {
    /// Somebody follows the task, or follows it again.
    fn come(&mut self) {
        self.followers = self.followers.saturating_add(1);
        self.left_at = None;
    }

    /// One who followed it does so no more; whether that is by its own doing.
    fn go(&mut self, has_hung_up: bool, now: Instant) {
        self.followers = self.followers.saturating_sub(1);
        if self.followers == 0 && has_hung_up {
            self.left_at = Some(now);
        }
    }

    /// Somebody asks how the task stands.
    fn ask(&mut self, now: Instant) {
        if self.left_at.is_some() {
            self.left_at = Some(now);
        }
    }

    /// Nothing more needs to be done about those who have left.
    pub(super) fn forget(&mut self) {
        self.left_at = None;
    }

    /// Whether everybody has been away for so long.
    fn is_gone(&self, absence: Duration, now: Instant) -> bool {
        self.left_at
            .is_some_and(|at| now.saturating_duration_since(at) >= absence)
    }
}

/// One who follows a task, until this is dropped.
pub(super) struct Following {
    live: LiveTasks,
    task: TaskId,
    has_hung_up: bool,
}

impl Following {
    /// It is the follower who ends it.
    pub(super) fn hang_up(mut self) {
        self.has_hung_up = true;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(task) = self.live.state().tasks.get_mut(&self.task) {
            task.audience.go(self.has_hung_up, Instant::now());
        }
    }
}

impl LiveTasks {
    /// Somebody follows the task. `None` if it is not live.
    pub(super) fn follow(&self, id: &TaskId) -> Option<Following> {
        self.state().tasks.get_mut(id)?.audience.come();
        Some(Following {
            live: self.clone(),
            task: *id,
            has_hung_up: false,
        })
    }

    /// Somebody asks how the task stands.
    pub(super) fn asked_for(&self, id: &TaskId) {
        if let Some(task) = self.state().tasks.get_mut(id) {
            task.audience.ask(Instant::now());
        }
    }

    /// The tasks that wait or run and whose agents have been gone for so long.
    fn abandoned(&self, absence: Duration, now: Instant) -> Vec<TaskId> {
        let state = self.state();
        let gone = state.tasks.iter().filter(|(_, task)| {
            task.audience.is_gone(absence, now) && task.progress.borrow().phase.is_streaming()
        });
        gone.map(|(id, _)| *id).collect()
    }
}

impl Tasks {
    /// Stops the tasks whose agents have left, as if these had cancelled them.
    pub(crate) async fn stop_abandoned(&self, now: Instant) {
        for id in self.live.abandoned(self.limits.agent_absence, now) {
            match self.stop(id).await {
                Ok(_) => tracing::info!(task = %id, "a task is stopped: its agent has left"),
                Err(TaskError::Unknown) => {}
                Err(error) => {
                    tracing::warn!(task = %id, %error, "cannot stop a task whose agent has left");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENCE: Duration = Duration::from_secs(10);

    #[test]
    fn an_agent_is_gone_once_the_last_of_its_streams_was_hung_up_for_long_enough() {
        let mut audience = Audience::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // It never followed the task: perhaps it only asks.
        assert!(!audience.is_gone(ABSENCE, after(600)));
        audience.come();
        audience.come();
        audience.go(true, after(1));
        assert!(!audience.is_gone(ABSENCE, after(600)));
        audience.go(true, after(2));
        assert!(!audience.is_gone(ABSENCE, after(11)) && audience.is_gone(ABSENCE, after(12)));
        // It is back, and hangs up once more.
        audience.come();
        assert!(!audience.is_gone(ABSENCE, after(600)));
        audience.go(true, after(20));
        assert!(audience.is_gone(ABSENCE, after(30)));
    }

    #[test]
    fn an_agent_that_asks_or_whose_stream_the_pool_has_ended_is_not_gone() {
        let mut audience = Audience::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        audience.come();
        audience.go(true, start);
        audience.ask(after(9));
        assert!(!audience.is_gone(ABSENCE, after(18)) && audience.is_gone(ABSENCE, after(19)));
        audience.come();
        audience.go(false, after(20));
        audience.ask(after(21));
        assert!(!audience.is_gone(ABSENCE, after(600)));
    }
}
