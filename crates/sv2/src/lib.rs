//! Stratum V2 connections over Noise, the message types of the stock protocols, and Dovetail's
//! extension `0x4149`.
//!
//! This is the one crate that knows how Sv2 looks on the wire. It knows no policy: which share is
//! good, who is paid and what a model says is decided by the daemons that use it. Rules come from
//! the Stratum V2 specification (sections 3 and 4) and from `docs/extension-0x4149.md`.

pub mod certificate;
pub mod connection;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod identity;
pub mod keys;
pub mod listener;
pub mod messages;
pub mod negotiation;
pub mod outbox;
pub mod places;
pub mod server;
pub mod setup;
mod share_codes;
mod socket;
pub mod tlv;
pub mod vardiff;
mod wire;
pub mod worker_tracking;

/// The longest extranonce that Sv2 knows (5.3.3: `extranonce_size` and the channel's own prefix together).
pub const EXTRANONCE_BYTES_MAX: usize = 32;

pub use certificate::Doubt;
pub use connection::{ConnectionError, FrameReader, FrameWriter};
pub use frame::{DecodeError, Frame, Message};
pub use handshake::{HandshakeHash, accept, connect};
pub use identity::{Identity, IdentityRefusal, IdentityRules, Payee};
pub use keys::{AuthorityKeys, AuthorityPublicKey, AuthoritySecretKey};
pub use listener::Listener;
pub use outbox::{Outbox, OutboxError};
pub use places::{Place, PlaceLimits};
pub use server::{EndReason, MiningClock, Server};
pub use share_codes::share_code;
pub use tlv::{Tlv, TlvError, parse_tlvs};
pub use vardiff::Vardiff;
