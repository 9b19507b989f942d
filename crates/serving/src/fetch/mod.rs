//! Models from the pool: fetched into a folder where each file is named by its model's id, taken up again
//! after a break, and checked before they run.
//!
//! The pool is not trusted. A file's head must carry the id that was asked for before the rest is taken, no
//! more is taken than the head says and the configuration allows, it has to come at a least rate, and the file gets its
//! name only once every tensor has the digest that the id stands for.

mod client;
mod error;
mod pace;
mod partial_file;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use dovetail_commitment::ModelId;
use dovetail_engine::{EngineError, Model};
use tokio::time::timeout_at;

pub use dovetail_api::connection::{AuthorityError, PoolAddress};
pub use error::FetchError;
pub use pace::Pace;

use client::{ModelPool, Piece};
use pace::Meter;
use partial_file::PartialFile;

/// The waits between attempts that brought nothing.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(500)..=Duration::from_secs(30);

/// Which model is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The model with this id, whatever the pool calls it.
    Id(ModelId),
    /// What the pool calls by this name: its choice.
    Name(String),
}

impl FromStr for Wanted {
    type Err = std::convert::Infallible;

    /// 64 hexadecimal digits are an id, anything else is a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.parse().map(Self::Id);
        Ok(id.unwrap_or_else(|_| Self::Name(text.to_owned())))
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The file is there from before.
    Cached,
    /// So many bytes are there, of so many.
    Bytes {
        /// What is there.
        done: u64,
        /// The whole file.
        of: u64,
    },
    /// Nothing came this time; the next attempt follows.
    Waiting,
    /// The file is whole and is being checked.
    Checking,
}

/// How to fetch.
#[derive(Debug, Clone)]
pub struct Fetcher {
    /// Where the pool's API is.
    pub api: PoolAddress,
    /// The longest file that is taken.
    pub model_bytes_max: u64,
    /// After so many attempts in a row that brought nothing, or too little, it is given up.
    pub attempts_max: u32,
    /// The slowest server that is put up with.
    pub pace: Pace,
}

impl Fetcher {
    /// The id of the wanted model; the pool is asked for those it names.
    ///
    /// # Errors
    /// [`FetchError`]: no answer, or no model or several of this name.
    pub async fn resolve(
        &self,
        wanted: &Wanted,
        mut tell: impl FnMut(Progress),
    ) -> Result<ModelId, FetchError> {
        let name = match wanted {
            Wanted::Id(id) => return Ok(*id),
            Wanted::Name(name) => name,
        };
        let mut attempts = Attempts::new(self.attempts_max);
        loop {
            match ModelPool::connect(&self.api).await {
                Ok(mut pool) => match pool.named(name).await {
                    Err(error) if error.is_passing() => attempts.wait(error, &mut tell).await?,
                    answer => return answer,
                },
                Err(error) => attempts.wait(error, &mut tell).await?,
            }
        }
    }

    /// The model, from `file` where it lies there already. Otherwise it is fetched beside it, checked, and put
    /// there. Takes the memory of the model.
    ///
    /// # Errors
    /// [`FetchError`]. What was fetched until then stays and is gone on with, but for what does not check.
    pub async fn fetch(
        &self,
        id: ModelId,
        file: &Path,
        mut tell: impl FnMut(Progress),
    ) -> Result<Model, FetchError> {
        match load(file.to_owned(), id).await {
            Ok(model) => {
                tell(Progress::Cached);
                return Ok(model);
            }
            Err(EngineError::Read(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "fetching a model file again: it is not the model");
            }
        }
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|source| FetchError::file(folder, source))?;
        }
        let mut partial = PartialFile::open(&beside(file), id)?;
        let mut may_restart = true;
        loop {
            let was_resumed = self.complete(&mut partial, &mut tell).await?;
            tell(Progress::Checking);
            match load(partial.path().to_owned(), id).await {
                Ok(model) => {
                    partial.publish(file)?;
                    return Ok(model);
                }
                // The parts may be of two files that hold the same model in different ways, or an old one
                // may be damaged.
                Err(error) if was_resumed && may_restart => {
                    tracing::warn!(model = %id, %error, "fetching a model from its beginning: what was fetched in parts does not fit together");
                    partial.restart()?;
                    may_restart = false;
                }
                Err(source) => {
                    partial.discard();
                    return Err(FetchError::NotTheModel { id, source });
                }
            }
        }
    }

    /// Fetches until the file is as long as its head says. Whether it came in several parts.
    async fn complete(
        &self,
        partial: &mut PartialFile,
        tell: &mut impl FnMut(Progress),
    ) -> Result<bool, FetchError> {
        let mut attempts = Attempts::new(self.attempts_max);
        let mut was_resumed = partial.bytes() > 0;
        while !partial.is_whole() {
            was_resumed |= partial.bytes() > 0;
            let (before, begun) = (partial.bytes(), Instant::now());
            let ended = self.stream(partial, tell).await;
            let brought = partial.bytes().saturating_sub(before);
            let went_on = self.pace.is_kept(brought, begun.elapsed());
            if went_on {
                attempts = Attempts::new(self.attempts_max);
            }
            match ended {
                Ok(()) if went_on || partial.is_whole() => {}
                Ok(()) => attempts.wait(FetchError::Silent, tell).await?,
                Err(error) if error.is_passing() => attempts.wait(error, tell).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(was_resumed)
    }

    /// Takes one stream to its end.
    async fn stream(
        &self,
        partial: &mut PartialFile,
        tell: &mut impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        let mut pool = ModelPool::connect(&self.api).await?;
        let mut pieces = pool.pieces(partial.id(), partial.bytes()).await?;
        let mut meter = Meter::new(self.pace);
        loop {
            let Ok(piece) = timeout_at(meter.due(), pieces.next()).await else {
                meter.turn()?;
                continue;
            };
            let Some(Piece { file_bytes, data }) = piece? else {
                break;
            };
            if data.is_empty() {
                return Err(FetchError::Protocol("it sent a piece with nothing in it"));
            }
            meter.count(data.len());
            if file_bytes > self.model_bytes_max {
                return Err(FetchError::TooLarge {
                    bytes: file_bytes,
                    bytes_max: self.model_bytes_max,
                });
            }
            partial.append(&data, file_bytes)?;
            let done = partial.bytes();
            tell(Progress::Bytes {
                done,
                of: file_bytes,
            });
            if partial.is_whole() {
                break;
            }
        }
        Ok(())
    }
}

/// The name of a model's file in a folder of fetched models.
pub fn file_name(id: &ModelId) -> String {
    format!("{id}.safetensors")
}

/// Where a file is gathered before it gets its name.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    file.with_file_name(name)
}

/// Loads a file that must be this model.
pub(crate) async fn load(file: PathBuf, id: ModelId) -> Result<Model, EngineError> {
    let loading = tokio::task::spawn_blocking(move || {
        let model = Model::load(&file)?;
        if model.id() == id {
            Ok(model)
        } else {
            Err(EngineError::Format("it is another model"))
        }
    });
    let joined = loading.await;
    joined.unwrap_or_else(|_| Err(EngineError::Format("loading it failed")))
}

/// Counts attempts that brought nothing.
struct Attempts {
    left: u32,
    wait: Duration,
}

impl Attempts {
    fn new(max: u32) -> Self {
        Self {
            left: max,
            wait: *BACKOFF.start(),
        }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The last attempt's, once there were enough.
    async fn wait(
        &mut self,
        error: FetchError,
        tell: &mut impl FnMut(Progress),
    ) -> Result<(), FetchError> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            return Err(error);
        }
        tracing::warn!(%error, wait_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX), "fetching goes on after a wait");
        tell(Progress::Waiting);
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(*BACKOFF.end());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_a_name() {
        let id = ModelId::from_bytes([0xab; 32]);
        assert_eq!(id.to_string().parse(), Ok(Wanted::Id(id)));
        assert_eq!("clerk".parse(), Ok(Wanted::Name("clerk".to_owned())));
        let short = "ab".repeat(31);
        assert_eq!(short.parse(), Ok(Wanted::Name(short)));
    }

    #[test]
    fn a_file_is_gathered_beside_its_place() {
        let beside = beside(Path::new("models/clerk.safetensors"));
        assert_eq!(beside, Path::new("models/clerk.safetensors.partial"));
    }
}
