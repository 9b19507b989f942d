//! A worker whose only model has to be fetched, from a model server that this test plays: devices and the pool do not wait
//! for it, and once it is there it is registered without a restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use dovetail_api::models_v1::{
    FetchModelRequest, FetchModelResponse,
    models_server::{self, ModelsServer},
};
use dovetail_commitment::ModelId;
use dovetail_engine::{Model, tiny};
use dovetail_sv2::AuthorityKeys;
use dovetail_sv2::extension::{RegisterWorker, StreamTokens};
use dovetail_sv2::messages::OpenExtendedMiningChannel;
use dovetail_sv2::setup::SetupProtocol;
use dovetail_worker::config::Config;
use dovetail_worker::worker::Worker;
use support::fixture::TIME_MAX;
use support::pool::{hung_up, next, task, vrf_secret};
use support::{Played, easy_target, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Hands its file out a byte at a time until it is told to be honest.
#[derive(Clone)]
struct ModelServer {
    file: Arc<Vec<u8>>,
    honest: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl models_server::Models for ModelServer {
    type FetchModelStream = ReceiverStream<Result<FetchModelResponse, Status>>;

    async fn fetch_model(
        &self,
        request: Request<FetchModelRequest>,
    ) -> Result<Response<Self::FetchModelStream>, Status> {
        let mut offset = usize::try_from(request.into_inner().offset).unwrap();
        let (sender, receiver) = mpsc::channel(1);
        let (file, mut honest) = (self.file.clone(), self.honest.clone());
        tokio::spawn(async move {
            while offset < file.len() {
                let is_honest = *honest.borrow_and_update();
                let end = if is_honest { file.len() } else { offset + 1 };
                let data = file[offset..end.min(offset + 100_000)].to_vec();
                offset += data.len();
                let file_bytes = file.len() as u64;
                let piece = FetchModelResponse { file_bytes, data };
                if sender.send(Ok(piece)).await.is_err() {
                    return;
                }
                if !is_honest {
                    let pause = Duration::from_secs(1);
                    let _ = tokio::time::timeout(pause, honest.changed()).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Fixture {
    _folder: tempfile::TempDir,
    pool: TcpListener,
    pool_keys: AuthorityKeys,
    model_id: ModelId,
    honest: watch::Sender<bool>,
    page: std::net::SocketAddr,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (pool, pool_address, pool_keys) = listen().await;
        let file = tiny::generate(3);
        let model_id = Model::from_bytes(&file).unwrap().id();
        let (honest, is_honest) = watch::channel(false);
        let server = ModelServer {
            file: Arc::new(file),
            honest: is_honest,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(ModelsServer::new(server));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let config = format!(
            "[worker]\nkey_file = {:?}\nsearch = false\n\
             [pool]\naddress = {pool_address:?}\nauthority_public_key = \"{}\"\n\
             [fetch]\napi = {api:?}\nmodels = [\"{model_id}\"]\ncache_dir = {:?}\n\
             [page]\nlisten = \"127.0.0.1:0\"\n",
            folder.path().join("worker.key"),
            pool_keys.public(),
            folder.path().join("models"),
        );
        let config: Config = toml::from_str(&config).unwrap();
        let stop = CancellationToken::new();
        let starting = Worker::start(config, &stop);
        let worker = tokio::time::timeout(TIME_MAX, starting).await;
        let worker = worker.expect("it waits for a model").unwrap();
        let page = worker.page().unwrap();
        let run_until = stop.clone();
        let worker = tokio::spawn(async move {
            worker.run(run_until, |_, _| {}).await.unwrap();
        });
        Self {
            _folder: folder,
            pool,
            pool_keys,
            model_id,
            honest,
            page,
            stop,
            worker,
        }
    }

    /// The worker's next session: what it registers, and the channel that it asks for.
    async fn session(&self) -> (Played, RegisterWorker, OpenExtendedMiningChannel) {
        let opening = async {
            let protocol = SetupProtocol::MiningProtocol;
            let mut pool = Played::accept(&self.pool, &self.pool_keys, protocol).await;
            let (register, open) = pool.register(vrf_secret().public_key()).await;
            (pool, register, open)
        };
        tokio::time::timeout(TIME_MAX, opening).await.unwrap()
    }

    /// How the page says that the model is doing.
    async fn state(&self) -> String {
        let mut stream = TcpStream::connect(self.page).await.unwrap();
        let head = format!("GET /status.json HTTP/1.1\r\nHost: {}\r\n\r\n", self.page);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(status["models"].as_array().unwrap().len(), 1, "{status}");
        status["models"][0]["state"].as_str().unwrap().to_owned()
    }

    async fn until_state(&self, wanted: &str) {
        let waiting = async {
            while self.state().await != wanted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(TIME_MAX, waiting).await;
        waited.unwrap_or_else(|_| panic!("the page never said {wanted}"));
    }
}

/// Whether the worker has not ended the session by now.
async fn is_open(pool: &mut Played) -> bool {
    loop {
        match tokio::time::timeout(Duration::ZERO, pool.reader.read()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
}

#[tokio::test]
async fn a_worker_is_at_work_before_its_model_is_there_and_registers_it_when_it_arrives() {
    let fixture = Fixture::start().await;
    let (mut first, register, open) = fixture.session().await;
    first.open_channel(&open, 5, easy_target(), 8).await;
    assert!(register.models.is_empty(), "{:?}", register.models);
    fixture.until_state("fetching").await;

    fixture.honest.send_replace(true);
    let (mut second, register, open) = fixture.session().await;
    assert_eq!(register.models, [fixture.model_id]);
    fixture.until_state("served").await;
    // The session without the model ends once that with it is open, and not before; and tasks are served on it.
    assert!(is_open(&mut first).await);
    second.open_channel(&open, 5, easy_target(), 8).await;
    hung_up(&mut first).await;
    second.send(&task(fixture.model_id, 1)).await;
    let tokens: StreamTokens = next(&mut second).await;
    assert_eq!(tokens.first_position, 0);
    fixture.stop.cancel();
    fixture.worker.await.unwrap();
}
