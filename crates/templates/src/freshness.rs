//! Whether the work of a source may still be worked on. A source that is away keeps its last work for a while; after
//! that nobody knows whether a block on it could be one, and whoever works on it has to hear of that.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How often the operator is told again that the source is away.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

/// The switch between a source, which says when it gives work, and those who work on it.
#[derive(Debug)]
pub(crate) struct Freshness {
    giving: watch::Sender<bool>,
    stale: watch::Sender<bool>,
}

impl Freshness {
    /// Of a source that has given nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            giving: watch::channel(false).0,
            stale: watch::channel(false).0,
        }
    }

    /// The source gives work (again), or cannot.
    pub(crate) fn set_giving(&self, giving: bool) {
        self.giving
            .send_if_modified(|was| std::mem::replace(was, giving) != giving);
    }

    /// Whether the work is stale, and every change of it.
    pub(crate) fn staleness(&self) -> watch::Receiver<bool> {
        self.stale.subscribe()
    }

    /// Calls the work stale once the source has given none for longer than `stale_after`, with an alarm that is
    /// repeated until it gives work again. Returns never.
    pub(crate) async fn watch(&self, source: &str, stale_after: Duration) {
        let mut giving = self.giving.subscribe();
        loop {
            // The sender is ours: it cannot be gone.
            drop(giving.wait_for(|giving| !giving).await);
            let back = giving.wait_for(|giving| *giving);
            if timeout(stale_after, back).await.is_ok() {
                continue;
            }
            self.stale.send_replace(true);
            loop {
                tracing::error!(
                    source,
                    ?stale_after,
                    "ALARM: the template source gives no work: its last work is stale and is not worked on"
                );
                let back = giving.wait_for(|giving| *giving);
                if timeout(ALARM_INTERVAL, back).await.is_ok() {
                    break;
                }
            }
            self.stale.send_replace(false);
            tracing::info!(source, "the template source gives work again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_millis(200);

    async fn becomes(stale: &mut watch::Receiver<bool>, wanted: bool) {
        let becoming = stale.wait_for(|stale| *stale == wanted);
        timeout(AFTER * 100, becoming).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn work_is_stale_once_its_source_is_away_for_too_long_and_no_longer_once_it_is_back() {
        let freshness = Freshness::new();
        let mut stale = freshness.staleness();
        freshness.set_giving(true);
        let watched = async {
            // Away for less than that: nobody is told.
            freshness.set_giving(false);
            tokio::time::sleep(AFTER / 4).await;
            freshness.set_giving(true);
            tokio::time::sleep(AFTER * 2).await;
            assert!(!stale.has_changed().unwrap());
            freshness.set_giving(false);
            becomes(&mut stale, true).await;
            freshness.set_giving(true);
            becomes(&mut stale, false).await;
        };
        tokio::select! {
            () = watched => {}
            () = freshness.watch("a test", AFTER) => unreachable!(),
        }
    }

    #[tokio::test]
    async fn a_source_that_has_never_given_work_is_called_stale_too() {
        let freshness = Freshness::new();
        let mut stale = freshness.staleness();
        tokio::select! {
            () = becomes(&mut stale, true) => {}
            () = freshness.watch("a test", Duration::ZERO) => unreachable!(),
        }
    }
}
