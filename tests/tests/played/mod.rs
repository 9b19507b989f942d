//! Both ends of a pool, played by the tests: a template provider that says what it is told to, and a miner on one
//! extended channel that hashes when it is told to.

#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod miner;
pub(crate) mod provider;

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) const TIME_MAX: Duration = Duration::from_secs(30);
pub(crate) const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

pub(crate) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u32::try_from(since.as_secs()).unwrap()
}
