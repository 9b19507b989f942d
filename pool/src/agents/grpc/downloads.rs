//! Model files for workers: `dovetail.models.v1`, from the files that the pool itself runs.
//!
//! Nothing is loaded: a download reads a piece at a time from a file that stays open, so that a file replaced
//! while the pool runs does not change what is handed out. Downloads are few and each ends after a while, so
//! that a slow worker keeps no other waiting for long; a worker asks again for the rest.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use dovetail_api::codes::Code;
use dovetail_api::models_v1::{
    FetchModelRequest, FetchModelResponse,
    models_server::{Models, ModelsServer},
};
use dovetail_api::{ID_BYTES, MODEL_CHUNK_BYTES_MAX};
use dovetail_commitment::ModelId;
use dovetail_engine::Head;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

/// Pieces that may wait for a slow peer: with the one being read, a download takes about a megabyte.
const PIECES_MAX: usize = 2;
/// A peer that takes no piece for this long is gone.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long one stream lasts at most; then the next one in line has its turn.
const STREAM_TIME_MAX: Duration = Duration::from_secs(600);

/// An open model file.
struct ModelFile {
    file: File,
    bytes: u64,
}

impl ModelFile {
    fn open(path: &Path) -> anyhow::Result<(ModelId, Self)> {
        let mut file = File::open(path)?;
        let head = Head::read(&mut file)?;
        let bytes = head.file_bytes();
        Ok((head.id(), Self { file, bytes }))
    }

    /// The piece that begins at `offset`; at most [`MODEL_CHUNK_BYTES_MAX`], empty at the end.
    fn piece(&self, offset: u64) -> io::Result<Vec<u8>> {
        let left = self.bytes.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX);
        let mut piece = vec![0; length.min(MODEL_CHUNK_BYTES_MAX)];
        self.file.read_exact_at(&mut piece, offset)?;
        Ok(piece)
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct Downloads {
    files: Arc<HashMap<ModelId, Arc<ModelFile>>>,
    free: Arc<Semaphore>,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Downloads {
    /// Opens the model files; at most `downloads_max` streams run at once, as tasks of `tracker` that end at
    /// `shutdown`.
    ///
    /// # Errors
    /// A file that cannot be read or is no model.
    pub(crate) fn open(
        paths: &[impl AsRef<Path>],
        downloads_max: usize,
        tracker: TaskTracker,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        let mut files = HashMap::new();
        for path in paths {
            let path = path.as_ref();
            let (id, file) = ModelFile::open(path)
                .with_context(|| format!("cannot open the model {}", path.display()))?;
            files.insert(id, Arc::new(file));
        }
        Ok(Self {
            files: Arc::new(files),
            free: Arc::new(Semaphore::new(downloads_max)),
            tracker,
            shutdown,
        })
    }

    /// The gRPC service.
    pub(crate) fn into_service(self) -> ModelsServer<Self> {
        ModelsServer::new(self)
    }

    fn find(&self, request: &FetchModelRequest) -> Result<Arc<ModelFile>, Status> {
        let id: [u8; ID_BYTES] = request
            .model_id
            .as_slice()
            .try_into()
            .map_err(|_| Code::ArgumentInvalid.status("model_id must have 32 bytes"))?;
        let file = self
            .files
            .get(&ModelId::from_bytes(id))
            .ok_or_else(|| Code::ModelUnknown.status("this pool does not know the model"))?;
        if request.offset > file.bytes {
            let message = "the offset lies past the end of the file";
            return Err(Code::ArgumentInvalid.status(message));
        }
        Ok(Arc::clone(file))
    }
}

#[tonic::async_trait]
impl Models for Downloads {
    type FetchModelStream = ReceiverStream<Result<FetchModelResponse, Status>>;

    async fn fetch_model(
        &self,
        request: Request<FetchModelRequest>,
    ) -> Result<Response<Self::FetchModelStream>, Status> {
        let request = request.into_inner();
        let file = self.find(&request)?;
        let turn = Arc::clone(&self.free)
            .try_acquire_owned()
            .map_err(|_| Code::DownloadsFull.status("too many models are being fetched"))?;
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let download = Download {
            file,
            offset: request.offset,
            sender,
            _turn: turn,
        };
        let shutdown = self.shutdown.clone();
        self.tracker.spawn(download.run(shutdown));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One stream.
struct Download {
    file: Arc<ModelFile>,
    offset: u64,
    sender: mpsc::Sender<Result<FetchModelResponse, Status>>,
    _turn: OwnedSemaphorePermit,
}

impl Download {
    async fn run(mut self, shutdown: CancellationToken) {
        let end = Instant::now() + STREAM_TIME_MAX;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    let stopping = Code::Unavailable.status("the pool is stopping");
                    // A peer that takes nothing does not hear of it.
                    let _ = self.sender.try_send(Err(stopping));
                    return;
                }
                went_on = self.send_piece() => if !went_on {
                    return;
                }
            }
            if self.offset >= self.file.bytes || Instant::now() >= end {
                return;
            }
        }
    }

    /// Sends the next piece. Whether the peer took it.
    async fn send_piece(&mut self) -> bool {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        let read = tokio::task::spawn_blocking(move || file.piece(offset)).await;
        let message = match read {
            Ok(Ok(data)) => {
                self.offset += data.len() as u64;
                Ok(FetchModelResponse {
                    file_bytes: self.file.bytes,
                    data,
                })
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot read a model file that workers fetch");
                Err(Code::Internal.status("cannot read the model file"))
            }
            Err(_) => Err(Code::Internal.status("reading did not finish")),
        };
        let failed = message.is_err();
        let sent = timeout(PIECE_TIME_MAX, self.sender.send(message)).await;
        matches!(sent, Ok(Ok(()))) && !failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::{Model, tiny};
    use tokio_stream::StreamExt;

    struct Fixture {
        _folder: tempfile::TempDir,
        file: Vec<u8>,
        id: ModelId,
        downloads: Downloads,
    }

    /// A model of two pieces and some.
    fn several_pieces() -> Vec<u8> {
        let tiny = Model::from_bytes(&tiny::generate(1)).unwrap();
        let mut architecture = tiny.manifest().architecture;
        architecture.layers *= 4;
        let parts = tiny::parts(architecture, "deeper", 1).unwrap();
        let file = parts.to_bytes().unwrap();
        assert!(file.len() > 2 * MODEL_CHUNK_BYTES_MAX);
        file
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let file = several_pieces();
        std::fs::write(&path, &file).unwrap();
        let (tracker, shutdown) = (TaskTracker::new(), CancellationToken::new());
        Fixture {
            downloads: Downloads::open(&[path], 1, tracker, shutdown).unwrap(),
            id: Model::from_bytes(&file).unwrap().id(),
            file,
            _folder: folder,
        }
    }

    impl Fixture {
        async fn fetch(
            &self,
            model_id: &[u8],
            offset: usize,
        ) -> Result<ReceiverStream<Result<FetchModelResponse, Status>>, Status> {
            let request = FetchModelRequest {
                model_id: model_id.to_vec(),
                offset: offset as u64,
            };
            let response = self.downloads.fetch_model(Request::new(request)).await?;
            Ok(response.into_inner())
        }

        async fn refusal(&self, model_id: &[u8], offset: usize) -> String {
            let status = self.fetch(model_id, offset).await.err().unwrap();
            dovetail_api::codes::code_of(&status).unwrap().to_owned()
        }
    }

    #[tokio::test]
    async fn a_file_comes_whole_in_small_pieces_from_any_offset() {
        let fixture = fixture();
        let length = fixture.file.len();
        for offset in [0, 1, MODEL_CHUNK_BYTES_MAX, length - 1, length] {
            let mut stream = fixture.fetch(fixture.id.as_bytes(), offset).await.unwrap();
            let mut data = Vec::new();
            while let Some(piece) = stream.next().await {
                let piece = piece.unwrap();
                assert_eq!(piece.file_bytes, fixture.file.len() as u64);
                assert!(piece.data.len() <= MODEL_CHUNK_BYTES_MAX);
                data.extend(piece.data);
            }
            assert_eq!(data, fixture.file[offset..]);
            fixture.downloads.free.acquire().await.unwrap().forget();
            fixture.downloads.free.add_permits(1);
        }
    }

    #[tokio::test]
    async fn what_is_asked_for_wrongly_is_refused_with_its_word() {
        let fixture = fixture();
        let length = fixture.file.len();
        assert_eq!(fixture.refusal(&[9; 32], 0).await, Code::ModelUnknown);
        assert_eq!(fixture.refusal(&[9; 31], 0).await, Code::ArgumentInvalid);
        let past = fixture.refusal(fixture.id.as_bytes(), length + 1).await;
        assert_eq!(past, Code::ArgumentInvalid);
    }

    #[tokio::test]
    async fn there_are_no_more_downloads_than_allowed_and_a_peer_that_leaves_makes_room() {
        let fixture = fixture();
        let first = fixture.fetch(fixture.id.as_bytes(), 0).await.unwrap();
        let refusal = fixture.refusal(fixture.id.as_bytes(), 0).await;
        assert_eq!(refusal, Code::DownloadsFull);
        drop(first);
        let _room = fixture.downloads.free.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_that_stops_ends_its_downloads() {
        let fixture = fixture();
        fixture.downloads.shutdown.cancel();
        let mut stream = fixture.fetch(fixture.id.as_bytes(), 0).await.unwrap();
        while stream.next().await.is_some() {}
        fixture.downloads.tracker.close();
        fixture.downloads.tracker.wait().await;
    }
}
