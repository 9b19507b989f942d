//! What every crate counts in: money ([`Msat`]), work ([`Work`]), the time of day, seeded choices
//! ([`SplitMix64`]), the bounds of Bitcoin's consensus, what a share's header may hold ([`header`]), and error
//! codes as enums ([`codes!`]).
//!
//! Numbers and words only: it does no I/O but reading the clock, knows no protocol, and depends on
//! no other crate of ours.

mod codes;
pub mod consensus;
pub mod header;
mod msat;
mod split_mix;
pub mod time;
mod work;

pub use msat::Msat;
pub use split_mix::SplitMix64;
pub use work::Work;
