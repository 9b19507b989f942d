//! Why a model was not fetched. What an error repeats of a pool's words is short and harmless ([`dovetail_api::words`]).

use std::path::{Path, PathBuf};

use dovetail_api::codes::{self, Code};
use dovetail_api::connection::TlsFault;
use dovetail_api::words;
use dovetail_commitment::ModelId;
use dovetail_engine::EngineError;

use super::Pace;

/// Why a model was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What was given is no address.
    #[error(
        "'{api}' is no address of a pool's API: {reason}; one looks like http://127.0.0.1:50051"
    )]
    Address {
        /// As it was given.
        api: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers there.
    #[error("cannot reach the pool's API at {api}: {reason}")]
    Unreachable {
        /// The address.
        api: String,
        /// The system's words.
        reason: String,
    },
    /// Somebody answers there, but not as the address says, or nobody vouches for who it is.
    #[error("no safe connection to the pool's API at {api}: {fault}")]
    Tls {
        /// The address.
        api: String,
        /// What is wrong.
        fault: TlsFault,
    },
    /// The pool refuses, with its word.
    #[error("the pool refuses: {message} ({code})")]
    Refused {
        /// One of [`codes`].
        code: String,
        /// The pool's words.
        message: String,
    },
    /// A pool that does not have the interface, or does not offer it.
    #[error("this pool hands out no models: copy the file here and name it in worker.models")]
    NotOffered,
    /// The stream ended in the middle.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing came for a while.
    #[error("the pool sent nothing")]
    Silent,
    /// Something came, but too little.
    #[error("the pool sends less than {} bytes in {} s", .0.bytes, .0.window.as_secs_f32())]
    TooSlow(Pace),
    /// No model of the pool has this name.
    #[error("the pool has no model named {name}; it has: {known}")]
    NoSuchName {
        /// The name.
        name: String,
        /// Those it has.
        known: String,
    },
    /// A name that says nothing.
    #[error("the pool has several models named {0}; name one by its id")]
    Ambiguous(String),
    /// The pool breaks the interface.
    #[error("the pool's answer makes no sense: {0}")]
    Protocol(&'static str),
    /// Longer than is wanted here.
    #[error(
        "the model's file has {bytes} bytes, of which {bytes_max} are allowed (fetch.model_bytes_max)"
    )]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The most that is taken.
        bytes_max: u64,
    },
    /// What the pool sent for this id is something else.
    #[error("what the pool sent is not the model {id}: {source}")]
    NotTheModel {
        /// What was asked for.
        id: ModelId,
        /// What the engine says of it.
        source: EngineError,
    },
    /// The file here.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// Somebody else gathers the same file.
    #[error("{0} is being fetched by another process")]
    Busy(PathBuf),
}

impl FetchError {
    pub(super) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn from_status(api: &str, status: &tonic::Status) -> Self {
        let code = codes::code_of(status);
        if code.is_none()
            && let Some(fault) = TlsFault::of_status(status)
        {
            return Self::Tls {
                api: api.to_owned(),
                fault,
            };
        }
        match (code, status.code()) {
            (Some(code), _) => Self::Refused {
                code: words::word(code),
                message: words::message_of(status),
            },
            (None, tonic::Code::Unimplemented) => Self::NotOffered,
            (None, tonic::Code::Unavailable) => Self::Unreachable {
                api: api.to_owned(),
                reason: words::message_of(status),
            },
            (None, _) => Self::Broken(words::message_of(status)),
        }
    }

    /// Whether the same may work a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Silent | Self::TooSlow(_) => true,
            Self::Refused { code, .. } => matches!(
                Code::parse(code),
                Some(Code::DownloadsFull | Code::Unavailable)
            ),
            _ => false,
        }
    }
}
