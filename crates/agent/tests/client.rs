//! The client against a small stand-in for a pool, over real gRPC on loopback.

#![allow(clippy::unwrap_used)]

mod bad_line;

use std::{
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use dovetail_agent::{AgentClient, AgentError, Model, Question, ReceiptFile, Task, TaskState};
use dovetail_api::{
    codes::Code,
    v1::{
        self,
        inference_server::{Inference, InferenceServer},
        stream_task_response::Event,
    },
};
use dovetail_commitment::{EncodedPrompt, ModelId, PROMPT_TOKENS_MAX, SamplingParams};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};

/// What it makes of every prompt.
const PROMPT_TOKENS: [u32; 3] = [256, 8, 9];
const OUTPUT: [u32; 6] = [10, 11, 12, 13, 14, 15];

/// Answers every task with [`OUTPUT`], as misbehaving as it is told to.
#[derive(Default)]
struct StandIn {
    /// The stream breaks after 2 tokens this often.
    breaks: AtomicU32,
    /// Tasks end as failed instead.
    fails: bool,
    /// The stream begins with a task that is finished already.
    late: bool,
    /// How long a token takes.
    pause: Duration,
    /// Streams lack the token at this position.
    gap_at: Option<usize>,
    /// How many tokens it says it made of a prompt, instead of [`PROMPT_TOKENS`].
    prompt_tokens: Option<usize>,
}

fn take_one(counter: &AtomicU32) -> bool {
    counter
        .fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

fn task(task_id: Vec<u8>, state: TaskState) -> Task {
    let error_code = if state == TaskState::Failed {
        Code::WorkerLost.to_string()
    } else {
        String::new()
    };
    let output_tokens = u32::try_from(OUTPUT.len()).unwrap();
    Task {
        task_id,
        state: state.into(),
        output_tokens,
        error_code,
        ..Default::default()
    }
}

fn event(event: Event) -> Result<v1::StreamTaskResponse, Status> {
    Ok(v1::StreamTaskResponse { event: Some(event) })
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::StreamTaskResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Inference for StandIn {
    type StreamTaskStream = Events;

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let model = Model {
            name: "tiny".into(),
            model_id: vec![7; 32],
            workers: 1,
            ..Default::default()
        };
        Ok(Response::new(v1::ListModelsResponse {
            models: vec![model],
        }))
    }

    async fn quote_task(
        &self,
        _: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        Ok(Response::new(v1::QuoteTaskResponse {
            price_msat_max: 6_000,
            ..Default::default()
        }))
    }

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        let request = request.into_inner();
        if request.model_id != [7; 32] {
            return Err(Code::ModelUnknown.status("no such model here"));
        }
        assert_eq!(
            (
                request.task_id.len(),
                request.seed.len(),
                request.salt.len()
            ),
            (32, 32, 32)
        );
        Ok(Response::new(v1::CreateTaskResponse {
            task: Some(task(request.task_id, TaskState::Queued)),
            prompt_tokens: match self.prompt_tokens {
                None => PROMPT_TOKENS.to_vec(),
                Some(count) => vec![7; count],
            },
        }))
    }

    async fn stream_task(
        &self,
        request: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Events>, Status> {
        let v1::StreamTaskRequest {
            task_id,
            from_position,
            ..
        } = request.into_inner();
        let first_state = if self.late {
            TaskState::Finished
        } else {
            TaskState::Running
        };
        let mut events = vec![event(Event::Task(task(task_id.clone(), first_state)))];
        let first = usize::try_from(from_position).unwrap();
        for (position, token) in OUTPUT.iter().enumerate().skip(first) {
            if self.gap_at == Some(position) {
                continue;
            }
            if position == first + 2 && take_one(&self.breaks) {
                events.push(Err(Status::unavailable("connection reset")));
                return Ok(Response::new(Box::pin(tokio_stream::iter(events))));
            }
            events.push(event(Event::Tokens(v1::TokenChunk {
                first_position: u32::try_from(position).unwrap(),
                tokens: vec![*token],
                text: format!("{token} ").into_bytes(),
            })));
        }
        let last = if self.fails {
            TaskState::Failed
        } else {
            TaskState::Finished
        };
        events.push(event(Event::Task(task(task_id, last))));
        let pause = self.pause;
        let events = tokio_stream::iter(events).then(move |event| async move {
            tokio::time::sleep(pause).await;
            event
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let task = Some(task(request.into_inner().task_id, TaskState::Finished));
        Ok(Response::new(v1::GetTaskResponse { task }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let task = Some(task(request.into_inner().task_id, TaskState::Cancelled));
        Ok(Response::new(v1::CancelTaskResponse { task }))
    }

    async fn get_receipt(
        &self,
        _: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        Ok(Response::new(v1::GetReceiptResponse {
            receipt_json: "{}".into(),
        }))
    }
}

async fn connect(stand_in: StandIn) -> AgentClient {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = InferenceServer::from_arc(Arc::new(stand_in));
    let incoming = TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(incoming),
    );
    AgentClient::connect(&url).await.unwrap()
}

fn question(model: u8) -> Question {
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens: 8,
    };
    Question::new(
        ModelId::from_bytes([model; 32]),
        b"a prompt".to_vec(),
        sampling,
    )
}

#[tokio::test]
async fn an_answer_arrives_whole_although_its_stream_breaks_twice() {
    for late in [false, true] {
        let client = connect(StandIn {
            breaks: 2.into(),
            late,
            ..Default::default()
        })
        .await;
        let mut answer = client.ask(question(7)).await.unwrap();
        let mut text = Vec::new();
        while let Some(piece) = answer.next().await.unwrap() {
            text.extend(piece);
        }
        assert_eq!(answer.tokens(), OUTPUT);
        assert_eq!(text, b"10 11 12 13 14 15 ");
        assert_eq!(answer.to_file().output_tokens, OUTPUT);
        assert_eq!(answer.to_file().prompt_tokens, PROMPT_TOKENS);
        assert_eq!(answer.prompt_tokens(), PROMPT_TOKENS);
    }
}

/// What comes of it is a status of the transport's own, and none that a pool has sent.
#[tokio::test]
async fn an_answer_arrives_whole_although_its_connection_is_cut_in_the_middle() {
    let pool = connect(StandIn {
        pause: Duration::from_millis(100),
        ..Default::default()
    })
    .await;
    let url = bad_line::to(pool.url(), 1, Duration::from_millis(400)).await;
    let client = AgentClient::connect(&url).await.unwrap();
    let mut answer = client.ask(question(7)).await.unwrap();
    while answer.next().await.unwrap().is_some() {}
    assert_eq!(answer.tokens(), OUTPUT);
}

#[tokio::test]
async fn an_unknown_model_is_refused_with_its_word() {
    let client = connect(StandIn::default()).await;
    let Err(error) = client.ask(question(8)).await else {
        panic!("it was taken")
    };
    assert!(error.is_refusal(Code::ModelUnknown), "{error}");
    assert!(error.hint().is_none() || !error.is_worth_a_retry());
}

#[tokio::test]
async fn a_failed_task_is_an_error_that_says_why() {
    let client = connect(StandIn {
        fails: true,
        ..Default::default()
    })
    .await;
    let mut answer = client.ask(question(7)).await.unwrap();
    let error = loop {
        match answer.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, AgentError::TaskEnded { code, .. } if *code == Code::WorkerLost));
}

#[tokio::test]
async fn a_gap_in_the_tokens_is_noticed() {
    for gap_at in [0, 3, 5] {
        let client = connect(StandIn {
            gap_at: Some(gap_at),
            ..Default::default()
        })
        .await;
        let mut answer = client.ask(question(7)).await.unwrap();
        let error = loop {
            match answer.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a gap at {gap_at} went unnoticed"),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, AgentError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn models_quotes_and_tasks_are_reported() {
    let client = connect(StandIn::default()).await;
    assert_eq!(client.find_model(None).await.unwrap().name, "tiny");
    let question = question(7);
    let quote = client
        .quote(question.model_id, question.prompt.len(), &question.sampling)
        .await
        .unwrap();
    assert_eq!(quote.price_msat_max, 6_000);
    assert_eq!(
        client.task(question.task_id).await.unwrap().state(),
        TaskState::Finished
    );
    assert_eq!(
        client.cancel(question.task_id).await.unwrap().state(),
        TaskState::Cancelled
    );
}

/// Runs the command with a standard output whose other end is closed.
async fn run_unread(url: &str, arguments: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail"));
    command.args(arguments).env("DOVETAIL_POOL", url);
    command.stdout(writer).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_pool_that_tells_no_tokens_of_the_prompt_or_too_many_is_not_followed() {
    for tokens in [0, PROMPT_TOKENS_MAX + 1] {
        let pool = StandIn {
            prompt_tokens: Some(tokens),
            ..StandIn::default()
        };
        let asked = connect(pool).await.ask(question(7)).await.err();
        assert!(matches!(asked, Some(AgentError::Protocol(_))), "{asked:?}");
    }
}

#[tokio::test]
async fn every_command_ends_quietly_where_nobody_reads_what_it_prints() {
    let client = connect(StandIn::default()).await;
    let task = "00".repeat(32);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("receipt.json");
    let question = question(7);
    let prompt = EncodedPrompt::new(&question.prompt, PROMPT_TOKENS.to_vec()).unwrap();
    ReceiptFile::pending(&question, &prompt, vec![1])
        .save(&file)
        .unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        &["models"][..],
        &["models", "--json"],
        &["ask", "a prompt"],
        &["ask", "a prompt", "--json"],
        &["task", "get", &task],
        &["task", "cancel", &task, "--json"],
        &["receipt", "get", &task],
        &["receipt", "verify", file],
        &["receipt", "verify", file, "--json"],
    ] {
        let output = run_unread(client.url(), arguments).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(141), "{arguments:?}");
    }
}
