//! Where a payee is paid, and how that is changed: destinations as text, schedules, and the signed statement by which the
//! owner of an account's name asks for a change. Pure functions: no I/O, no clock.
//!
//! It knows neither the ledger nor how anything is paid. A pool that reads a statement has to hold its time against the
//! clock and against the statements that it took before: see [`Statement`]. `docs/connect.md` is the page for miners.

mod destination;
mod offer;
mod schedule;
mod statement;

pub use destination::{
    ADDRESS_BYTES_MAX, DestinationError, LightningAddress, PayTo, PayToKind, bitcoin_address,
};
pub use offer::{OFFER_BYTES_MAX, OfferError, check_offer};
pub use schedule::{Schedule, ScheduleError};
pub use statement::{
    AGE_S_MAX, CLOCK_S_MAX, Owner, PROOF_BYTES_MAX, ProofError, Statement, THRESHOLD_MSAT_MAX,
};
