//! A pool that has no work, or a node of another network, lets nobody in and says why.

#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET};
use dovetail_tests::{clerk_model, free_port, program, root};
use serde_json::Value;

const TIME_MAX: Duration = Duration::from_secs(60);

/// A pool by itself: the example configuration with these values over it.
struct Pool {
    daemon: Daemon,
    mining: SocketAddr,
    postgres: Postgres,
    database: String,
    dir: tempfile::TempDir,
}

impl Pool {
    fn start(name: &str, dir: tempfile::TempDir, values: &[(&str, &str)]) -> Self {
        let postgres = Postgres::start(&root().join(".data").join("postgres")).unwrap();
        let database = format!("dovetail_readiness_{name}_{}", std::process::id());
        let url = postgres.fresh_database(&database).unwrap();
        let mining = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let mut command = Command::new(program("dovetail-pool"));
        command
            .arg("--config")
            .arg(root().join("config").join("dovetail-pool.toml"))
            .env("NO_COLOR", "1");
        let (place, model) = (dir.path().display(), clerk_model());
        let key = "01".repeat(32);
        for (name, value) in [
            ("MINING__LISTEN", mining.to_string()),
            ("MINING__AUTHORITY_PUBLIC_KEY", AUTHORITY_PUBLIC.into()),
            ("MINING__AUTHORITY_SECRET_KEY", AUTHORITY_SECRET.into()),
            ("API__LISTEN", "127.0.0.1:0".into()),
            ("JOB_DECLARATOR__TOKEN_KEY", format!("\"{key}\"")),
            ("LEDGER__URL", url),
            ("LEDGER__SPOOL_DIR", format!("{place}/spool")),
            ("LIGHTNING__SOCKET", format!("{place}/wallet.sock")),
            ("INFERENCE__MODELS", format!("[\"{}\"]", model.display())),
            ("INFERENCE__RECEIPT_KEY", format!("\"{key}\"")),
        ] {
            command.env(format!("DOVETAIL_POOL__{name}"), value);
        }
        for (name, value) in values {
            command.env(format!("DOVETAIL_POOL__{name}"), value);
        }
        Self {
            daemon: Daemon::spawn(name, command, &dir.path().join("logs")).unwrap(),
            mining,
            postgres,
            database,
            dir,
        }
    }

    /// Waits for a line that says that the pool is not ready for a reason with these words.
    fn says_not_ready(&mut self, words: &str) {
        let is_said = |line: &Value| {
            assert_ne!(line["ready"], true, "{line}");
            line["ready"] == false && line["reason"].as_str().unwrap().contains(words)
        };
        self.daemon.wait_for(TIME_MAX, words, is_said).unwrap();
        let refused = TcpStream::connect(self.mining).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.daemon.stop();
        self.postgres.drop_database(&self.database);
    }
}

#[test]
fn a_pool_without_work_says_which_thing_is_missing_and_refuses_devices_until_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let place = socket.to_string_lossy().into_owned();
    let values = [
        ("TEMPLATES__KIND", "bitcoin-core"),
        ("TEMPLATES__SOCKET", place.as_str()),
    ];
    let mut pool = Pool::start("socket", dir, &values);
    pool.says_not_ready("there is no ");
    // A node that has died leaves its socket behind.
    drop(UnixListener::bind(&socket).unwrap());
    pool.says_not_ready("refuses connections");
    let log = pool.daemon.log();
    assert!(log.contains("cannot reach the template source"), "{log}");
    drop(pool);

    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let values = [
        ("TEMPLATES__KIND", "template-provider"),
        ("TEMPLATES__ADDRESS", address.as_str()),
    ];
    let mut pool = Pool::start("provider", dir, &values);
    pool.says_not_ready("refuses connections");
    let mut command = Command::new(program("dovetail-regtest"));
    command.args(["--listen", &address]);
    let logs = pool.dir.path().join("logs");
    let mut source = Daemon::spawn("templates", command, &logs).unwrap();
    source.ready(TIME_MAX).unwrap();
    let ready = pool.daemon.ready(TIME_MAX).unwrap();
    assert_eq!(ready["mining"], pool.mining.to_string());
    TcpStream::connect(pool.mining).unwrap();
    // It cannot be known better, and that is said.
    let log = pool.daemon.log();
    assert!(log.contains("does not say which network it is on"), "{log}");
}

#[test]
fn a_pool_does_not_start_on_the_node_of_another_network() {
    let values = [
        ("MINING__NETWORK", "signet"),
        (
            "MINING__PAYOUT_ADDRESS",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ),
        ("TEMPLATES__KIND", "embedded"),
    ];
    let mut pool = Pool::start("network", tempfile::tempdir().unwrap(), &values);
    let ended = pool.daemon.ready(TIME_MAX).unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
    let log = pool.daemon.log();
    assert!(
        log.contains("network = \"signet\" is configured, but the node is on regtest"),
        "{log}"
    );
}

#[test]
fn a_port_that_is_taken_is_named_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let values = [
        ("TEMPLATES__KIND", "embedded"),
        ("API__LISTEN", address.as_str()),
    ];
    let mut pool = Pool::start("port", tempfile::tempdir().unwrap(), &values);
    pool.daemon.ready(TIME_MAX).unwrap_err();
    let log = pool.daemon.log();
    assert!(
        log.contains(&format!("cannot listen on {address}")),
        "{log}"
    );
}
