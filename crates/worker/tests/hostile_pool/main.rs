//! A worker at pools that lie, keep silent where they owe a word, or talk without end. Each is played message by
//! message; what the worker believes is read from its page.
#![allow(clippy::unwrap_used, missing_docs)]

mod outcomes;
mod payouts;
mod shares;
#[path = "../support/mod.rs"]
mod support;
mod talk;
mod tasks;

use std::time::Duration;

use dovetail_worker::claim::ClaimTimes;
use serde_json::Value;
use support::fixture::{BLOCKS_NEVER, TIME_MAX};
use support::{Fixture, Setup};
use tokio::time::timeout;

/// A worker that waits for an outcome as long as a test can, and not as long as a pool may.
fn impatient() -> Setup {
    Setup {
        claim_times: ClaimTimes {
            outcome: Duration::from_millis(300),
            ..ClaimTimes::default()
        },
        ..Setup::alone(BLOCKS_NEVER)
    }
}

/// What the page says, once it says what `wanted` looks for.
async fn status(fixture: &Fixture, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let looked = async {
        loop {
            last = fixture.status().await;
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(TIME_MAX, looked).await;
    assert!(found.is_ok(), "{last:#}");
    last
}

/// Memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}
