//! What every crate counts in: money ([`Msat`], [`ShareCredit`], [`TokenPrices`], [`KeptCredit`]), work ([`Work`]), the time of day, seeded choices
//! ([`SplitMix64`]), the bounds of Bitcoin's consensus, what a share's header may hold ([`header`]), error
//! codes as enums ([`codes!`]), and how words of strangers are shown ([`harmless()`]).
//!
//! Numbers and words only: it does no I/O but reading the clock, knows no protocol, and depends on
//! no other crate of ours.

mod codes;
pub mod consensus;
mod harmless;
pub mod header;
mod kept_credit;
mod msat;
mod price;
mod share_credit;
mod split_mix;
pub mod time;
mod work;

pub use harmless::{Harmless, harmless, harmless_lines, harmless_within, is_harmful};
pub use kept_credit::{KeptCredit, KeptTooMuch};
pub use msat::Msat;
pub use price::{PriceTooHigh, TokenPrices};
pub use share_credit::ShareCredit;
pub use split_mix::SplitMix64;
pub use work::Work;
