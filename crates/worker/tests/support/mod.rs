//! A running worker, and the pool, the job declarator and the device that tests play for it.
#![allow(dead_code, unused_imports, clippy::unwrap_used, missing_docs)]

pub(crate) mod claim;
pub(crate) mod fixture;
#[path = "../../../miner/tests/support/mod.rs"]
mod played;
pub(crate) mod pool;

pub(crate) use fixture::{Fixture, Setup};
pub(crate) use played::{Played, coinbase, declarator, easy_target, listen};
