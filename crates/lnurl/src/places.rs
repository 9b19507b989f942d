//! Places for requests: some in all, and fewer for one host, so that a host that answers slowly keeps nobody waiting but
//! its own addresses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many hosts are remembered before those that nobody asks are forgotten.
const HOSTS_MAX: usize = 1_024;

pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_host_max: usize,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A place; free again when this is dropped.
pub(crate) struct Place {
    _host: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(max: usize, per_host_max: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(max)),
            per_host_max,
            hosts: Mutex::default(),
        }
    }

    fn of_host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS_MAX {
            hosts.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = || Arc::new(Semaphore::new(self.per_host_max));
        Arc::clone(hosts.entry(host.to_owned()).or_insert_with(places))
    }

    /// Waits for a place. The host's comes first: whoever waits for a busy host holds no place that others could have.
    pub(crate) async fn take(&self, host: &str) -> Option<Place> {
        let host = self.of_host(host).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place {
            _host: host,
            _all: all,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn one_host_does_not_hold_all_places_and_places_come_back() {
        let places = Places::new(3, 2);
        let held = [places.take("slow").await, places.take("slow").await];
        assert!(timeout(SHORT, places.take("slow")).await.is_err());
        let other = timeout(SHORT, places.take("other")).await.unwrap();
        assert!(timeout(SHORT, places.take("third")).await.is_err());
        drop((held, other));
        assert!(timeout(SHORT, places.take("slow")).await.is_ok());
    }

    #[tokio::test]
    async fn hosts_that_nobody_asks_are_forgotten() {
        let places = Places::new(3, 2);
        let _held = places.take("held").await;
        for n in 0..3 * HOSTS_MAX {
            drop(places.take(&n.to_string()).await);
        }
        let hosts = places.hosts.lock().unwrap();
        assert!(hosts.len() <= HOSTS_MAX && hosts.contains_key("held"));
    }
}
