//! One daemon by itself: the example configuration with other values over it, and a service manager's socket.

#![allow(clippy::unwrap_used, dead_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET};
use dovetail_tests::{clerk_model, free_port, program, root};
use serde_json::Value;

use super::played::provider::Provider;

pub(crate) const TIME_MAX: Duration = Duration::from_secs(60);
/// Who owns nothing.
const NOBODY: u32 = 65_534;

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
            ("LEDGER__SPOOL_DIR", format!("{place}/spool")),
            ("LIGHTNING__SOCKET", format!("{place}/wallet.sock")),
            ("INFERENCE__MODELS", format!("[\"{}\"]", model.display())),
            ("INFERENCE__RECEIPT_KEY", format!("\"{key}\"")),
        ];
        let values: Vec<_> = own
            .iter()
            .map(|(key, value)| (*key, &value[..]))
            .chain(values.iter().copied())
            .collect();
        Self::start(name, dir, &POOL, &values, change)
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
        let values: Vec<_> = own
            .iter()
            .map(|(key, value)| (*key, &value[..]))
            .chain(values.iter().copied())
            .collect();
        Self::start(name, dir, &DECLARATOR, &values, change)
    }

    fn start(
        name: &str,
        dir: tempfile::TempDir,
        kind: &Kind,
        values: &[(&str, &str)],
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let postgres = Postgres::start(&root().join(".data").join("postgres")).unwrap();
        let database = format!("dovetail_{}_{name}_{}", kind.program, std::process::id());
        let database = database.replace('-', "_");
        let url = postgres.fresh_database(&database).unwrap();
        let port = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        // Whoever the daemon runs as has to get at them.
        let (binary, config) = (dir.path().join(kind.program), dir.path().join(kind.config));
        std::fs::copy(root().join("config").join(kind.config), &config).unwrap();
        link_or_copy(&program(kind.program), &binary);
        let mut command = Command::new(binary);
        command.arg("--config").arg(config).env("NO_COLOR", "1");
        let key = |name: &str| format!("{}__{name}", kind.prefix);
        let section = |name: &str| key(&format!("{}__{name}", kind.section));
        command
            .env(section("LISTEN"), port.to_string())
            .env(section("AUTHORITY_PUBLIC_KEY"), AUTHORITY_PUBLIC)
            .env(section("AUTHORITY_SECRET_KEY"), AUTHORITY_SECRET)
            .env(key("LEDGER__URL"), url);
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

fn link_or_copy(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).unwrap();
    }
}

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

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Lets nobody open this; root opens it all the same.
pub(crate) fn forbid(place: &Path) {
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o000)).unwrap();
}

/// Where we are root, the daemon is not, and its folder is its own.
pub(crate) fn as_nobody(command: &mut Command) {
    if !is_root() {
        return;
    }
    let folder = Path::new(command.get_program()).parent().unwrap();
    chown(folder, Some(NOBODY), Some(NOBODY)).unwrap();
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
}

/// What a service manager is told.
pub(crate) struct Notify(UnixDatagram);

/// A socket as `NOTIFY_SOCKET` names it, in this folder.
pub(crate) fn notify_socket(dir: &Path) -> (Notify, PathBuf) {
    let place = dir.join("notify.sock");
    let socket = UnixDatagram::bind(&place).unwrap();
    socket.set_read_timeout(Some(TIME_MAX)).unwrap();
    (Notify(socket), place)
}

impl Notify {
    /// Reads until a word that begins so; all words up to it.
    pub(crate) fn until(&self, begin: &str) -> Vec<String> {
        let deadline = Instant::now() + TIME_MAX;
        let (mut words, mut buffer) = (Vec::new(), [0; 4_096]);
        loop {
            let read = self.0.recv(&mut buffer);
            let length = read.unwrap_or_else(|error| panic!("no {begin}: {error}: {words:?}"));
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            words.extend(text.lines().map(str::to_owned));
            if words.iter().any(|word| word.starts_with(begin)) {
                return words;
            }
            assert!(Instant::now() < deadline, "no {begin}: {words:?}");
        }
    }
}
