//! Following one task: its tokens in order and without gaps, across lost connections, until it ends or its time is over.

mod received;
mod resumes;
mod text;

use dovetail_api::v1::{self, stream_task_response::Event};
use dovetail_commitment::{EncodedPrompt, TaskId};
use dovetail_engine::Vocabulary;
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use crate::{
    AgentClient, AgentError, FinishReason, Question, ReceiptFile, Task, TaskState,
    client::{expect_task, state_word},
};

use received::Received;
use resumes::Resumes;
use text::TextComparison;

/// An answer as it comes in. Dropping it does not stop the task; [`AgentClient::cancel`] does.
pub struct Answer {
    client: AgentClient,
    question: Question,
    /// The prompt with the tokens that the pool made of it.
    prompt: EncodedPrompt,
    stream: Streaming<v1::StreamTaskResponse>,
    task: Task,
    received: Received,
    resumes: Resumes,
    comparison: Option<TextComparison>,
    /// When it was asked.
    begun: Instant,
}

impl Answer {
    pub(crate) async fn start(
        client: AgentClient,
        question: Question,
        (task, prompt): (Task, EncodedPrompt),
        begun: Instant,
    ) -> Result<Self, AgentError> {
        let stream = client.stream(question.task_id, 0, false).await?;
        Ok(Self {
            client,
            received: Received::new(question.sampling.max_tokens),
            question,
            prompt,
            stream,
            task,
            resumes: Resumes::default(),
            comparison: None,
            begun,
        })
    }

    /// Compares the text with the tokens from here on: each piece before it is given out. Call it before the first
    /// [`Answer::next`]. Without it the text is the pool's word.
    ///
    /// # Errors
    /// [`AgentError::OtherModelFile`] if the vocabulary is another model's.
    pub fn compare_text(&mut self, vocabulary: Vocabulary) -> Result<(), AgentError> {
        let comparison = TextComparison::new(vocabulary, self.question.model_id)?;
        self.comparison = Some(comparison);
        Ok(())
    }

    /// The next piece of the output as bytes (which may end inside a character), or none once the output is complete.
    /// Cancellation-safe between pieces. The bytes are a stranger's: print them through `dovetail_console::Printer`, or
    /// filter them, before they reach a terminal.
    ///
    /// # Errors
    /// [`AgentError::TaskEnded`] if the task failed, was cancelled or expired; [`AgentError::AnswerLate`] once
    /// [`Question::time_max`] is over; [`AgentError::Protocol`] for more than can be an answer. What came before it stays
    /// in [`Answer::tokens`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        let time_max = self.question.time_max;
        // Not by the time of the end, which a long time puts beyond what the clock can say.
        let left = time_max.saturating_sub(self.begun.elapsed());
        match timeout(left, self.piece()).await {
            Ok(piece) => piece,
            Err(_) => Err(AgentError::AnswerLate {
                task_id: self.question.task_id,
                waited_s: time_max.as_secs(),
            }),
        }
    }

    async fn piece(&mut self) -> Result<Option<Vec<u8>>, AgentError> {
        loop {
            match self.stream.message().await {
                Ok(Some(v1::StreamTaskResponse {
                    event: Some(Event::Tokens(chunk)),
                })) => return self.take(chunk).map(Some),
                Ok(Some(v1::StreamTaskResponse {
                    event: Some(Event::Task(task)),
                })) => {
                    self.received.idle()?;
                    self.task = expect_task(Some(task), self.question.task_id)?;
                    // Nothing is missing: the pool need not close the stream for this to be the end.
                    if self.is_complete() {
                        return self.end();
                    }
                }
                // An event of a later version of the interface.
                Ok(Some(_)) => self.received.idle()?,
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

    /// The tokens that the pool made of the prompt. The worker was given these, and no text.
    pub fn prompt_tokens(&self) -> &[u32] {
        self.prompt.tokens()
    }

    /// The output tokens so far.
    pub fn tokens(&self) -> &[u32] {
        self.received.tokens()
    }

    /// Whether the text was compared with the tokens.
    pub fn is_text_compared(&self) -> bool {
        self.comparison.is_some()
    }

    /// Why the output ended.
    pub fn finish_reason(&self) -> FinishReason {
        self.task.finish_reason()
    }

    /// What the agent keeps: the question and the tokens it saw, with no receipt yet.
    pub fn to_file(&self) -> ReceiptFile {
        ReceiptFile::pending(&self.question, &self.prompt, self.tokens().to_vec())
    }

    fn has_ended(&self) -> bool {
        use TaskState::{Cancelled, Expired, Failed, Finished, Settled};
        matches!(
            self.task.state(),
            Finished | Settled | Failed | Cancelled | Expired
        )
    }

    fn is_complete(&self) -> bool {
        let is_good = matches!(self.task.state(), TaskState::Finished | TaskState::Settled);
        is_good && self.has_all_tokens()
    }

    /// As many tokens came as the task has; one that ended badly owes none.
    fn has_all_tokens(&self) -> bool {
        let is_owed = matches!(self.task.state(), TaskState::Finished | TaskState::Settled);
        !is_owed || usize::try_from(self.task.output_tokens).ok() == Some(self.tokens().len())
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
                self.tokens().len()
            )));
        }
        if let Some(comparison) = &self.comparison {
            comparison.end()?;
        }
        Ok(None)
    }

    fn take(&mut self, chunk: v1::TokenChunk) -> Result<Vec<u8>, AgentError> {
        self.received.take(&chunk)?;
        if !chunk.tokens.is_empty() {
            self.resumes.went_on();
        }
        if let Some(comparison) = &mut self.comparison {
            comparison.take(&chunk.tokens, &chunk.text)?;
        }
        Ok(chunk.text)
    }

    async fn resume(&mut self, why: AgentError) -> Result<(), AgentError> {
        if matches!(why, AgentError::Refused { .. }) && !why.is_worth_a_retry() {
            return Err(why);
        }
        let mut why = why;
        while let Some(pause) = self.resumes.next() {
            sleep(pause).await;
            let position = u32::try_from(self.tokens().len()).unwrap_or(u32::MAX);
            let task_id = self.question.task_id;
            match self.client.stream(task_id, position, false).await {
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
