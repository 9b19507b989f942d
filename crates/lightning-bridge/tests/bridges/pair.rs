//! Two bridges on two nodes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_lightning::{Client, Hash32, PaymentStatus, Request};

use crate::bridge::Bridge;
use crate::contract::Pair;
use crate::door::Door;
use crate::network::Network;

pub(crate) struct Bridges<D> {
    pub(crate) network: Network,
    pub(crate) payer: Bridge,
    payee: Bridge,
    dir: PathBuf,
    _doors: [Arc<D>; 2],
}

impl<D: Door + Sync + 'static> Bridges<D> {
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_with(dir, 60).await
    }

    pub(crate) async fn start_with(dir: &Path, retry_for: u32) -> Self {
        let network = Network::new();
        let doors = [
            Arc::new(D::open(&network, 0, dir).await),
            Arc::new(D::open(&network, 1, dir).await),
        ];
        let start = |name, door: &Arc<D>| {
            let door = Arc::clone(door);
            Bridge::start(dir, name, retry_for, move || door.bridge())
        };
        Self {
            payer: start("payer", &doors[0]),
            payee: start("payee", &doors[1]),
            network,
            dir: dir.to_owned(),
            _doors: doors,
        }
    }

    /// Where the payer's records are.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.dir.join("payer").join("attempts")
    }

    /// Waits until an attempt is no longer on its way. It must never be forgotten meanwhile.
    pub(crate) async fn end(&self, attempt: Hash32, time_max: Duration) -> PaymentStatus {
        let deadline = Instant::now() + time_max;
        loop {
            let status = self.payer.client.payment(attempt.0).await.unwrap();
            assert_ne!(status, PaymentStatus::Unknown);
            if status != PaymentStatus::Pending {
                return status;
            }
            assert!(Instant::now() < deadline, "the payment does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl<D: Door + Sync> Pair for Bridges<D> {
    fn payer(&self) -> &Client {
        &self.payer.client
    }

    fn payee(&self) -> &Client {
        &self.payee.client
    }

    fn knows_offers(&self) -> bool {
        D::KNOWS_OFFERS
    }

    fn freeze(&mut self) {
        self.network.hold();
    }

    async fn thaw(&mut self, payment_hash: Hash32) {
        self.payer.kill();
        self.payer.start_again();
        let state = self.payer.client.raw(&Request::NodeState).await.unwrap();
        assert_eq!(state["attempts_pending"], 1);
        assert_eq!(self.network.times_moved(payment_hash), 0);
        self.network.release();
    }
}
