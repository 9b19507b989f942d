//! Models that a pool hands out: those that were fetched before are served at once, the others are fetched while the worker
//! does everything else. A pool that hands out nothing, or too slowly, or something else, costs nothing but its model.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dovetail_commitment::ModelId;

use crate::fetch::{FetchError, Fetcher, Pace, PoolAddress, Progress, Wanted, file_name, load};
use crate::models::Models;

/// How often the log tells how far a download is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// After so many attempts in a row that brought nothing, another model has its turn.
const ATTEMPTS_MAX: u32 = 8;
/// The wait before a model has its turn again if the pool was away, or slow.
const PASSING_WAIT: Duration = Duration::from_secs(30);
/// The waits if something has to change at the pool or here: it may be a whole file each time.
const LASTING_WAIT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(600)..=Duration::from_secs(86_400);

/// Where models are fetched from, and which.
#[derive(Debug, Clone)]
pub struct PoolModels {
    /// Where the pool's API is.
    pub api: PoolAddress,
    /// The models to serve.
    pub models: Vec<Wanted>,
    /// Where they are kept, each in a file named by its id.
    pub cache_dir: PathBuf,
    /// The longest file that is fetched.
    pub model_bytes_max: u64,
    /// The slowest server that is put up with.
    pub pace: Pace,
}

/// How a wanted model is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits for its turn, or for the pool.
    Waiting,
    /// So many bytes are there, of so many.
    Fetching {
        /// What is there.
        done: u64,
        /// The whole file.
        of: u64,
    },
    /// The file is whole and is being checked.
    Checking,
    /// It did not work, for this reason; it is tried again later.
    Failed(String),
    /// It is served.
    Served,
}

/// The models that are wanted from a pool. Clones are the same list.
#[derive(Debug, Clone)]
pub struct Downloads {
    pool: PoolModels,
    models: Models,
    states: Arc<Mutex<Vec<State>>>,
}

impl Downloads {
    /// Nothing is fetched yet. What arrives is served in `models`.
    pub fn new(pool: PoolModels, models: Models) -> Self {
        let states = vec![State::Waiting; pool.models.len()];
        Self {
            pool,
            models,
            states: Arc::new(Mutex::new(states)),
        }
    }

    /// Serves what was fetched before, as far as the configuration names it by its id: what a pool means by a name has to be
    /// asked.
    pub async fn serve_cached(&self) {
        for (index, wanted) in self.pool.models.iter().enumerate() {
            let Wanted::Id(id) = wanted else { continue };
            if self.models.contains(id) {
                self.set(index, State::Served);
                continue;
            }
            // What is not there, or is damaged, is fetched later.
            if let Ok(model) = load(self.file(id), *id).await {
                tracing::info!(model = %id, name = model.name(), "loaded a model");
                self.models.insert(model);
                self.set(index, State::Served);
            }
        }
    }

    /// Every wanted model, and how it is doing.
    pub fn states(&self) -> Vec<(Wanted, State)> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.pool.models.iter().cloned();
        wanted.zip(states.iter().cloned()).collect()
    }

    /// Fetches one model after the other until all are served.
    pub async fn run(&self) {
        let mut turns: Vec<Turn> = self
            .states()
            .into_iter()
            .enumerate()
            .filter(|(_, (_, state))| *state != State::Served)
            .map(|(index, _)| Turn::new(index))
            .collect();
        // The one that has waited longest; of equals, the first in the list.
        while let Some(next) = (0..turns.len()).min_by_key(|at| turns[*at].not_before) {
            tokio::time::sleep_until(turns[next].not_before.into()).await;
            let index = turns[next].index;
            match self.obtain(index).await {
                Ok(()) => {
                    self.set(index, State::Served);
                    turns.remove(next);
                }
                Err(error) => {
                    let wait = turns[next].put_off(&error);
                    let wanted = &self.pool.models[index];
                    tracing::warn!(%wanted, %error, wait_s = wait.as_secs(), "a model could not be fetched; trying again later");
                    self.set(index, State::Failed(error.to_string()));
                }
            }
        }
    }

    /// Serves the wanted model, fetching it if it is not here.
    async fn obtain(&self, index: usize) -> Result<(), FetchError> {
        let fetcher = Fetcher {
            api: self.pool.api.clone(),
            model_bytes_max: self.pool.model_bytes_max,
            attempts_max: ATTEMPTS_MAX,
            pace: self.pool.pace,
        };
        let id = fetcher.resolve(&self.pool.models[index], |_| {}).await?;
        if self.models.contains(&id) {
            return Ok(());
        }
        let mut told_at: Option<Instant> = None;
        let file = self.file(&id);
        let tell = |progress| match progress {
            Progress::Bytes { done, of } => {
                self.set(index, State::Fetching { done, of });
                if told_at.is_none_or(|told| told.elapsed() >= PROGRESS_INTERVAL) || done == of {
                    told_at = Some(Instant::now());
                    tracing::info!(model = %id, bytes = done, of_bytes = of, "fetching a model");
                }
            }
            Progress::Checking => {
                self.set(index, State::Checking);
                tracing::info!(model = %id, "checking a fetched model");
            }
            Progress::Cached | Progress::Waiting => {}
        };
        let model = fetcher.fetch(id, &file, tell).await?;
        tracing::info!(model = %id, name = model.name(), file = %file.display(), "loaded a model");
        self.models.insert(model);
        Ok(())
    }

    fn file(&self, id: &ModelId) -> PathBuf {
        self.pool.cache_dir.join(file_name(id))
    }

    fn set(&self, index: usize, state: State) {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states[index] = state;
    }
}

/// When a model has its turn.
struct Turn {
    index: usize,
    not_before: Instant,
    lasting_wait: Duration,
}

impl Turn {
    fn new(index: usize) -> Self {
        Self {
            index,
            not_before: Instant::now(),
            lasting_wait: *LASTING_WAIT.start(),
        }
    }

    /// It failed: its next turn is after this time.
    fn put_off(&mut self, error: &FetchError) -> Duration {
        let wait = if error.is_passing() {
            PASSING_WAIT
        } else {
            let wait = self.lasting_wait;
            self.lasting_wait = (wait * 2).min(*LASTING_WAIT.end());
            wait
        };
        self.not_before = Instant::now() + wait;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_not_pass_soon_is_tried_ever_more_seldom() {
        let mut turn = Turn::new(0);
        assert_eq!(turn.put_off(&FetchError::Silent), PASSING_WAIT);
        let refused = FetchError::Protocol("no");
        let waits: Vec<Duration> = (0..10).map(|_| turn.put_off(&refused)).collect();
        assert_eq!(waits[0], *LASTING_WAIT.start());
        assert!(waits.is_sorted());
        assert_eq!(waits[9], *LASTING_WAIT.end());
        assert_eq!(turn.put_off(&FetchError::Silent), PASSING_WAIT);
    }
}
