//! Lightning behind one small interface: a wallet is a process of its own, away from the ports
//! that strangers reach, and is spoken to over a Unix socket in lines of JSON.
//!
//! This crate holds the protocol, its client and server, the check of invoices, and a simulated
//! network. It holds no keys of a real node and knows no ledger. `docs/lightning.md` has the rules.

mod client;
mod invoice;
mod operator;
mod protocol;
pub mod server;
pub mod simulator;

pub use client::{Client, ClientError};
pub use invoice::{InvoiceError, ParsedInvoice, parse_invoice};
pub use operator::{Backup, Channel, NodeState};
pub use protocol::{
    ATTEMPT_REUSED, CreatedInvoice, CreatedOffer, FailureClass, HASH_IN_FLIGHT, Hash32, Info,
    InvoicePayment, LINE_BYTES_MAX, OfferPayment, PaymentStatus, Preimage, Refusal, Request,
};
