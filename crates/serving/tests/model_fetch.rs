//! Fetching models from a pool that this test plays, over real gRPC on loopback: it breaks, cheats and
//! refuses as it is told to.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dovetail_api::codes::Code;
use dovetail_api::models_v1::{
    FetchModelRequest, FetchModelResponse,
    models_server::{Models, ModelsServer},
};
use dovetail_commitment::ModelId;
use dovetail_engine::{Model, tiny};
use dovetail_serving::fetch::{FetchError, Fetcher, Pace, Progress};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

const PIECE: usize = 10_000;
/// Longer than anything takes on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(60);

/// What the stand-in does.
#[derive(Default)]
struct Manners {
    /// The next streams break after so many pieces each.
    breaks: Mutex<Vec<usize>>,
    /// So many calls are refused because others fetch.
    full: AtomicU32,
    /// From this byte on, the file sent is this one.
    changed: Mutex<Option<(usize, Vec<u8>)>>,
    /// Pieces have this length instead of [`PIECE`], and come one in a while.
    trickles: Mutex<Option<usize>>,
    /// A stream opens, and nothing comes.
    hangs: Mutex<bool>,
}

#[derive(Clone)]
struct StandIn {
    file: Arc<Vec<u8>>,
    id: ModelId,
    manners: Arc<Manners>,
    offsets: Arc<Mutex<Vec<usize>>>,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<FetchModelResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Models for StandIn {
    type FetchModelStream = Pieces;

    async fn fetch_model(
        &self,
        request: Request<FetchModelRequest>,
    ) -> Result<Response<Pieces>, Status> {
        let request = request.into_inner();
        if request.model_id != self.id.as_bytes() {
            return Err(Code::ModelUnknown.status("no such model here"));
        }
        let take_one = |n: u32| n.checked_sub(1);
        if self
            .manners
            .full
            .fetch_update(SeqCst, SeqCst, take_one)
            .is_ok()
        {
            return Err(Code::DownloadsFull.status("others fetch"));
        }
        let offset = usize::try_from(request.offset).unwrap();
        self.offsets.lock().unwrap().push(offset);
        if *self.manners.hangs.lock().unwrap() {
            return Ok(Response::new(Box::pin(tokio_stream::pending())));
        }
        let mut file = self.file.to_vec();
        if let Some((from, other)) = &*self.manners.changed.lock().unwrap() {
            file.truncate(*from);
            file.extend(other);
        }
        let file_bytes = file.len() as u64;
        if let Some(length) = *self.manners.trickles.lock().unwrap() {
            let file = file.split_off(offset);
            return Ok(Response::new(Box::pin(trickle(file, file_bytes, length))));
        }
        let pieces: Vec<_> = file[offset..]
            .chunks(PIECE)
            .map(|data| {
                Ok(FetchModelResponse {
                    file_bytes,
                    data: data.to_vec(),
                })
            })
            .collect();
        let mut breaks = self.manners.breaks.lock().unwrap();
        if breaks.is_empty() {
            return Ok(Response::new(Box::pin(tokio_stream::iter(pieces))));
        }
        let cut = tokio_stream::iter(pieces).take(breaks.remove(0));
        let cut = cut.chain(tokio_stream::once(Err(Status::unknown("cut"))));
        Ok(Response::new(Box::pin(cut)))
    }
}

/// A piece every few milliseconds, for ever.
fn trickle(
    file: Vec<u8>,
    file_bytes: u64,
    length: usize,
) -> ReceiverStream<Result<FetchModelResponse, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut rest = file.into_iter();
        loop {
            let data = rest.by_ref().take(length).collect();
            let piece = FetchModelResponse { file_bytes, data };
            if sender.send(Ok(piece)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    ReceiverStream::new(receiver)
}

struct Fixture {
    folder: tempfile::TempDir,
    pool: StandIn,
    fetcher: Fetcher,
}

impl Fixture {
    async fn start() -> Self {
        let file = tiny::generate(1);
        let pool = StandIn {
            id: Model::from_bytes(&file).unwrap().id(),
            file: Arc::new(file),
            manners: Arc::default(),
            offsets: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = format!("http://{}", listener.local_addr().unwrap());
        let service = ModelsServer::new(pool.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            folder: tempfile::tempdir().unwrap(),
            pool,
            fetcher: Fetcher {
                api: api.into(),
                model_bytes_max: 1 << 20,
                attempts_max: 3,
                pace: Pace::default(),
            },
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("cache").join("model.safetensors")
    }

    fn partial(&self) -> PathBuf {
        self.file().with_file_name("model.safetensors.partial")
    }

    async fn fetch(&self) -> Result<Vec<Progress>, FetchError> {
        let mut told = Vec::new();
        let tell = |progress| told.push(progress);
        let model = self.fetcher.fetch(self.pool.id, &self.file(), tell).await?;
        assert_eq!(model.id(), self.pool.id);
        assert_eq!(std::fs::read(self.file()).unwrap(), *self.pool.file);
        assert!(!self.partial().exists());
        Ok(told)
    }

    /// Fetches, which must fail and leave no file under the model's name.
    async fn failure(&self) -> FetchError {
        let fetched = tokio::time::timeout(TIME_MAX, self.fetch()).await;
        let error = fetched.expect("it is waited for").unwrap_err();
        assert!(!self.file().exists());
        error
    }

    fn offsets(&self) -> Vec<usize> {
        std::mem::take(&mut *self.pool.offsets.lock().unwrap())
    }

    /// The stand-in's file differs from here on, at its end or in a byte.
    fn change(&self, from: usize, rest: Vec<u8>) {
        *self.pool.manners.changed.lock().unwrap() = Some((from, rest));
    }
}

#[tokio::test]
async fn a_model_is_fetched_once_and_then_taken_from_its_file() {
    let fixture = Fixture::start().await;
    let told = fixture.fetch().await.unwrap();
    let of = fixture.pool.file.len() as u64;
    assert!(told.contains(&Progress::Bytes { done: of, of }));
    assert_eq!(told.last(), Some(&Progress::Checking));
    assert_eq!(fixture.fetch().await.unwrap(), [Progress::Cached]);
    assert_eq!(fixture.offsets(), [0]);
    // A file that is damaged on the disk is fetched again.
    std::fs::write(fixture.file(), &fixture.pool.file[..1000]).unwrap();
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.offsets(), [0]);
    // And so is one that is whole and another model's.
    std::fs::write(fixture.file(), tiny::generate(2)).unwrap();
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.offsets(), [0]);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let fixture = Fixture::start().await;
    *fixture.pool.manners.breaks.lock().unwrap() = vec![3, 0, 2];
    fixture.pool.manners.full.store(1, SeqCst);
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.offsets(), [0, 3 * PIECE, 3 * PIECE, 5 * PIECE]);
}

#[tokio::test]
async fn another_process_goes_on_where_the_first_was_cut() {
    let fixture = Fixture::start().await;
    *fixture.pool.manners.breaks.lock().unwrap() = vec![4, 0, 0];
    assert!(matches!(fixture.failure().await, FetchError::Broken(_)));
    fixture.offsets();
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.offsets(), [4 * PIECE]);
}

#[tokio::test]
async fn a_changed_byte_is_refused_and_nothing_of_it_stays() {
    let fixture = Fixture::start().await;
    let (at, mut rest) = (100_000, fixture.pool.file[100_000..].to_vec());
    rest[0] ^= 1;
    fixture.change(at, rest);
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::NotTheModel { .. }), "{error}");
    assert!(!fixture.partial().exists());
    // What was right before the change was made is not what makes it right.
    assert_eq!(fixture.offsets(), [0]);
    *fixture.pool.manners.breaks.lock().unwrap() = vec![4];
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::NotTheModel { .. }), "{error}");
    assert_eq!(fixture.offsets(), [0, 4 * PIECE, 0]);
}

#[tokio::test]
async fn parts_of_a_damaged_file_are_thrown_away_for_a_whole_one() {
    let fixture = Fixture::start().await;
    let mut damaged = fixture.pool.file[..200_000].to_vec();
    damaged[150_000] ^= 1;
    std::fs::create_dir_all(fixture.partial().parent().unwrap()).unwrap();
    std::fs::write(fixture.partial(), damaged).unwrap();
    fixture.fetch().await.unwrap();
    assert_eq!(fixture.offsets(), [200_000, 0]);
}

#[tokio::test]
async fn another_model_under_the_id_is_refused_before_it_is_fetched() {
    let fixture = Fixture::start().await;
    fixture.change(0, tiny::generate(2));
    let mut bytes = 0;
    let tell = |progress| match progress {
        Progress::Bytes { done, .. } => bytes = done,
        other => panic!("{other:?}"),
    };
    let fetched = fixture
        .fetcher
        .fetch(fixture.pool.id, &fixture.file(), tell)
        .await;
    let error = fetched.unwrap_err();
    assert!(matches!(error, FetchError::NotTheModel { .. }), "{error}");
    assert!(bytes < 30_000, "{bytes}");
}

#[tokio::test]
async fn a_file_that_is_longer_than_allowed_or_than_its_head_says_is_refused() {
    let mut fixture = Fixture::start().await;
    let length = fixture.pool.file.len();
    fixture.change(length, b"more".to_vec());
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::NotTheModel { .. }), "{error}");
    fixture.fetcher.model_bytes_max = length as u64 - 1;
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("fetch.model_bytes_max"));
}

#[tokio::test]
async fn a_server_that_sends_a_byte_at_a_time_is_given_up_and_what_it_sent_is_kept() {
    let mut fixture = Fixture::start().await;
    *fixture.pool.manners.trickles.lock().unwrap() = Some(1);
    fixture.fetcher.attempts_max = 2;
    fixture.fetcher.pace = Pace {
        bytes: 64 << 10,
        window: Duration::from_millis(300),
    };
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::TooSlow(_)), "{error}");
    assert!(error.is_passing());
    let offsets = fixture.offsets();
    assert!(offsets.len() == 2 && offsets[1] > 0, "{offsets:?}");
    // An honest server goes on from there.
    *fixture.pool.manners.trickles.lock().unwrap() = None;
    fixture.fetch().await.unwrap();
    assert!(fixture.offsets()[0] > offsets[1]);
}

#[tokio::test]
async fn a_server_that_sends_pieces_with_nothing_in_them_is_refused_at_once() {
    let fixture = Fixture::start().await;
    *fixture.pool.manners.trickles.lock().unwrap() = Some(0);
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::Protocol(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let mut fixture = Fixture::start().await;
    *fixture.pool.manners.hangs.lock().unwrap() = true;
    fixture.fetcher.attempts_max = 1;
    fixture.fetcher.pace.window = Duration::from_millis(100);
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::Silent), "{error}");
}

#[tokio::test]
async fn an_unknown_model_and_an_unreachable_pool_are_clear_errors() {
    let mut fixture = Fixture::start().await;
    let other = ModelId::from_bytes([9; 32]);
    let fetched = fixture.fetcher.fetch(other, &fixture.file(), |_| {}).await;
    let error = fetched.unwrap_err();
    assert!(
        error.to_string().contains(Code::ModelUnknown.as_str()),
        "{error}"
    );
    fixture.fetcher.api = "http://127.0.0.1:1".into();
    fixture.fetcher.attempts_max = 1;
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    fixture.fetcher.api = "ftp://pool".into();
    let error = fixture.failure().await;
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
}
