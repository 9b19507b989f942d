//! Turns at what takes a core for a while and is done for strangers: some at once, and one for each host. So nobody waits
//! for more than one piece of work of each other host, however many connections and requests that one has. Connections from
//! this machine have turns of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::caller::{Caller, Party};
use crate::one_each::OneEach;

/// Whoever has waited this long for a turn is told to come back later.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Requests of one host that may stand in line: it may be a gateway with many agents behind it.
const OF_A_HOST_MAX: usize = 256;

/// The turns; clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_hosts: OneEach<Party>,
    wait_max: Duration,
}

/// A turn. Dropping it lets the next one in.
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_host: crate::one_each::Turn<Party>,
}

impl Turns {
    /// So many at once.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(at_once)),
            of_hosts: OneEach::new(OF_A_HOST_MAX),
            wait_max: WAIT_MAX,
        }
    }

    /// The caller's turn, unless it takes too long to come.
    pub(super) async fn take(&self, caller: &Caller) -> Option<Turn> {
        let turn = async {
            // Before it stands in the line of all.
            let of_host = self.of_hosts.take(caller.party()).await?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn {
                _of_all: of_all,
                _of_host: of_host,
            })
        };
        timeout(self.wait_max, turn).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn caller(connection: u64, host: u8) -> Caller {
        Caller::new(connection, IpAddr::from([192, 0, 2, host]))
    }

    /// Else a host with a hundred connections is served a hundred times before a stranger is.
    #[tokio::test]
    async fn a_host_has_one_turn_at_a_time_whatever_its_connections_and_others_wait_for_that_one() {
        let turns = Turns {
            wait_max: Duration::from_secs(1),
            ..Turns::new(2)
        };
        let first = turns.take(&caller(1, 1)).await.unwrap();
        let waiting: Vec<_> = (2..100)
            .map(|connection| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take(&caller(connection, 1)).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        let other = turns.take(&caller(100, 2)).await.unwrap();
        // No more at once than there are turns.
        assert!(turns.take(&caller(101, 3)).await.is_none());
        drop(other);
        assert!(turns.take(&caller(101, 3)).await.is_some());
        // Those of the first host have waited in vain by now.
        for waiting in waiting {
            assert!(!waiting.await.unwrap());
        }
        drop(first);
        assert!(turns.take(&caller(1, 1)).await.is_some());
    }
}
