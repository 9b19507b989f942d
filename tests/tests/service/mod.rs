//! One daemon by itself: the example configuration with other values over it, and a service manager's socket.

#![allow(clippy::unwrap_used, dead_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET};
use dovetail_tests::{clerk_model, free_port, program, root};
use serde_json::Value;

use super::played::provider::Provider;

pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);

/// A daemon, its port for miners and its database.
pub(crate) struct Service {
    pub(crate) daemon: Daemon,
    pub(crate) port: SocketAddr,
    postgres: Postgres,
    database: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Service {
    /// A pool, with these values over the example.
    pub(crate) fn pool(name: &str, dir: tempfile::TempDir, values: &[(&str, &str)]) -> Self {
        Self::pool_with(name, dir, values, |_| {})
    }

    pub(crate) fn pool_with(
        name: &str,
        dir: tempfile::TempDir,
        values: &[(&str, &str)],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let (place, model) = (dir.path().display(), clerk_model());
        let key = "01".repeat(32);
        let own = [
            ("API__LISTEN", "127.0.0.1:0".into()),
            ("JOB_DECLARATOR__TOKEN_KEY", format!("\"{key}\"")),
            ("LEDGER__DIR", format!("{place}/ledger")),
            ("LEDGER__LOG_BYTES_MAX", "16777216".into()),
            ("LIGHTNING__SOCKET", format!("{place}/wallet.sock")),
            ("INFERENCE__MODELS", format!("[\"{}\"]", model.display())),
            ("INFERENCE__RECEIPT_KEY", format!("\"{key}\"")),
            ("INFERENCE__VRF_KEY", format!("\"{key}\"")),
        ];
        Self::start(name, dir, &POOL, &own, values, change)
    }

    /// A declarator, with these values over the example.
    pub(crate) fn declarator(
        name: &str,
        dir: tempfile::TempDir,
        values: &[(&str, &str)],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let key = "01".repeat(32);
        let own = [
            ("DECLARATION__TOKEN_KEY", format!("\"{key}\"")),
            (
                "DECLARATION__BLOCKS_DIR",
                format!("{}/blocks", dir.path().display()),
            ),
        ];
        Self::start(name, dir, &DECLARATOR, &own, values, change)
    }

    fn start(
        name: &str,
        dir: tempfile::TempDir,
        kind: &Kind,
        own: &[(&str, String)],
        values: &[(&str, &str)],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let postgres = Postgres::start(&root().join(".data").join("postgres")).unwrap();
        let database = format!("dovetail_{}_{name}_{}", kind.program, std::process::id());
        let database = database.replace('-', "_");
        let url = postgres.fresh_database(&database).unwrap();
        let port = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        // Which source it is the values say: the example's has keys that another does not know.
        let example = root().join("config").join(kind.config);
        let example = std::fs::read_to_string(example).unwrap();
        let (begin, rest) = example.split_once("\n[templates]\n").unwrap();
        let end = rest.find("\n[").map_or("", |at| &rest[at..]);
        let config = dir.path().join(kind.config);
        std::fs::write(&config, format!("{begin}{end}")).unwrap();
        let mut command = Command::new(program(kind.program));
        command.arg("--config").arg(config).env("NO_COLOR", "1");
        let key = |name: &str| format!("{}__{name}", kind.prefix);
        let section = |name: &str| key(&format!("{}__{name}", kind.section));
        command
            .env(section("LISTEN"), port.to_string())
            .env(section("AUTHORITY_PUBLIC_KEY"), AUTHORITY_PUBLIC)
            .env(section("AUTHORITY_SECRET_KEY"), AUTHORITY_SECRET)
            .env(key("LEDGER__URL"), url);
        for (name, value) in own {
            command.env(key(name), value);
        }
        for (name, value) in values {
            command.env(key(name), value);
        }
        change(&mut command);
        Self {
            daemon: Daemon::spawn(name, command, &dir.path().join("logs")).unwrap(),
            port,
            postgres,
            database,
            dir,
        }
    }

    /// Waits for a line that says that the daemon is not ready for a reason with these words.
    pub(crate) fn says_not_ready(&mut self, words: &str) {
        let is_said = |line: &Value| {
            assert_ne!(line["ready"], true, "{line}");
            line["ready"] == false && line["reason"].as_str().unwrap().contains(words)
        };
        self.daemon.wait_for(TIME_MAX, words, is_said).unwrap();
        let refused = TcpStream::connect(self.port).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.daemon.stop();
        self.postgres.drop_database(&self.database);
    }
}

struct Kind {
    program: &'static str,
    config: &'static str,
    prefix: &'static str,
    section: &'static str,
}

const POOL: Kind = Kind {
    program: "dovetail-pool",
    config: "dovetail-pool.toml",
    prefix: "DOVETAIL_POOL",
    section: "MINING",
};

const DECLARATOR: Kind = Kind {
    program: "dovetail-jd",
    config: "dovetail-jd.toml",
    prefix: "DOVETAIL_JD",
    section: "DECLARATION",
};

/// The values of `[templates]` for this provider; its last work stands for a second.
pub(crate) fn provider_values(provider: &Provider) -> [(&'static str, String); 4] {
    [
        ("TEMPLATES__KIND", "template-provider".into()),
        ("TEMPLATES__ADDRESS", provider.address.clone()),
        (
            "TEMPLATES__AUTHORITY_PUBLIC_KEY",
            provider.keys.public().to_string(),
        ),
        ("TEMPLATES__STALE_AFTER_S", "1".into()),
    ]
}

/// What a service manager is told.
pub(crate) struct Notify(Receiver<String>);

/// A socket as `NOTIFY_SOCKET` names it, in this folder.
pub(crate) fn notify_socket(dir: &Path) -> (Notify, PathBuf) {
    let place = dir.join("notify.sock");
    let socket = UnixDatagram::bind(&place).unwrap();
    let (sender, words) = channel();
    // It is always read, as systemd does: a full queue loses words.
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            for word in text.lines() {
                if sender.send(word.to_owned()).is_err() {
                    return;
                }
            }
        }
    });
    (Notify(words), place)
}

impl Notify {
    /// Reads until a word that begins so; all words up to it.
    pub(crate) fn until(&self, begin: &str) -> Vec<String> {
        let deadline = Instant::now() + TIME_MAX;
        let mut words = Vec::new();
        loop {
            // Others may come for ever: a watchdog is fed.
            let left = deadline.saturating_duration_since(Instant::now());
            let word = self.0.recv_timeout(left);
            let word = word.unwrap_or_else(|error| panic!("no {begin}: {error}: {words:?}"));
            words.push(word);
            if words.last().is_some_and(|word| word.starts_with(begin)) {
                return words;
            }
        }
    }
}
