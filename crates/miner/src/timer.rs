//! A wait that may have no end.

use tokio::time::{Instant, sleep_until};

/// Waits for a time; for ever if there is none. Cancellation-safe.
pub async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
