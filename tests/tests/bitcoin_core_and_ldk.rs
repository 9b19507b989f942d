//! The main job on real parts: Bitcoin Core's templates, a declared block, and a BOLT 11 payment
//! between two LDK nodes. `cargo xtask test` names the programs in the environment and runs it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use dovetail_tests::bitcoin_core::CoreParts;
use dovetail_tests::lightning_node::RealParts;
use dovetail_tests::needed;
use dovetail_tests::scenario::Options;

const TIME_MAX: Duration = Duration::from_secs(120);

#[test]
#[ignore = "needs Bitcoin Core and LDK: cargo xtask test"]
fn a_worker_is_paid_with_a_real_invoice_for_a_share_on_a_declared_job() {
    let options = Options {
        shares_per_minute: 6,
        min_hashrate: 400_000,
        real: Some(RealParts {
            core: CoreParts::from_environment().unwrap(),
            lightning_node: needed("DOVETAIL_LIGHTNING_NODE").unwrap(),
        }),
        ..Options::default()
    };
    let (_dir, mut scenario) = dovetail_tests::scenario(&options).unwrap();
    let answer = scenario.ask("a prompt", 32, "receipt.json", &[]).unwrap();
    assert_eq!(answer["receipt"]["verified"], true);
    let paid = scenario.pool.event("payout_paid", TIME_MAX).unwrap();
    assert_eq!(paid["rail"], "ldk");
    assert!(paid["amount_msat"].as_i64().unwrap() >= 32_000);
    let state = scenario.query("SELECT state FROM payouts LIMIT 1").unwrap();
    assert_eq!(state, "paid");
}
