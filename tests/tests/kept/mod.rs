//! Blocks that wait on disk, as tests see them from outside.

#![allow(clippy::unwrap_used, dead_code)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET, Options, Scenario};
use dovetail_tests::{free_port, program};
use tempfile::TempDir;

const TIME_MAX: Duration = Duration::from_secs(120);

pub(crate) async fn start(options: Options) -> (TempDir, Scenario) {
    let start = move || dovetail_tests::scenario(&options).unwrap();
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// Waits for a block's file in the folder. Its hash.
pub(crate) async fn block_in(folder: &Path) -> String {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files = entries.map(|entry| entry.path());
        let block = files.find(|file| file.extension().is_some_and(|end| end == "json"));
        if let Some(block) = block {
            return block.file_stem().unwrap().to_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "no block was written down");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until this log of an embedded chain says that the chain took the block.
pub(crate) fn log_has(log: impl Fn() -> String, hash: &str) {
    let deadline = Instant::now() + TIME_MAX;
    loop {
        let log = log();
        let taken = |line: &str| line.contains("block accepted") && line.contains(hash);
        if log.lines().any(taken) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{hash} is not in the chain:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the scenario's embedded chain has the block.
pub(crate) fn chain_has(scenario: &mut Scenario, hash: &str) {
    let chain = scenario.network.daemons().remove(0);
    log_has(|| chain.log(), hash);
}

/// An embedded chain as a template provider, beside those of scenarios.
pub(crate) struct Chain {
    pub(crate) daemon: Daemon,
    pub(crate) address: String,
    bits: &'static str,
}

impl Chain {
    pub(crate) fn start(name: &str, bits: &'static str, dir: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let (daemon, address) = serve(name, &address, bits, dir);
        Self {
            daemon,
            address,
            bits,
        }
    }

    /// Starts it again on the same port. Its chain starts over.
    pub(crate) fn restart(&mut self, name: &str, dir: &Path) {
        self.daemon.kill();
        self.daemon = serve(name, &self.address, self.bits, dir).0;
    }

    /// The keys of a section that names it, as a source or as a further node.
    pub(crate) fn config(&self) -> String {
        format!(
            "kind = \"template-provider\"\naddress = \"{}\"\nauthority_public_key = \"{AUTHORITY_PUBLIC}\"\n",
            self.address
        )
    }
}

fn serve(name: &str, listen: &str, bits: &str, dir: &Path) -> (Daemon, String) {
    let mut command = Command::new(program("dovetail-regtest"));
    command.args(["--listen", listen, "--bits", bits]);
    command.args(["--authority-secret-key", AUTHORITY_SECRET]);
    let mut daemon = Daemon::spawn(name, command, &dir.join("logs")).unwrap();
    let ready = daemon.ready(TIME_MAX).unwrap();
    let address = ready["tdp"].as_str().unwrap().to_owned();
    (daemon, address)
}
