//! A worker with several pools and solo mining to fall back on: the devices behind it are never idle
//! and never disconnected, whatever happens upstream. Two whole pools, each on a chain of its own.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_templates::{SourceConfig, TemplateHandle};
use dovetail_tests::process::{Daemon, status};
use dovetail_tests::program;
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const TIME_MAX: Duration = Duration::from_secs(60);
/// A share every second or so, and a block every few.
const OPTIONS: fn() -> Options = || Options {
    worker: false,
    hasher: false,
    bits: "1e07ffff",
    ..Options::default()
};

/// A worker in front of two pools, and a device behind it.
struct Stand {
    first: Scenario,
    second: Scenario,
    worker: Daemon,
    device: Daemon,
    key: String,
    page: String,
    _dirs: [TempDir; 3],
}

impl Stand {
    fn start() -> Self {
        let (first_dir, first) = dovetail_tests::scenario(&OPTIONS()).unwrap();
        let (second_dir, second) = dovetail_tests::scenario(&OPTIONS()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("worker.toml");
        std::fs::write(&config, worker_config(&dir, &first, &second)).unwrap();
        let mut command = Command::new(program("dovetail-worker"));
        command.arg("run").arg("--config").arg(&config);
        let mut worker = Daemon::spawn("worker", command, dir.path()).unwrap();
        let ready = worker.ready(TIME_MAX).unwrap();
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        let mut command = Command::new(program("dovetail-worker"));
        command.args(["hash", "--user", "device", "--pool", &text("downstream")]);
        command.args(["--authority-key", &text("authority_public_key")]);
        let device = Daemon::spawn("device", command, dir.path()).unwrap();
        Self {
            first,
            second,
            worker,
            device,
            key: text("worker"),
            page: text("page"),
            _dirs: [first_dir, second_dir, dir],
        }
    }

    /// Waits for a share of the worker that one of the pools credits; how long that took.
    fn credited(&mut self, by_first: bool) -> Duration {
        let since = Instant::now();
        let pool = match by_first {
            true => &mut self.first.pool,
            false => &mut self.second.pool,
        };
        // Lines of before the change say nothing.
        while pool.next_line(Duration::ZERO).ok().flatten().is_some() {}
        let waited = pool.wait_for(TIME_MAX, "a share of the worker", |line| {
            line["event"] == "share_accepted" && line["worker"] == self.key.as_str()
        });
        if let Err(error) = waited {
            panic!("{error:#}\nthe worker:\n{}", self.worker.log_tail());
        }
        since.elapsed()
    }

    /// What the worker's page says.
    fn status(&self) -> Value {
        status(&self.page).unwrap()
    }

    fn works_for(&self, pool: &Scenario) -> bool {
        let status = self.status();
        assert_eq!(status["devices"]["connections"], 1);
        status["upstream"]["address"] == pool.mining.as_str()
    }

    /// The device was never disconnected.
    fn check_device(&self) {
        let log = self.device.log();
        assert!(!log.contains("the connection to the pool ended"), "{log}");
    }
}

fn worker_config(dir: &TempDir, first: &Scenario, second: &Scenario) -> String {
    let model = first.file("model.safetensors");
    let (dir, model) = (dir.path().display(), model.display());
    let pool = |mining: &str| {
        format!("[[pool]]\naddress = \"{mining}\"\nauthority_public_key = \"{AUTHORITY_PUBLIC}\"\n")
    };
    let node = first.network.template_provider().unwrap();
    format!(
        "[worker]
key_file = \"{dir}/worker.key\"
models = [\"{model}\"]
search = false
pool_return_s = 2
{}{}
[templates]
kind = \"template-provider\"
address = \"{node}\"
[solo]
network = \"regtest\"
payout_address = \"addr(bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw)\"
[downstream]
listen = \"127.0.0.1:0\"
key_file = \"{dir}/downstream.key\"
[page]
listen = \"127.0.0.1:0\"
",
        pool(&first.mining),
        pool(&second.mining),
    )
}

/// Waits for the next block of the chain that the worker's node follows.
async fn next_block(templates: &TemplateHandle) {
    let mut work = templates.subscribe();
    let height = {
        let first = work.wait_for(Option::is_some).await.unwrap();
        first.as_ref().unwrap().height()
    };
    let higher = work.wait_for(|work| work.as_ref().is_some_and(|work| work.height() > height));
    tokio::time::timeout(TIME_MAX, higher)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hashers_go_from_pool_to_pool_to_solo_and_back_without_a_break() {
    let mut stand = tokio::task::spawn_blocking(Stand::start).await.unwrap();
    let stop = CancellationToken::new();
    let source =
        SourceConfig::template_provider(stand.first.network.template_provider().unwrap(), None);
    let templates = dovetail_templates::start(source, stop.clone()).unwrap();
    stand.credited(true);
    assert!(stand.works_for(&stand.first));

    // The preferred pool dies: the next one is worked for within seconds.
    stand.first.pool.kill();
    let took = stand.credited(false);
    eprintln!("the second pool credited a share {took:?} after the first was killed");
    assert!(stand.works_for(&stand.second));
    stand.check_device();

    // It comes back: once it has been there for a while, the worker returns to it.
    stand.first.restart_pool().unwrap();
    let took = stand.credited(true);
    eprintln!("the first pool credited a share {took:?} after it was back");
    assert!(stand.worker.log().contains("changing over"));
    stand.check_device();

    // Both die: the device finds a block for its own node.
    stand.first.pool.kill();
    stand.second.pool.kill();
    next_block(&templates).await;
    assert_eq!(stand.status()["upstream"]["kind"], "solo");
    assert!(stand.worker.log().contains("mining solo"));
    let deadline = Instant::now() + TIME_MAX;
    while !stand
        .worker
        .log()
        .contains("the node has a block that was found here")
    {
        assert!(Instant::now() < deadline, "{}", stand.worker.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stand.check_device();

    stand.first.restart_pool().unwrap();
    stand.credited(true);
    stand.check_device();
    stop.cancel();
}
