//! One Sv2 pool for measurements, on Bitcoin Core's regtest: Dovetail's, or `pool_sv2` of the Stratum Reference
//! Implementation. Both give targets that every header meets, so that what is measured is the pool and not the search.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use crate::bitcoin_core::BitcoinCore;
use crate::free_port;
use crate::process::{Daemon, wait};
use crate::scenario::{AUTHORITY_PUBLIC, AUTHORITY_SECRET, Layout, PAYOUT_ADDRESS, text};

/// A pool that waits for templates needs some seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// The most that both let one configure without a fork: a target for it takes 0.1 s of a miner's hash rate, of which there
/// is next to none.
pub(crate) const SHARES_PER_MINUTE: f32 = 600.0;

/// A pool that runs. It is stopped when this is dropped.
pub struct Sv2Pool {
    /// Where miners connect.
    pub mining: String,
    daemon: Daemon,
}

impl Sv2Pool {
    /// Starts Dovetail's pool: this program, with files under `dir` and the ledger at `url`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn dovetail(
        program: &Path,
        dir: &Path,
        core: &BitcoinCore,
        url: &str,
    ) -> anyhow::Result<Self> {
        let layout = Layout { dir };
        std::fs::create_dir_all(dir)?;
        let config = layout.write("pool.toml", &layout.measured_pool_config(url, core))?;
        let mut command = Command::new(program);
        command.args(["--config", &config]);
        let mut daemon = spawn("dovetail-pool", command, dir)?;
        let ready = daemon.ready(START_TIME_MAX)?;
        // What it reports of each share is read by nobody here.
        daemon.mute();
        Ok(Self {
            mining: text(&ready, "mining")?,
            daemon,
        })
    }

    /// Starts `pool_sv2`, with files under `dir`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn pool_sv2(program: &Path, dir: &Path, core: &BitcoinCore) -> anyhow::Result<Self> {
        let layout = Layout { dir };
        std::fs::create_dir_all(dir)?;
        let mining = format!("127.0.0.1:{}", free_port()?);
        let config = layout.write("pool_sv2.toml", &pool_sv2_config(&mining, core))?;
        let mut command = Command::new(program);
        command.args(["-c", &config]);
        let daemon = spawn("pool_sv2", command, dir)?;
        daemon.mute();
        // It has no ready line.
        wait(
            "pool_sv2's port",
            || Ok(TcpStream::connect(&mining).is_ok()),
        )
        .with_context(|| daemon.log_tail())?;
        Ok(Self { mining, daemon })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.daemon.log_tail()
    }
}

/// Both log what went wrong only: lines about shares would be measured too.
fn spawn(name: &str, mut command: Command, dir: &Path) -> anyhow::Result<Daemon> {
    command.current_dir(dir).env("RUST_LOG", "warn");
    Daemon::spawn(name, command, &dir.join("logs"))
}

fn pool_sv2_config(mining: &str, core: &BitcoinCore) -> String {
    let data = core.data().display();
    format!(
        "authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = \"{AUTHORITY_SECRET}\"
cert_validity_sec = 3600
listen_address = \"{mining}\"
coinbase_reward_script = \"addr({PAYOUT_ADDRESS})\"
server_id = 1
pool_signature = \"pool_sv2\"
shares_per_minute = {SHARES_PER_MINUTE:.1}
# As Dovetail: each share is acknowledged as soon as it can be.
share_batch_size = 1
[template_provider_type.BitcoinCoreIpc]
version = 31
network = \"regtest\"
data_dir = \"{data}\"
fee_threshold = 100
min_interval = 5
"
    )
}
