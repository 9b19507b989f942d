//! What can go wrong between a daemon and its template source, by what the caller can do about it.

use std::fmt::Display;
use std::io;

use bitcoin::Network;

use crate::chain::{BlockRejection, ChainError};

/// Why a template source did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The configuration names a source that cannot be. Nothing was started.
    #[error("the template source is misconfigured: {0}")]
    Config(String),
    /// The embedded chain cannot have these rules. Nothing was started.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The source cannot be reached, and why. It is tried again and again.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The node runs another network than the configuration says.
    #[error("network = \"{configured}\" is configured, but {node}")]
    WrongNetwork {
        /// The configured one.
        configured: Network,
        /// What the node said, or what its template shows.
        node: String,
    },
    /// The source is away; it is being reconnected to. Worth a retry.
    #[error("the template source is away")]
    Unavailable,
    /// The source has been stopped for good.
    #[error("the template source has been stopped")]
    Stopped,
    /// The source did not answer in time. Worth a retry.
    #[error("the template source did not answer in time")]
    TimeOut,
    /// The source does not know the template (any longer).
    #[error("the template source does not know template {0}")]
    UnknownTemplate(u64),
    /// The template is of a tip that has passed.
    #[error("template {0} is of a tip that has passed")]
    StaleTemplate(u64),
    /// The bytes are not a block.
    #[error("the bytes are not a block: {0}")]
    MalformedBlock(String),
    /// The block or solution breaks a rule of the chain.
    #[error("the block was rejected: {0}")]
    Rejected(#[from] BlockRejection),
    /// A node refuses the block.
    #[error("the node refuses the block: {reason}")]
    Refused {
        /// Bitcoin Core's word for the rule, for instance `bad-cb-amount`.
        reason: String,
    },
    /// This kind of source takes solutions of its own templates only, and the block is of none; or
    /// it takes no block back, or cannot be asked whether its chain has one.
    #[error("the template source cannot do this: it judges and takes its own templates only")]
    Unsupported,
    /// The source said something that makes no sense. It is left and connected to anew.
    #[error("the template source broke the protocol: {0}")]
    Protocol(String),
}

/// Why nothing can be said to a source: which of the things that an operator can put right it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nothing is there.
    #[error("there is no {0}: is the node running, and with -ipcbind=unix?")]
    Absent(String),
    /// It is there and not for us.
    #[error("the permission to open {0} is denied: it belongs to the node's user")]
    PermissionDenied(String),
    /// Nobody listens.
    #[error("{0} refuses connections: nothing listens there")]
    Refused(String),
    /// Anything else.
    #[error("{place} cannot be reached: {reason}")]
    Other {
        /// The socket or address.
        place: String,
        /// What the system or the peer said.
        reason: String,
    },
}

impl Unreachable {
    /// What an attempt to connect to `place` came to.
    pub(crate) fn of(place: &str, error: &io::Error) -> Self {
        let place = place.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent(place),
            io::ErrorKind::PermissionDenied => Self::PermissionDenied(place),
            io::ErrorKind::ConnectionRefused => Self::Refused(place),
            _ => Self::Other {
                place,
                reason: error.to_string(),
            },
        }
    }

    /// The place cannot be used for a reason of its own: what answers there cannot be spoken with, or a file cannot be read.
    pub(crate) fn other(place: &str, reason: impl Display) -> Self {
        Self::Other {
            place: place.to_owned(),
            reason: reason.to_string(),
        }
    }
}
