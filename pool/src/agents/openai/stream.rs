//! An answer as server-sent events: chunks of JSON and comments, never a named event, which OpenAI's SDKs take for a chunk.
//! A stream that succeeds ends with a chunk that says how, and `[DONE]`; one that fails ends with an error and neither. None is
//! silent for long: clients' own time-outs end at the headers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use dovetail_chat::Piece;
use dovetail_ledger::TaskRecord;
use dovetail_units::time::unix_now;
use futures::stream;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::completions::Events;
use super::error::{ApiError, Code};
use super::pieces::AnswerPieces;
use super::shape::{Outcome, Shape};
use crate::tasks::{TaskError, TaskEvent};

/// A stream without a chunk for so long has a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A task ends by its own time; a stream that does not hear of it ends so much later.
const END_TIME_MAX: Duration = Duration::from_secs(30);

/// One answer on its way.
pub(super) struct AnswerStream {
    shape: Shape,
    pieces: AnswerPieces,
    events: Events,
    /// How many tokens have come.
    received: usize,
    /// How many calls were given out.
    calls: usize,
    shutdown: CancellationToken,
    keep_alive: Duration,
    /// When the last event was given out.
    spoke_at: Instant,
    /// When the stream ends at the latest.
    deadline: Instant,
    ready: VecDeque<Event>,
    has_ended: bool,
}

impl AnswerStream {
    pub(super) fn new(
        shape: Shape,
        pieces: AnswerPieces,
        events: Events,
        task: &TaskRecord,
        shutdown: CancellationToken,
    ) -> Self {
        let left = Duration::from_secs(task.expires_at_unix.saturating_sub(unix_now()));
        let now = Instant::now();
        // Before any token, so that whatever stands between passes the stream on.
        let first = match shape.role() {
            Some(chunk) => data(&chunk),
            None => comment(),
        };
        Self {
            shape,
            pieces,
            events,
            received: 0,
            calls: 0,
            shutdown,
            keep_alive: KEEP_ALIVE,
            spoke_at: now,
            deadline: now + left + END_TIME_MAX,
            ready: VecDeque::from([first]),
            has_ended: false,
        }
    }

    pub(super) fn response(self) -> Response {
        let events = stream::unfold(self, |mut answer| async move {
            let event = answer.next().await?;
            Some((Ok::<_, Infallible>(event), answer))
        });
        Sse::new(events).into_response()
    }

    async fn next(&mut self) -> Option<Event> {
        while self.ready.is_empty() && !self.has_ended {
            self.wait().await;
        }
        let event = self.ready.pop_front()?;
        self.spoke_at = Instant::now();
        Some(event)
    }

    async fn wait(&mut self) {
        tokio::select! {
            // Tokens before anything else.
            biased;
            event = self.events.recv() => match event {
                Some(event) => self.take(event),
                None => self.fail(&ApiError::of_end(None)),
            },
            () = self.shutdown.cancelled() => {
                self.fail(&ApiError::new(Code::Unavailable, "the pool is stopping"));
            }
            () = sleep_until(self.deadline) => {
                self.fail(&ApiError::new(Code::TaskExpired, "the task's time ran out"));
            }
            () = sleep_until(self.spoke_at + self.keep_alive) => self.ready.push_back(comment()),
        }
    }

    fn take(&mut self, event: Result<TaskEvent, TaskError>) {
        match event {
            Ok(TaskEvent::Tokens { tokens, text, .. }) => {
                self.received += tokens.len();
                let pieces = self.pieces.push(&text);
                self.say(pieces);
            }
            Ok(TaskEvent::State(record)) => match Outcome::of(&record, self.received) {
                Outcome::Open => {}
                Outcome::Failed(error) => self.fail(&error),
                Outcome::Answered(reason) => self.end(reason, &record),
            },
            Err(error) => self.fail(&error.into()),
        }
    }

    fn say(&mut self, pieces: Vec<Piece>) {
        for piece in pieces {
            let chunk = match piece {
                Piece::Text(text) => self.shape.piece(&text),
                Piece::Call { name, arguments } => {
                    self.calls += 1;
                    self.shape.call(self.calls - 1, &name, &arguments)
                }
            };
            self.ready.push_back(data(&chunk));
        }
    }

    fn end(&mut self, reason: &'static str, record: &TaskRecord) {
        let rest = self.pieces.finish();
        self.say(rest);
        let reason = self.pieces.reason(reason);
        self.ready.push_back(data(&self.shape.end(reason)));
        if self.shape.include_usage {
            self.ready.push_back(data(&self.shape.usage_chunk(record)));
        }
        self.ready.push_back(Event::default().data("[DONE]"));
        self.has_ended = true;
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(data(&error.envelope()));
        self.has_ended = true;
    }
}

fn data(chunk: &Value) -> Event {
    Event::default().data(chunk.to_string())
}

fn comment() -> Event {
    Event::default().comment("keep-alive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_commitment::{ModelId, TaskId};
    use tokio::sync::mpsc;

    use super::super::shape::Kind;
    use super::super::text::AnswerText;

    fn answer(events: Events) -> AnswerStream {
        let now = Instant::now();
        AnswerStream {
            shape: Shape {
                kind: Kind::Chat,
                model: "m".to_owned(),
                task: TaskId::from_bytes([1; 32]),
                created_unix: 0,
                fingerprint: Shape::fingerprint(&ModelId::from_bytes([2; 32])),
                include_usage: false,
                knows_salt: false,
            },
            pieces: AnswerPieces::new(AnswerText::new(vec![b"END".to_vec()]), None),
            events,
            received: 0,
            calls: 0,
            shutdown: CancellationToken::new(),
            keep_alive: Duration::from_millis(20),
            spoke_at: now,
            deadline: now + Duration::from_secs(60),
            ready: VecDeque::new(),
            has_ended: false,
        }
    }

    fn said(event: &Event) -> String {
        format!("{event:?}")
    }

    #[tokio::test]
    async fn a_stream_that_has_nothing_to_say_says_so_also_while_its_text_is_held_back() {
        let (sender, events) = mpsc::channel(4);
        let mut answer = answer(events);
        let silent = answer.next().await.unwrap();
        assert!(said(&silent).contains("keep-alive"), "{silent:?}");
        let start = Instant::now();
        let tokens = tokio::spawn(async move {
            // Tokens of which no text can be given out come more often than comments.
            for byte in b"EN" {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let event = TaskEvent::Tokens {
                    first_position: 0,
                    tokens: Vec::new(),
                    text: vec![*byte],
                };
                sender.send(Ok(event)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
        let silent = answer.next().await.unwrap();
        assert!(said(&silent).contains("keep-alive"), "{silent:?}");
        assert!(start.elapsed() >= Duration::from_millis(15));
        tokens.abort();
    }

    #[tokio::test]
    async fn a_stream_that_never_hears_of_its_tasks_end_ends_with_an_error() {
        let (_sender, events) = mpsc::channel(4);
        let mut answer = answer(events);
        answer.deadline = Instant::now();
        answer.keep_alive = Duration::from_secs(60);
        let last = answer.next().await.unwrap();
        assert!(said(&last).contains("task_expired"), "{last:?}");
        assert!(answer.next().await.is_none());
    }
}
