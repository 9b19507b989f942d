//! A bridge as a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dovetail_lightning::Client;
use dovetail_tests::process::Daemon;

const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A bridge that runs.
pub(crate) struct Bridge {
    daemon: Daemon,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    dir: PathBuf,
    name: String,
    pub(crate) client: Client,
}

impl Bridge {
    pub(crate) fn start(
        dir: &Path,
        name: &str,
        retry_for: u32,
        program: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let (storage, socket) = (dir.join(name), dir.join(format!("{name}.sock")));
        let client = Client::new(socket.clone());
        let command = Box::new(move || {
            let mut command = program();
            command.arg("--storage").arg(&storage);
            command.arg("--socket").arg(&socket);
            command.arg("--retry-for").arg(retry_for.to_string());
            command
        });
        Self {
            daemon: spawn(name, command(), dir),
            command,
            dir: dir.to_owned(),
            name: name.to_owned(),
            client,
        }
    }

    pub(crate) fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Starts it again on what it left.
    pub(crate) fn start_again(&mut self) {
        self.daemon = spawn(&self.name, (self.command)(), &self.dir);
    }
}

fn spawn(name: &str, command: Command, dir: &Path) -> Daemon {
    let mut daemon = Daemon::spawn(name, command, &dir.join("logs")).unwrap();
    daemon.ready(START_TIME_MAX).unwrap();
    daemon
}
