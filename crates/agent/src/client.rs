//! Calls to one pool. One short function per call of the interface, and one that a person needs: find a model by name.
//! Waiting for a receipt is in `settlement.rs`.

use std::time::Duration;

use dovetail_api::{
    ID_BYTES, MESSAGE_BYTES_MAX,
    connection::{DialError, PoolAddress},
    v1::{self, inference_client::InferenceClient},
    words,
};
use dovetail_commitment::{Constraint, EncodedPrompt, ModelId, SamplingParams, TaskId};
use dovetail_console::harmless;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::question::{Question, sampling_to_wire};
use crate::{AgentError, AgentKey, Answer, Model, Task, TaskState};

/// A pool on the same continent answers in milliseconds; a person waits this long at most.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For every call, to its last byte; of the stream of tokens, for its beginning.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(20);
/// More models than any pool serves.
const MODELS_MAX: usize = 1_024;
/// A model's name has 64 bytes.
const NAME_BYTES_MAX: usize = 64;
/// A dead connection is noticed within twice this, even in the middle of a slow answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A connection to one pool. Cheap to clone; clones share the connection, which is made anew when it is lost.
#[derive(Clone, Debug)]
pub struct AgentClient {
    url: String,
    inner: InferenceClient<Channel>,
    call_time_max: Duration,
    key: Option<AgentKey>,
}

impl AgentClient {
    /// Connects to the address of a pool, such as `https://pool.example:50051`, or `127.0.0.1:50051` for one without TLS; a
    /// [`PoolAddress`] can name the authority that vouches for it.
    pub async fn connect(pool: impl Into<PoolAddress>) -> Result<Self, AgentError> {
        let (url, channel) = open(&pool.into()).await?;
        let inner = InferenceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self {
            url,
            inner,
            call_time_max: CALL_TIME_MAX,
            key: None,
        })
    }

    /// Has the questions that are asked from now on paid with this key.
    #[must_use]
    pub fn with_key(self, key: AgentKey) -> Self {
        Self {
            key: Some(key),
            ..self
        }
    }

    /// Gives every call this long instead of 20 seconds.
    #[must_use]
    pub fn with_call_time_max(self, call_time_max: Duration) -> Self {
        Self {
            call_time_max,
            ..self
        }
    }

    /// Where this client is connected to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The models that the pool knows.
    pub async fn models(&self) -> Result<Vec<Model>, AgentError> {
        let request = self.unary(v1::ListModelsRequest {});
        let mut inner = self.inner.clone();
        let models = self.call(inner.list_models(request)).await?.models;
        if models.len() > MODELS_MAX {
            return Err(AgentError::Protocol(format!(
                "it names {} models, more than {MODELS_MAX}",
                models.len()
            )));
        }
        models.iter().try_for_each(check_model)?;
        Ok(models)
    }

    /// The model of this name or id (64 hex digits), or, where `wanted` is none, the only one there is.
    pub async fn find_model(&self, wanted: Option<&str>) -> Result<Model, AgentError> {
        let models = self.models().await?;
        pick_model(models, wanted)
    }

    /// What a task would cost at most.
    pub async fn quote(
        &self,
        model_id: ModelId,
        prompt_bytes: usize,
        sampling: &SamplingParams,
    ) -> Result<v1::QuoteTaskResponse, AgentError> {
        let request = self.unary(v1::QuoteTaskRequest {
            model_id: model_id.to_bytes().to_vec(),
            prompt_bytes: u32::try_from(prompt_bytes).unwrap_or(u32::MAX),
            sampling: Some(sampling_to_wire(sampling)),
        });
        let mut inner = self.inner.clone();
        self.call(inner.quote_task(request)).await
    }

    /// Hands the question to the pool and follows the answer. Repeating it with the same question is safe: it is the
    /// same task.
    pub async fn ask(&self, mut question: Question) -> Result<Answer, AgentError> {
        let begun = Instant::now();
        let mut request = self.unary(question.to_request());
        if let Some(key) = &self.key {
            key.show_with(&mut request);
        }
        let mut inner = self.inner.clone();
        let created = self.call(inner.create_task(request)).await?;
        let task = expect_task(created.task, question.task_id)?;
        // Without them the agent could not prove later what it asked.
        let prompt = EncodedPrompt::new(&question.prompt, created.prompt_tokens)
            .map_err(|error| AgentError::Protocol(error.to_string()))?;
        question.constraint = for_guide_of(&task, question.constraint)?;
        Answer::start(self.clone(), question, (task, prompt), begun).await
    }

    /// The task as it stands.
    pub async fn task(&self, task_id: TaskId) -> Result<Task, AgentError> {
        let request = self.unary(v1::GetTaskRequest {
            task_id: task_id.to_bytes().to_vec(),
        });
        let mut inner = self.inner.clone();
        expect_task(self.call(inner.get_task(request)).await?.task, task_id)
    }

    /// Stops the task if it still runs, and tells how it stands.
    pub async fn cancel(&self, task_id: TaskId) -> Result<Task, AgentError> {
        let request = self.unary(v1::CancelTaskRequest {
            task_id: task_id.to_bytes().to_vec(),
        });
        let mut inner = self.inner.clone();
        expect_task(self.call(inner.cancel_task(request)).await?.task, task_id)
    }

    /// The pool's receipt as one line of JSON, harmless to show and not checked yet. Refused with `receipt-pending` until
    /// the task is settled.
    pub async fn receipt(&self, task_id: TaskId) -> Result<String, AgentError> {
        let request = self.unary(v1::GetReceiptRequest {
            task_id: task_id.to_bytes().to_vec(),
        });
        let mut inner = self.inner.clone();
        let text = self.call(inner.get_receipt(request)).await?.receipt_json;
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|_| AgentError::Protocol("the receipt is not JSON".into()))?;
        Ok(harmless(json).to_string())
    }

    /// The events of a task from this position of its output on: to the end of the output, or `until_settled`.
    pub(crate) async fn stream(
        &self,
        task_id: TaskId,
        from_position: u32,
        until_settled: bool,
    ) -> Result<Streaming<v1::StreamTaskResponse>, AgentError> {
        let request = v1::StreamTaskRequest {
            task_id: task_id.to_bytes().to_vec(),
            from_position,
            until_settled,
        };
        let mut inner = self.inner.clone();
        self.call(inner.stream_task(Request::new(request))).await
    }

    /// A call's answer, within the time for calls. The transport's own limit ends with the answer's head.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, AgentError> {
        within(&self.url, self.call_time_max, call).await
    }

    /// A request that tells the pool how long it is waited for.
    fn unary<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.call_time_max);
        request
    }

    pub(crate) fn failed(&self, status: &Status) -> AgentError {
        AgentError::from_status(&self.url, status)
    }
}

/// Opens a connection to a pool; the address as it is dialled.
pub(crate) async fn open(pool: &PoolAddress) -> Result<(String, Channel), AgentError> {
    let url = pool.url().to_owned();
    let dialled = pool.dial(CONNECT_TIMEOUT, |endpoint| {
        endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(false)
    });
    match dialled.await {
        Ok(channel) => Ok((url, channel)),
        Err(DialError::Address(reason)) => Err(AgentError::Address { url, reason }),
        Err(DialError::Unreachable(reason)) => Err(AgentError::Unreachable { url, reason }),
        Err(DialError::Tls(fault)) => Err(AgentError::Tls { url, fault }),
    }
}

/// A call's answer within this time.
pub(crate) async fn within<T>(
    url: &str,
    time_max: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, AgentError> {
    match timeout(time_max, call).await {
        Ok(answered) => answered
            .map(Response::into_inner)
            .map_err(|status| AgentError::from_status(url, &status)),
        Err(_) => Err(AgentError::Unreachable {
            url: url.to_owned(),
            reason: format!("no answer within {} s", time_max.as_secs_f32()),
        }),
    }
}

/// The words that people read for a state.
pub(crate) fn state_word(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unknown",
        TaskState::Queued => "queued",
        TaskState::Running => "running",
        TaskState::Finished => "finished",
        TaskState::Settled => "settled",
        TaskState::Failed => "failed",
        TaskState::Cancelled => "cancelled",
        TaskState::Expired => "expired",
    }
}

/// The constraint as the transcript will commit to it: with the name of the pool's guide. A task that is settled
/// or has failed names none; then the agent's own copy decides whether the receipt holds. Any other without a name has
/// lost its form: the pool knows no constraints.
fn for_guide_of(
    task: &Task,
    constraint: Option<Constraint>,
) -> Result<Option<Constraint>, AgentError> {
    match constraint {
        Some(constraint) if !task.guide.is_empty() => {
            let named = Constraint::for_guide(&task.guide, constraint.form().clone());
            let named = named.map_err(|error| AgentError::Protocol(error.to_string()))?;
            Ok(Some(named))
        }
        Some(_)
            if matches!(
                task.state(),
                TaskState::Queued | TaskState::Running | TaskState::Finished
            ) =>
        {
            let reason = "it names no guide, so the answer would have any form";
            Err(AgentError::Protocol(reason.into()))
        }
        constraint => Ok(constraint),
    }
}

/// The task in an answer, which must be the one that was asked about. Its code is a short word from here on.
pub(crate) fn expect_task(task: Option<Task>, task_id: TaskId) -> Result<Task, AgentError> {
    let mut task = task.ok_or_else(|| AgentError::Protocol("it holds no task".into()))?;
    if task.task_id != task_id.as_bytes() {
        return Err(AgentError::Protocol("it is about another task".into()));
    }
    task.error_code = words::word(&task.error_code);
    Ok(task)
}

/// A model that the interface allows.
fn check_model(model: &Model) -> Result<(), AgentError> {
    let wrong = |what: &str| {
        let name = words::word(&model.name);
        Err(AgentError::Protocol(format!("model '{name}' has {what}")))
    };
    if model.model_id.len() != ID_BYTES {
        return wrong("a malformed id");
    }
    if model.name.len() > NAME_BYTES_MAX {
        return wrong("a name that is too long");
    }
    Ok(())
}

fn pick_model(models: Vec<Model>, wanted: Option<&str>) -> Result<Model, AgentError> {
    let known = || words::names(&models);
    let is_wanted = |model: &Model, wanted: &str| {
        model.name == wanted || hex::encode(&model.model_id).eq_ignore_ascii_case(wanted)
    };
    match (wanted, models.as_slice()) {
        (Some(wanted), all) => all
            .iter()
            .find(|model| is_wanted(model, wanted))
            .cloned()
            .ok_or_else(|| AgentError::ModelUnknown {
                wanted: wanted.into(),
                known: known(),
            }),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(AgentError::ModelUnknown {
            wanted: "any".into(),
            known: known(),
        }),
        (None, _) => Err(AgentError::ModelNotChosen { known: known() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, byte: u8) -> Model {
        Model {
            name: name.into(),
            model_id: vec![byte; 32],
            ..Default::default()
        }
    }

    #[test]
    fn a_model_is_found_by_name_and_by_id() {
        let models = vec![model("tiny", 1), model("clerk", 2)];
        assert_eq!(
            pick_model(models.clone(), Some("clerk")).unwrap().name,
            "clerk"
        );
        assert_eq!(
            pick_model(models, Some(&"01".repeat(32))).unwrap().name,
            "tiny"
        );
    }

    #[test]
    fn the_only_model_needs_no_name_but_one_of_several_does() {
        assert_eq!(
            pick_model(vec![model("tiny", 1)], None).unwrap().name,
            "tiny"
        );
        let several = pick_model(vec![model("tiny", 1), model("clerk", 2)], None);
        assert!(matches!(several, Err(AgentError::ModelNotChosen { .. })));
    }

    #[test]
    fn an_unknown_model_is_refused_with_the_names_of_those_there_are() {
        let error = pick_model(vec![model("tiny", 1)], Some("huge"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("huge") && error.contains("tiny"), "{error}");
    }

    #[tokio::test]
    async fn an_unreachable_pool_is_named_with_the_reason() {
        let error = AgentClient::connect("127.0.0.1:1").await.unwrap_err();
        assert!(matches!(error, AgentError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }
}
