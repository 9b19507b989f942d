//! Stratum V2 connections over Noise, the message types of the stock protocols, and Dovetail's
//! extension `0x4149`.
//!
//! This is the one crate that knows how Sv2 looks on the wire. It knows no policy: which share is
//! good, who is paid and what a model says is decided by the daemons that use it. Rules come from
//! the Stratum V2 specification (sections 3 and 4) and from `docs/extension-0x4149.md`.

pub mod connection;
pub mod extension;
pub mod frame;
pub mod keys;
pub mod listener;
pub mod messages;
pub mod negotiate;
pub mod outbox;
pub mod setup;
pub mod tlv;
mod wire;

pub use connection::{ConnectionError, FrameReader, FrameWriter, accept, connect};
pub use frame::{DecodeError, Frame, Message};
pub use keys::{AuthorityKeys, AuthorityPublicKey, AuthoritySecretKey};
pub use listener::Listener;
pub use outbox::{Outbox, OutboxError};
pub use tlv::{Tlv, TlvError, parse_tlvs};
