//! What a pool says to `dovetail-worker model fetch` steers no terminal and forges no line.
#![allow(clippy::unwrap_used, missing_docs)]

use std::pin::Pin;
use std::process::{Command, Output, Stdio};

use dovetail_api::codes::Code;
use dovetail_api::models_v1::{
    FetchModelRequest, FetchModelResponse,
    models_server::{self, ModelsServer},
};
use dovetail_api::v1::{
    self,
    inference_server::{Inference, InferenceServer},
};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Words that would retitle and clear a terminal, and forge a line.
const EVIL: &str = "tiny\x1b]0;owned\x07\x1b[2J\nforged: all is well\u{9b}1m\u{202e}";

/// Says nothing but [`EVIL`].
#[derive(Clone)]
struct Pool;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn refusal<T>() -> Result<Response<T>, Status> {
    Err(Code::ModelUnknown.status(EVIL))
}

#[tonic::async_trait]
impl Inference for Pool {
    type StreamTaskStream = Events<v1::StreamTaskResponse>;

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let model = v1::Model {
            name: EVIL.to_owned(),
            model_id: vec![7; 32],
            ..Default::default()
        };
        let models = vec![model; 1_000];
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn quote_task(
        &self,
        _: Request<v1::QuoteTaskRequest>,
    ) -> Result<Response<v1::QuoteTaskResponse>, Status> {
        refusal()
    }

    async fn create_task(
        &self,
        _: Request<v1::CreateTaskRequest>,
    ) -> Result<Response<v1::CreateTaskResponse>, Status> {
        refusal()
    }

    async fn stream_task(
        &self,
        _: Request<v1::StreamTaskRequest>,
    ) -> Result<Response<Self::StreamTaskStream>, Status> {
        refusal()
    }

    async fn get_task(
        &self,
        _: Request<v1::GetTaskRequest>,
    ) -> Result<Response<v1::GetTaskResponse>, Status> {
        refusal()
    }

    async fn cancel_task(
        &self,
        _: Request<v1::CancelTaskRequest>,
    ) -> Result<Response<v1::CancelTaskResponse>, Status> {
        refusal()
    }

    async fn get_receipt(
        &self,
        _: Request<v1::GetReceiptRequest>,
    ) -> Result<Response<v1::GetReceiptResponse>, Status> {
        refusal()
    }
}

#[tonic::async_trait]
impl models_server::Models for Pool {
    type FetchModelStream = Events<FetchModelResponse>;

    async fn fetch_model(
        &self,
        _: Request<FetchModelRequest>,
    ) -> Result<Response<Self::FetchModelStream>, Status> {
        refusal()
    }
}

async fn fetch(url: &str, model: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail-worker"));
    let folder = tempfile::tempdir().unwrap();
    command
        .args(["model", "fetch", "--pool", url, "--model", model])
        .current_dir(folder.path())
        .stdin(Stdio::null());
    tokio::task::spawn_blocking(move || {
        let _folder = folder;
        command.output().unwrap()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn names_and_refusals_of_a_pool_are_harmless_and_short() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_service(InferenceServer::new(Pool))
        .add_service(ModelsServer::new(Pool));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    // A name that the pool does not have makes the error list its names; an id is refused with its message.
    for model in ["none", &"07".repeat(32)] {
        let output = fetch(&url, model).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("\\u001b[2J"), "{stderr}");
        assert!(
            stderr.chars().all(|c| c == '\n' || !c.is_control()),
            "{stderr:?}"
        );
        assert!(
            stderr.lines().all(|line| !line.starts_with("forged")),
            "{stderr}"
        );
        assert!(stderr.len() < 4_000, "{}", stderr.len());
    }
}
