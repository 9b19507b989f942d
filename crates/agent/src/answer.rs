//! Following one task: its tokens in order and without gaps, across lost connections, until it ends.

use std::time::Duration;

use dovetail_api::v1::{self, stream_task_response::Event};
use dovetail_commitment::TaskId;
use tonic::Streaming;

use crate::{
    AgentClient, AgentError, FinishReason, Question, ReceiptFile, Task, TaskState,
    client::{expect_task, state_word},
};

/// A stream that breaks this often without a token in between is given up.
const RESUMES_MAX: u32 = 5;
const RESUME_PAUSE: Duration = Duration::from_millis(300);

/// An answer as it comes in. Dropping it does not stop the task; [`AgentClient::cancel`] does.
pub struct Answer {
    client: AgentClient,
    question: Question,
    stream: Streaming<v1::StreamTaskResponse>,
    task: Task,
    tokens: Vec<u32>,
    resumes: u32,
}

impl Answer {
    pub(crate) async fn start(
        client: AgentClient,
        question: Question,
        task: Task,
    ) -> Result<Self, AgentError> {
        let stream = client.stream(question.task_id, 0).await?;
        Ok(Self {
            client,
            question,
            stream,
            task,
            tokens: Vec::new(),
            resumes: 0,
        })
    }

    /// The next piece of the output as bytes (which may end inside a character), or none once the output is complete.
    /// Cancellation-safe between pieces.
    ///
    /// # Errors
    /// [`AgentError::TaskEnded`] if the task failed, was cancelled or expired. What came before it stays in
    /// [`Answer::tokens`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        loop {
            match self.stream.message().await {
                Ok(Some(v1::StreamTaskResponse {
                    event: Some(Event::Tokens(chunk)),
                })) => {
                    self.resumes = 0;
                    return self.take(chunk).map(Some);
                }
                Ok(Some(v1::StreamTaskResponse {
                    event: Some(Event::Task(task)),
                })) => {
                    self.task = expect_task(Some(task), self.question.task_id)?;
                }
                // An event of a later version of the interface.
                Ok(Some(_)) => {}
                Ok(None) if self.has_ended() => return self.end(),
                Ok(None) => {
                    self.resume(AgentError::Protocol("the stream ended early".into()))
                        .await?
                }
                Err(_) if self.has_ended() && self.has_all_tokens() => return self.end(),
                Err(status) => self.resume(self.client.failed(&status)).await?,
            }
        }
    }

    /// The task's id.
    pub fn task_id(&self) -> TaskId {
        self.question.task_id
    }

    /// The task as it was last reported.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The output tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Why the output ended.
    pub fn finish_reason(&self) -> FinishReason {
        self.task.finish_reason()
    }

    /// What the agent keeps: the question and the tokens it saw, with no receipt yet.
    pub fn to_file(&self) -> ReceiptFile {
        ReceiptFile::pending(&self.question, self.tokens.clone())
    }

    fn has_ended(&self) -> bool {
        use TaskState::{Cancelled, Expired, Failed, Finished, Settled};
        matches!(
            self.task.state(),
            Finished | Settled | Failed | Cancelled | Expired
        )
    }

    /// As many tokens came as the task has; one that ended badly owes none.
    fn has_all_tokens(&self) -> bool {
        let is_owed = matches!(self.task.state(), TaskState::Finished | TaskState::Settled);
        !is_owed || usize::try_from(self.task.output_tokens).ok() == Some(self.tokens.len())
    }

    fn end(&self) -> Result<Option<Vec<u8>>, AgentError> {
        let state = self.task.state();
        if !matches!(state, TaskState::Finished | TaskState::Settled) {
            return Err(AgentError::TaskEnded {
                task_id: self.question.task_id,
                state: state_word(state),
                code: self.task.error_code.clone(),
            });
        }
        if !self.has_all_tokens() {
            return Err(AgentError::Protocol(format!(
                "it speaks of {} output tokens, {} came",
                self.task.output_tokens,
                self.tokens.len()
            )));
        }
        Ok(None)
    }

    fn take(&mut self, chunk: v1::TokenChunk) -> Result<Vec<u8>, AgentError> {
        append(&mut self.tokens, &chunk, self.question.sampling.max_tokens)?;
        Ok(chunk.text)
    }

    async fn resume(&mut self, why: AgentError) -> Result<(), AgentError> {
        if matches!(why, AgentError::Refused { .. }) && !why.is_worth_a_retry() {
            return Err(why);
        }
        let mut why = why;
        while self.resumes < RESUMES_MAX {
            self.resumes += 1;
            tokio::time::sleep(RESUME_PAUSE * self.resumes).await;
            let position = u32::try_from(self.tokens.len()).unwrap_or(u32::MAX);
            match self.client.stream(self.question.task_id, position).await {
                Ok(stream) => {
                    self.stream = stream;
                    return Ok(());
                }
                Err(error) if error.is_worth_a_retry() => why = error,
                Err(error) => return Err(error),
            }
        }
        Err(why)
    }
}

/// Appends a chunk that must begin where `tokens` ends and stay within `max_tokens`.
fn append(
    tokens: &mut Vec<u32>,
    chunk: &v1::TokenChunk,
    max_tokens: u32,
) -> Result<(), AgentError> {
    if usize::try_from(chunk.first_position).ok() != Some(tokens.len()) {
        return Err(AgentError::Protocol(format!(
            "tokens from position {} came where {} was due",
            chunk.first_position,
            tokens.len()
        )));
    }
    let room = usize::try_from(max_tokens).unwrap_or(usize::MAX) - tokens.len();
    if chunk.tokens.len() > room {
        return Err(AgentError::Protocol(
            "more tokens came than were asked for".into(),
        ));
    }
    tokens.extend_from_slice(&chunk.tokens);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first_position: u32, tokens: &[u32]) -> v1::TokenChunk {
        v1::TokenChunk {
            first_position,
            tokens: tokens.to_vec(),
            text: Vec::new(),
        }
    }

    #[test]
    fn chunks_must_follow_each_other_without_a_gap() {
        let mut tokens = Vec::new();
        append(&mut tokens, &chunk(0, &[5, 6]), 4).unwrap();
        assert!(append(&mut tokens, &chunk(3, &[7]), 4).is_err());
        assert!(append(&mut tokens, &chunk(1, &[7]), 4).is_err());
        append(&mut tokens, &chunk(2, &[7]), 4).unwrap();
        assert_eq!(tokens, [5, 6, 7]);
    }

    #[test]
    fn a_pool_cannot_send_more_tokens_than_were_asked_for() {
        let mut tokens = vec![1, 2, 3];
        assert!(append(&mut tokens, &chunk(3, &[4, 5]), 4).is_err());
        append(&mut tokens, &chunk(3, &[4]), 4).unwrap();
    }
}
