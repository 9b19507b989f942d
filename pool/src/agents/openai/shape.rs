//! Answers in OpenAI's shapes: whole, and chunk by chunk.

use dovetail_chat::Piece;
use dovetail_commitment::{FinishReason, TaskId, Transcript};
use dovetail_engine::ENGINE_VERSION;
use dovetail_ledger::{TaskRecord, TaskState};
use serde_json::{Value, json};

use super::error::{ApiError, Code};

/// Which of OpenAI's two kinds of completions it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Text,
}

/// One answer, as its client knows it.
pub(super) struct Shape {
    pub(super) kind: Kind,
    /// The name that the model has in the list of models.
    pub(super) model: String,
    pub(super) task: TaskId,
    pub(super) created_unix: u64,
    /// Of the model and the arithmetic: the same prompt, seed and parameters give the same bytes while it stays the same.
    pub(super) fingerprint: String,
    /// Whether each chunk has a field for the usage, and the last one has it.
    pub(super) include_usage: bool,
    /// Whether the client has chosen the salt itself.
    pub(super) knows_salt: bool,
}

/// Where a task stands, as far as its answer is concerned.
pub(super) enum Outcome {
    /// More may come.
    Open,
    /// The answer is whole; how it ended, in OpenAI's words.
    Answered(&'static str),
    /// There is no answer, or no more of it.
    Failed(ApiError),
}

impl Outcome {
    /// `tokens`: how many of the answer have come. Of a task that is followed after its end the state comes first, and again
    /// behind the tokens.
    pub(super) fn of(record: &TaskRecord, tokens: usize) -> Self {
        let transcript = record.transcript.as_ref();
        let expected = transcript.map_or(0, |transcript| transcript.output_tokens as usize);
        match record.state {
            TaskState::Queued | TaskState::Assigned => Self::Open,
            TaskState::Finished | TaskState::Settled if tokens < expected => {
                match record.output_tokens {
                    Some(_) => Self::Open,
                    None => Self::Failed(wiped()),
                }
            }
            TaskState::Finished | TaskState::Settled => match finish_reason(record) {
                Some(FinishReason::Stop) => Self::Answered("stop"),
                // A form that could not be kept is an answer that is not whole, which clients know by this word.
                Some(FinishReason::Length | FinishReason::ConstraintUnmet) => {
                    Self::Answered("length")
                }
                Some(FinishReason::Cancelled) | None => Self::Failed(cancelled()),
            },
            TaskState::Failed => Self::Failed(ApiError::of_end(record.error_code.as_deref())),
            TaskState::Cancelled => Self::Failed(cancelled()),
            TaskState::Expired => {
                let message = "the task's time ran out";
                Self::Failed(ApiError::new(Code::TaskExpired, message))
            }
        }
    }
}

/// Of a task that is asked for again by its key.
fn wiped() -> ApiError {
    let message =
        "this answer was given before, and the pool has wiped it; its receipt is still there";
    ApiError::new(Code::AnswerWiped, message)
}

fn cancelled() -> ApiError {
    ApiError::new(Code::TaskCancelled, "the task was cancelled")
}

fn finish_reason(record: &TaskRecord) -> Option<FinishReason> {
    let transcript = record.transcript.as_ref();
    transcript.map(|transcript| transcript.finish_reason)
}

/// Where a task's receipt is.
pub(super) fn receipt_path(task: &TaskId) -> String {
    format!("/v1/dovetail/receipts/{task}")
}

impl Shape {
    /// The arithmetic's version and the model's id.
    pub(super) fn fingerprint(model: &dovetail_commitment::ModelId) -> String {
        let id = model.to_string();
        format!("dv{ENGINE_VERSION}-{}", &id[..id.len().min(16)])
    }

    /// The first chunk of a chat, which comes before any token so that proxies pass the stream on.
    pub(super) fn role(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.kind == Kind::Chat).then(|| self.chunk(self.choice(delta, "", None)))
    }

    /// A piece of the text.
    pub(super) fn piece(&self, text: &str) -> Value {
        self.chunk(self.choice(json!({ "content": text }), text, None))
    }

    /// A call of a function, in one chunk. `place`: how many came before it.
    pub(super) fn call(&self, place: usize, name: &str, arguments: &str) -> Value {
        let mut call = self.tool_call(place, name, arguments);
        call["index"] = place.into();
        self.chunk(self.choice(json!({ "tool_calls": [call] }), "", None))
    }

    /// How the answer ended.
    pub(super) fn end(&self, finish_reason: &str) -> Value {
        self.chunk(self.choice(json!({}), "", Some(finish_reason)))
    }

    /// What it cost, behind the end. It has no choices.
    pub(super) fn usage_chunk(&self, record: &TaskRecord) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage(record);
        chunk["dovetail"] = self.proof(record);
        chunk
    }

    /// The answer in one piece.
    pub(super) fn whole(
        &self,
        pieces: Vec<Piece>,
        finish_reason: &str,
        record: &TaskRecord,
    ) -> Value {
        let (text, calls) = self.text_and_calls(pieces);
        let choice = match self.kind {
            Kind::Chat => {
                let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
                if !calls.is_empty() {
                    message["tool_calls"] = calls.into();
                    // As OpenAI has it where a model calls and says nothing.
                    if text.is_empty() {
                        message["content"] = Value::Null;
                    }
                }
                json!({
                    "index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason,
                })
            }
            Kind::Text => json!({
                "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason,
            }),
        };
        let mut answer = self.frame(json!([choice]), self.objects().0);
        answer["usage"] = usage(record);
        answer["dovetail"] = self.proof(record);
        answer
    }

    /// What the kinds are called, whole and in chunks.
    fn objects(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Chat => ("chat.completion", "chat.completion.chunk"),
            Kind::Text => ("text_completion", "text_completion"),
        }
    }

    fn text_and_calls(&self, pieces: Vec<Piece>) -> (String, Vec<Value>) {
        let (mut text, mut calls) = (String::new(), Vec::new());
        for piece in pieces {
            match piece {
                Piece::Text(more) => text += &more,
                Piece::Call { name, arguments } => {
                    calls.push(self.tool_call(calls.len(), &name, &arguments));
                }
            }
        }
        (text, calls)
    }

    /// Its id names the task, so that no two answers have calls of the same id.
    fn tool_call(&self, place: usize, name: &str, arguments: &str) -> Value {
        let task = self.task.to_string();
        json!({
            "id": format!("call_{}_{place}", &task[..task.len().min(24)]),
            "type": "function",
            "function": { "name": name, "arguments": arguments },
        })
    }

    fn choice(&self, delta: Value, text: &str, finish_reason: Option<&str>) -> Value {
        match self.kind {
            Kind::Chat => json!([{
                "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason,
            }]),
            Kind::Text => json!([{
                "index": 0, "text": text, "logprobs": null, "finish_reason": finish_reason,
            }]),
        }
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.frame(choices, self.objects().1);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn frame(&self, choices: Value, object: &str) -> Value {
        let prefix = match self.kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        json!({
            "id": format!("{prefix}-{}", self.task),
            "object": object,
            "created": self.created_unix,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    /// What a client keeps to check its answer later.
    fn proof(&self, record: &TaskRecord) -> Value {
        let leaf = record.transcript.as_ref().map(Transcript::leaf);
        let mut proof = json!({
            "task_id": record.id.to_string(),
            "receipt": receipt_path(&record.id),
            "transcript": leaf.map(|leaf| leaf.to_string()),
            "seed": hex::encode(record.seed),
            "finish_reason": finish_reason(record).map(reason_word),
        });
        // Some hours after the task's end it is wiped.
        if let (false, Some(salt)) = (self.knows_salt, record.salt) {
            proof["salt"] = hex::encode(salt).into();
        }
        proof
    }
}

/// How a task's output ended, in the words of the gRPC interface.
pub(super) fn reason_word(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
        FinishReason::ConstraintUnmet => "constraint_unmet",
    }
}

/// What is billed: the numbers of the ledger, which are those of the transcript. Nothing is estimated.
pub(super) fn usage(record: &TaskRecord) -> Value {
    let output = record.transcript.as_ref();
    let output = output.map_or(0, |transcript| transcript.output_tokens);
    json!({
        "prompt_tokens": record.input_tokens,
        "completion_tokens": output,
        "total_tokens": u64::from(record.input_tokens) + u64::from(output),
        "prompt_tokens_details": { "cached_tokens": 0 },
        "cost_msat": record.price.get(),
    })
}
