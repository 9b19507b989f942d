//! The models on the page: those that are served, and how those are doing that are still to come.

use dovetail_serving::downloads::{Downloads, State};
use dovetail_serving::models::Models;
use serde::Serialize;

/// A model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// What it calls itself; of one that is not there yet, as the configuration names it.
    pub name: String,
    /// Its id, once it is there.
    pub id: Option<String>,
    /// How it is doing.
    #[serde(flatten)]
    pub state: ModelState,
}

/// How a model is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ModelState {
    /// Tasks run on it.
    Served,
    /// It waits for its turn, or for the pool.
    Waiting,
    /// It is being fetched.
    Fetching {
        /// What is there.
        done_bytes: u64,
        /// The whole file.
        of_bytes: u64,
    },
    /// Its file is whole and is being checked.
    Checking,
    /// It could not be fetched; it is tried again later.
    Failed {
        /// Why.
        why: String,
    },
}

impl Model {
    /// Those that are served, and then those that are not there.
    pub(super) fn all(models: &Models, downloads: Option<&Downloads>) -> Vec<Self> {
        let mut all: Vec<Self> = models
            .all()
            .iter()
            .map(|model| Self {
                name: model.name().to_owned(),
                id: Some(model.id().to_string()),
                state: ModelState::Served,
            })
            .collect();
        let wanted = downloads.map(Downloads::states).unwrap_or_default();
        all.extend(wanted.into_iter().filter_map(|(wanted, state)| {
            let state = match state {
                State::Served => return None,
                State::Waiting => ModelState::Waiting,
                State::Fetching { done, of } => ModelState::Fetching {
                    done_bytes: done,
                    of_bytes: of,
                },
                State::Checking => ModelState::Checking,
                State::Failed(why) => ModelState::Failed { why },
            };
            Some(Self {
                name: wanted.to_string(),
                id: None,
                state,
            })
        }));
        all
    }
}

impl std::fmt::Display for ModelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::Waiting => f.write_str("waiting for the pool"),
            Self::Fetching {
                done_bytes,
                of_bytes,
            } => {
                let percent = u128::from(*done_bytes) * 100 / u128::from(*of_bytes).max(1);
                write!(f, "fetching, {percent} %")
            }
            Self::Checking => f.write_str("checking"),
            Self::Failed { why } => write!(f, "not there: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_model_is_doing_is_said_in_words() {
        let fetching = ModelState::Fetching {
            done_bytes: 1,
            of_bytes: 3,
        };
        assert_eq!(fetching.to_string(), "fetching, 33 %");
        let nothing = ModelState::Fetching {
            done_bytes: 0,
            of_bytes: 0,
        };
        assert_eq!(nothing.to_string(), "fetching, 0 %");
        let json = serde_json::to_value(Model {
            name: "clerk".to_owned(),
            id: None,
            state: fetching,
        });
        let json = json.unwrap();
        assert_eq!(json["state"], "fetching");
        assert_eq!(json["done_bytes"], 1);
    }
}
