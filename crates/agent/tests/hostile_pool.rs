//! The `dovetail` command against a pool that this test plays and that wants to hurt it: over real gRPC on loopback, the
//! command as a process of its own with a bound on its memory.

#![allow(clippy::unwrap_used)]

use std::{
    path::PathBuf,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use dovetail_agent::{AgentClient, AgentError, Model, Question, Task, TaskState};
use dovetail_api::{
    codes::Code,
    v1::{
        self,
        inference_server::{Inference, InferenceServer},
        stream_task_response::Event,
    },
};
use dovetail_commitment::{ModelId, SamplingParams};
use dovetail_engine::tiny;
use dovetail_units::is_harmful;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};

/// What the command may allocate in all, whatever a pool sends: an allocation beyond it ends the process.
const DATA_KIB_MAX: u32 = 64 << 10;
/// The longest answer that can be asked for.
const TOKENS_MAX: u32 = 4_096;

/// Words that would retitle and clear a terminal, and forge a line.
const EVIL: &str = "tiny\x1b]0;owned\x07\x1b[2J\nforged: all is well\u{9b}1m\u{202e}";

type Events = Pin<Box<dyn Stream<Item = Result<v1::StreamTaskResponse, Status>> + Send>>;

/// What the pool does.
#[derive(Clone, Default)]
struct Pool {
    models: Vec<Model>,
    /// `CreateTask` is refused with these words.
    refuses: bool,
    /// `StreamTask` is answered with an error.
    opens_no_stream: bool,
    /// The events of a stream; without any, its head does not even come.
    events: Option<Arc<dyn Fn() -> Events + Send + Sync>>,
    /// What `GetReceipt` answers.
    receipt: String,
    cancelled: Arc<Mutex<Vec<Vec<u8>>>>,
    asked: Arc<Mutex<Vec<u8>>>,
}

fn model(name: &str, model_id: [u8; 32]) -> Model {
    Model {
        name: name.into(),
        model_id: model_id.to_vec(),
        workers: 1,
        ..Default::default()
    }
}

fn tiny_pool() -> Pool {
    Pool {
        models: vec![model("tiny", [7; 32])],
        ..Pool::default()
    }
}

impl Pool {
    fn streaming(self, events: impl Fn() -> Events + Send + Sync + 'static) -> Self {
        Self {
            events: Some(Arc::new(events)),
            ..self
        }
    }

    /// Streams these pieces, and then that the task is finished.
    fn answering(self, pieces: Vec<(Vec<u32>, Vec<u8>)>) -> Self {
        let asked = self.asked.clone();
        self.streaming(move || {
            let mut position = 0;
            let mut events = Vec::new();
            for (tokens, text) in &pieces {
                events.push(piece(position, tokens.clone(), text.clone()));
                position += u32::try_from(tokens.len()).unwrap();
            }
            let task_id = asked.lock().unwrap().clone();
            let last = Task {
                output_tokens: position,
                ..task(task_id, TaskState::Finished)
            };
            events.push(Ok(v1::StreamTaskResponse {
                event: Some(Event::Task(last)),
            }));
            Box::pin(tokio_stream::iter(events))
        })
    }

    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = InferenceServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }
}

fn task(task_id: Vec<u8>, state: TaskState) -> Task {
    Task {
        task_id,
        state: state.into(),
        ..Default::default()
    }
}

fn piece(
    first_position: u32,
    tokens: Vec<u32>,
    text: Vec<u8>,
) -> Result<v1::StreamTaskResponse, Status> {
    Ok(v1::StreamTaskResponse {
        event: Some(Event::Tokens(v1::TokenChunk {
            first_position,
            tokens,
            text,
        })),
    })
}

#[tonic::async_trait]
impl Inference for Pool {
    type StreamTaskStream = Events;

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = self.models.clone();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn quote_task(
        &self,
        _: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        Err(Code::Internal.status(EVIL))
    }

    async fn create_task(
        &self,
        request: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        if self.refuses {
            return Err(Code::QueueFull.status(EVIL.repeat(50)));
        }
        let task_id = request.into_inner().task_id;
        self.asked.lock().unwrap().clone_from(&task_id);
        Ok(Response::new(v1::CreateTaskResponse {
            task: Some(task(task_id, TaskState::Queued)),
            prompt_tokens: vec![7],
        }))
    }

    async fn stream_task(
        &self,
        _: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Events>, Status> {
        match &self.events {
            _ if self.opens_no_stream => Err(Status::unavailable("no stream")),
            Some(events) => Ok(Response::new(events())),
            None => std::future::pending().await,
        }
    }

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        let task = Task {
            error_code: EVIL.repeat(1_000),
            ..task(request.into_inner().task_id, TaskState::Failed)
        };
        Ok(Response::new(v1::GetTaskResponse { task: Some(task) }))
    }

    async fn cancel_task(
        &self,
        request: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        let task_id = request.into_inner().task_id;
        self.cancelled.lock().unwrap().push(task_id.clone());
        let task = Some(task(task_id, TaskState::Cancelled));
        Ok(Response::new(v1::CancelTaskResponse { task }))
    }

    async fn get_receipt(
        &self,
        _: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        Ok(Response::new(v1::GetReceiptResponse {
            receipt_json: self.receipt.clone(),
        }))
    }
}

/// Runs the command, bounded in memory, to its end.
async fn dovetail(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -d \"$0\" && exec \"$@\""])
        .arg(DATA_KIB_MAX.to_string())
        .arg(env!("CARGO_BIN_EXE_dovetail"))
        .args(arguments)
        .env("DOVETAIL_POOL", url)
        .env_remove("DOVETAIL_POOL_KEY")
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The complaint of a command that must fail in order.
fn complaint(output: &Output) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr
}

#[tokio::test]
async fn text_without_tokens_is_refused_however_much_of_it_comes() {
    for json in [&[][..], &["--json"]] {
        for bytes in [5, 900_000] {
            let endless = move || -> Events {
                let pieces = std::iter::repeat_with(move || piece(0, vec![], vec![b'x'; bytes]));
                Box::pin(tokio_stream::iter(pieces))
            };
            let url = tiny_pool().streaming(endless).serve().await;
            let arguments = [&["ask", "--max-tokens", "1", "x"], json].concat();
            let output = dovetail(&url, &arguments).await;
            let stderr = complaint(&output);
            assert!(
                stderr.contains("bytes of text came with 0 tokens"),
                "{stderr}"
            );
            assert!(output.stdout.len() < 8, "{}", output.stdout.len());
        }
    }
}

#[tokio::test]
async fn a_token_cannot_bring_a_megabyte_of_text() {
    let pool = tiny_pool().answering(vec![(vec![1], vec![b'x'; 900_000])]);
    let output = dovetail(&pool.serve().await, &["ask", "x"]).await;
    let stderr = complaint(&output);
    assert!(stderr.contains("came with 1 tokens"), "{stderr}");
    assert!(!pool.cancelled.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_longest_answer_fits_the_bound_on_memory_whether_it_is_streamed_or_gathered() {
    let tokens: Vec<u32> = (0..TOKENS_MAX).collect();
    let pieces = tokens
        .chunks(512)
        .map(|tokens| (tokens.to_vec(), vec![b'x'; tokens.len() * 1_024]))
        .collect();
    let url = tiny_pool().answering(pieces).serve().await;
    let tokens_max = TOKENS_MAX.to_string();
    let arguments = ["ask", "--max-tokens", &tokens_max, "x"];
    let output = dovetail(&url, &arguments).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout.len(), 4 << 20);
    let output = dovetail(&url, &[&arguments[..], &["--json"]].concat()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["text"].as_str().unwrap().len(), 4 << 20);
    assert_eq!(answer["text_compared"], false);
}

#[tokio::test]
async fn events_that_bring_nothing_end_an_answer() {
    let pool = tiny_pool();
    let asked = pool.asked.clone();
    let url = pool
        .streaming(move || {
            let task_id = asked.lock().unwrap().clone();
            let running = move || {
                Ok(v1::StreamTaskResponse {
                    event: Some(Event::Task(task(task_id.clone(), TaskState::Running))),
                })
            };
            Box::pin(tokio_stream::iter(std::iter::repeat_with(running)))
        })
        .serve()
        .await;
    let stderr = complaint(&dovetail(&url, &["ask", "x"]).await);
    assert!(
        stderr.contains("events came that brought nothing"),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_given_up_and_its_task_cancelled() {
    // One token, and then nothing more, on a stream that stays open.
    let silent = || -> Events {
        let first = tokio_stream::once(piece(0, vec![1], b"a".to_vec()));
        Box::pin(first.chain(tokio_stream::pending()))
    };
    let pool = tiny_pool().streaming(silent);
    let output = dovetail(&pool.serve().await, &["ask", "--timeout", "1", "x"]).await;
    let stderr = complaint(&output);
    assert!(stderr.contains("has not ended within 1 s"), "{stderr}");
    assert_eq!(output.stdout, b"a");
    let asked = pool.asked.lock().unwrap().clone();
    assert_eq!(*pool.cancelled.lock().unwrap(), [asked]);
}

#[tokio::test]
async fn a_stream_whose_beginning_never_comes_is_not_waited_for() {
    let url = tiny_pool().serve().await;
    let client = AgentClient::connect(&url).await.unwrap();
    let client = client.with_call_time_max(Duration::from_millis(200));
    let sampling = SamplingParams {
        temperature_milli: 0,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens: 8,
    };
    let question = Question::new(ModelId::from_bytes([7; 32]), b"x".to_vec(), sampling);
    let asked = client.ask(question).await;
    assert!(matches!(asked, Err(AgentError::Unreachable { .. })));
}

#[tokio::test]
async fn a_task_whose_stream_never_opens_is_cancelled() {
    let pool = Pool {
        opens_no_stream: true,
        ..tiny_pool()
    };
    let output = dovetail(&pool.serve().await, &["ask", "x"]).await;
    complaint(&output);
    let asked = pool.asked.lock().unwrap().clone();
    assert_eq!(*pool.cancelled.lock().unwrap(), [asked]);
}

#[tokio::test]
async fn a_task_that_lost_its_constraint_is_cancelled() {
    // An older pool does not see the field.
    let pool = tiny_pool().answering(vec![(vec![1], b"perhaps".to_vec())]);
    let output = dovetail(&pool.serve().await, &["ask", "--choice", "yes", "x"]).await;
    let stderr = complaint(&output);
    assert!(stderr.contains("names no guide"), "{stderr}");
    assert!(output.stdout.is_empty());
    let asked = pool.asked.lock().unwrap().clone();
    assert_eq!(*pool.cancelled.lock().unwrap(), [asked]);
}

/// Nothing in it steers a terminal or begins a line of its own.
fn check_harmless(what: &[&str], output: &Output) -> String {
    let shown = text(&[&output.stdout[..], &output.stderr].concat());
    let harm = shown.chars().find(|c| *c != '\n' && is_harmful(*c));
    assert_eq!(harm, None, "{what:?}: {shown:?}");
    for line in shown.lines() {
        assert!(!line.starts_with("forged"), "{what:?}: {shown}");
    }
    assert!(shown.len() < 4_000, "{what:?}: {} bytes", shown.len());
    shown
}

#[tokio::test]
async fn no_word_of_a_pool_steers_the_terminal_or_forges_a_line() {
    let receipt = format!("{{\n\"note\": {}}}", Value::from(EVIL));
    let evil = Pool {
        models: vec![model(EVIL, [7; 32]), model(EVIL, [8; 32])],
        refuses: true,
        receipt,
        ..Pool::default()
    };
    let url = evil.serve().await;
    let (id, task) = ("07".repeat(32), "00".repeat(32));
    for arguments in [
        &["models"][..],
        &["models", "--json"],
        &["ask", "x"],
        &["ask", "--model", "none", "x"],
        &["ask", "--model", &id, "x"],
        &["ask", "--model", &id, "--json", "x"],
        &["task", "get", &task],
        &["task", "get", &task, "--json"],
        &["receipt", "get", &task],
    ] {
        let output = dovetail(&url, arguments).await;
        let shown = check_harmless(arguments, &output);
        assert!(shown.contains("\\u001b[2J"), "{arguments:?}: {shown}");
        // What programs read is what the pool said, to the letter.
        let json: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        match arguments[0] {
            "models" if arguments.len() == 2 => assert_eq!(json.unwrap()[0]["name"], EVIL),
            "receipt" => assert_eq!(json.unwrap()["note"], EVIL),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_pool_with_endless_or_endlessly_named_models_is_refused() {
    let many = Pool {
        models: vec![model("m", [7; 32]); 20_000],
        ..Pool::default()
    };
    let output = dovetail(&many.serve().await, &["models"]).await;
    assert!(complaint(&output).contains("20000 models"));
    let long = Pool {
        models: vec![model(&"m".repeat(500_000), [7; 32])],
        ..Pool::default()
    };
    let stderr = complaint(&dovetail(&long.serve().await, &["models"]).await);
    assert!(stderr.contains("a name that is too long"), "{stderr}");
    assert!(stderr.len() < 500, "{}", stderr.len());
}

/// A model file, and a pool that serves the model.
fn with_model_file(pieces: Vec<(Vec<u32>, Vec<u8>)>) -> (tempfile::TempDir, PathBuf, Pool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    let file = tiny::generate(1);
    std::fs::write(&path, &file).unwrap();
    let id = dovetail_engine::Model::from_bytes(&file).unwrap().id();
    let pool = Pool {
        models: vec![model("tiny", id.to_bytes())],
        ..Pool::default()
    };
    (folder, path, pool.answering(pieces))
}

#[tokio::test]
async fn with_the_model_file_a_text_that_is_not_that_of_its_tokens_is_never_shown() {
    for (pieces, shown) in [
        (vec![(vec![0x6e, 0x6f], b"yes".to_vec())], &b""[..]),
        (vec![(vec![0x6e, 0x6f], b"ye".to_vec())], b""),
        // The first piece is true, the second is not.
        (
            vec![(vec![0x6e], b"n".to_vec()), (vec![0x6f], b"0".to_vec())],
            b"n",
        ),
        // Something is left out.
        (vec![(vec![0x6e, 0x6f], b"n".to_vec())], b"n"),
    ] {
        let (_folder, path, pool) = with_model_file(pieces);
        let arguments = ["ask", "--model-file", path.to_str().unwrap(), "x"];
        let output = dovetail(&pool.serve().await, &arguments).await;
        let stderr = complaint(&output);
        assert!(stderr.contains("not the text of its tokens"), "{stderr}");
        assert_eq!(text(&output.stdout), text(shown));
    }
}

#[tokio::test]
async fn with_the_model_file_a_true_text_is_said_to_be_compared() {
    let (folder, path, pool) = with_model_file(vec![
        (vec![0x6e], b"n".to_vec()),
        (vec![0x6f, 257], b"o".to_vec()),
    ]);
    let url = pool.serve().await;
    let path = path.to_str().unwrap();
    let arguments = ["ask", "--model-file", path, "--json", "x"];
    let output = dovetail(&url, &arguments).await;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["text"], &answer["text_compared"]),
        (&"no".into(), &true.into())
    );

    // A file of another model is refused before the question is asked.
    let other = folder.path().join("other.safetensors");
    std::fs::write(&other, tiny::generate(2)).unwrap();
    pool.asked.lock().unwrap().clear();
    let other = other.to_str().unwrap();
    let stderr = complaint(&dovetail(&url, &["ask", "--model-file", other, "x"]).await);
    assert!(stderr.contains("the model file is of model"), "{stderr}");
    assert!(pool.asked.lock().unwrap().is_empty());
}
