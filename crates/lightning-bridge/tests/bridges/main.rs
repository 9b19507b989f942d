//! The bridges, as processes that are killed, on nodes that are played: they speak Core Lightning's JSON-RPC and LND's REST as
//! the manuals and sources of these describe them, over a network of two nodes whose money moves. The daemons themselves are not
//! asked here.

#![allow(clippy::unwrap_used)]

mod bridge;
#[path = "../../../../tests/tests/wallet_contract/contract.rs"]
mod contract;
mod core_lightning;
mod crashes;
mod door;
mod hostile;
mod lnd;
mod network;
mod pair;

use std::time::Duration;

use contract::Contract;
use core_lightning::CoreLightning;
use lnd::Lnd;
use pair::Bridges;

/// How long a payment may take to end.
const TIME_MAX: Duration = Duration::from_secs(40);
const AMOUNT_MSAT: u64 = 100_000;
const CLTV_MAX: u16 = 432;
/// More than any of the wallets has.
const TOO_MUCH_MSAT: u64 = 1_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_to_core_lightning_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<CoreLightning>::start(dir.path()).await;
    Contract::new(pair).await.hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_to_lnd_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<Lnd>::start(dir.path()).await;
    Contract::new(pair).await.hold().await;
}
