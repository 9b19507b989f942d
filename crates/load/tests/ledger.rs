//! The generator against Dovetail's pool: what the one counts as accepted, the other has in its ledger.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use dovetail_tests::process::output;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options};
use serde_json::Value;

#[test]
fn every_share_that_it_counts_as_accepted_is_in_the_ledger() {
    let options = Options {
        worker: false,
        hasher: false,
        pool_settings: &[
            // Every header that is no block is a share.
            ("MINING__MIN_HASHRATE", "1e-22"),
            ("MINING__SHARES_PER_MINUTE", "600"),
        ],
        ..Options::default()
    };
    let (_dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let mut accepted = 0;
    for mode in [&["--rate", "100"][..], &["--in-flight", "2", "--standard"]] {
        let said = output(
            Command::new(env!("CARGO_BIN_EXE_dovetail-load"))
                .args(["--pool", &scenario.mining, "--authority", AUTHORITY_PUBLIC])
                .args(["--user", "smoke", "shares", "--connections", "3"])
                .args(["--seconds", "1", "--warm-up", "0"])
                .args(mode),
        );
        let report: Value = serde_json::from_str(said.unwrap().trim()).unwrap();
        for nothing in [
            "refused",
            "unanswered",
            "mismatched_acks",
            "dead_connections",
        ] {
            assert_eq!(report[nothing], 0, "{report}");
        }
        let counted = report["accepted_in_all"].as_u64().unwrap();
        assert!(counted >= 10, "{report}");
        accepted += counted;
    }
    let count = "SELECT count(*) FROM named_shares WHERE account LIKE 'smoke%'";
    scenario.query_until(count, &accepted.to_string()).unwrap();
}
