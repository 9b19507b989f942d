//! What every wallet promises about attempts, asked of the simulated wallet and of two LDK nodes on Bitcoin Core. The nodes are
//! killed as well: in the middle of a payment, and where a crash leaves a note and no payment.
//! `cargo xtask test` names the programs in the environment and runs the second part.

#![allow(clippy::unwrap_used)]

mod contract;
mod nodes;
mod simulation;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use contract::Contract;
use nodes::{Nodes, an_operator_sees_changes_backs_up_and_closes};
use simulation::Simulation;

/// How long a payment may take to end.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Once LDK has written nothing for so long, its channels' state is whole on disk.
const QUIET: Duration = Duration::from_millis(500);
const AMOUNT_MSAT: u64 = 100_000;
const CLTV_MAX: u16 = 432;
/// More than any of the wallets has.
const TOO_MUCH_MSAT: u64 = 1_000_000_000_000;

#[tokio::test]
async fn the_simulated_wallet_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let mut contract = Contract::new(Simulation::start(dir.path(), &shutdown)).await;
    contract.hold().await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core and LDK: cargo xtask test"]
async fn two_ldk_nodes_keep_the_contract_and_a_killed_one_pays_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut contract = Contract::new(Nodes::start(dir.path())).await;
    contract.hold().await;
    contract.a_note_without_a_payment_may_be_sent().await;
    contract
        .an_offer_is_paid_once_although_its_payer_dies_before_the_payee_answers()
        .await;
    an_operator_sees_changes_backs_up_and_closes(&contract.pair, dir.path()).await;
}
