//! A whole Dovetail on loopback: template source, wallets, pool, job declarator, worker, hasher.
//! Every part is the real program with a configuration file of its own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::network::Network;
pub use crate::options::Options;
use crate::postgres::{Held, Postgres};
use crate::process::{Daemon, STEP_TIME_MAX, output};
pub use crate::served_model::{ServedModel, tiny_file};
use crate::served_model::{make_tiny, provide_model};
use crate::{free_port, program};

/// The authority keys of test networks, as the SRI examples print them. Never for real use.
pub const AUTHORITY_PUBLIC: &str = "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72";
/// The other half of [`AUTHORITY_PUBLIC`].
pub const AUTHORITY_SECRET: &str = "mkDLTBBRxdBv998612qipDYoTK3YUrqLe8uWw7gu3iXbSrn2n";
/// The pool's address. Regtest coins are worth nothing; nobody has this key.
pub const PAYOUT_ADDRESS: &str = "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw";
/// How long a daemon may take to start.
pub(crate) const START_TIME_MAX: Duration = Duration::from_secs(30);

/// The running parts. Dropping it stops them, the newest first.
pub struct Scenario {
    dir: PathBuf,
    postgres: Postgres,
    database: String,
    keep_database: bool,
    /// The model that everybody runs.
    pub model_id: String,
    /// The address of the agents' gRPC port.
    pub grpc: String,
    /// The address of the mining port.
    pub mining: String,
    /// The address of the declarator.
    pub declaration: String,
    /// Where firmware connects to the worker, and the authority key of that port.
    pub firmware: Option<(String, String)>,
    /// The worker's page, where it serves firmware.
    pub page: Option<String>,
    /// The key of the inference worker, which is its account.
    pub worker_key: Option<String>,
    /// The inference worker.
    pub worker: Option<Daemon>,
    /// The plain hasher.
    pub hasher: Option<Daemon>,
    /// The declarator.
    pub declarator: Daemon,
    /// The validator of its own.
    pub validator: Option<Daemon>,
    /// The pool.
    pub pool: Daemon,
    /// As [`Options::pool_settings`]: what the pool is started with again.
    pub pool_settings: &'static [(&'static str, &'static str)],
    /// The chain and the wallets that everything runs on.
    pub network: Network,
}

impl Scenario {
    /// Starts everything under `dir`, with a database of this name in `postgres`. `tell` hears of
    /// each part as it is ready.
    ///
    /// # Errors
    /// If a part does not start; what was started is stopped then.
    pub fn start(
        dir: &Path,
        postgres: &Postgres,
        database: &str,
        options: &Options,
        mut tell: impl FnMut(&str, &Value),
    ) -> anyhow::Result<Self> {
        let layout = Layout { dir };
        std::fs::create_dir_all(dir)?;
        let model_id = provide_model(options.model, &layout.file(MODEL_FILE))?;
        for seed in options.more_models {
            make_tiny(*seed, &layout.file(&tiny_file(*seed)))?;
        }
        let owner_url = postgres.fresh_database(database)?;
        postgres.make_daemons_role()?;
        let url = postgres.daemons_url(database);
        let network = match (&options.real, &options.core) {
            (Some(parts), _) => Network::real(&layout, parts, &mut tell)?,
            (None, Some(parts)) => Network::core(&layout, parts, options, &mut tell)?,
            (None, None) => Network::simulated(&layout, options, &mut tell)?,
        };
        let source_config = options.templates.clone();
        let source_config = source_config.unwrap_or_else(|| network.templates_config());
        let validator = options
            .validator
            .then(|| layout.start_validator())
            .transpose()?;
        let mut config = layout.pool_config(&url, &source_config, options);
        config.push_str(&network.onchain_config(options));
        if let Some((_, validators)) = &validator {
            config.push_str(validators);
        }
        let config = layout.write("pool.toml", &config)?;
        layout.migrate(&config, &owner_url)?;
        // It starts again on the same ports, which nobody may take meanwhile.
        let [mining, api] = [free_port()?, free_port()?].map(|port| format!("127.0.0.1:{port}"));
        let ports = [("MINING__LISTEN", &*mining), ("API__LISTEN", &*api)];
        let settings = [&ports, options.pool_settings].concat();
        let mut pool = layout.spawn_pool("pool", &config, &settings)?;
        let ready = pool.ready(START_TIME_MAX)?;
        tell("pool", &ready);
        let (mining, grpc) = (text(&ready, "mining")?, text(&ready, "grpc")?);
        let embedded = text(&ready, "declaration")?;

        let config = layout.write_declarator_config(&url, &source_config, options)?;
        let mut declarator = layout.spawn("declarator", "dovetail-jd", &["--config", &config])?;
        let ready = declarator.ready(START_TIME_MAX)?;
        tell("declarator", &ready);
        let declaration = match options.embedded_declarator {
            true => embedded,
            false => text(&ready, "declaration")?,
        };

        let mut scenario = Self {
            dir: dir.to_owned(),
            postgres: postgres.clone(),
            database: database.to_owned(),
            keep_database: false,
            model_id,
            grpc: format!("http://{grpc}"),
            mining,
            declaration,
            network,
            firmware: None,
            page: None,
            worker_key: None,
            worker: None,
            hasher: None,
            declarator,
            validator: validator.map(|(daemon, _)| daemon),
            pool,
            pool_settings: options.pool_settings,
        };
        if options.worker {
            scenario.start_worker(&source_config, options, &mut tell)?;
        }
        if options.hasher {
            scenario.start_hasher(&mut tell)?;
        }
        Ok(scenario)
    }

    fn start_worker(
        &mut self,
        source_config: &str,
        options: &Options,
        tell: &mut impl FnMut(&str, &Value),
    ) -> anyhow::Result<()> {
        let layout = self.layout();
        let config = layout.worker_config(self, source_config, options);
        let config = layout.write("worker.toml", &config)?;
        let arguments = ["run", "--config", &config];
        let mut worker = layout.spawn("worker", "dovetail-worker", &arguments)?;
        let ready = worker.ready(START_TIME_MAX)?;
        tell("worker", &ready);
        self.worker_key = Some(text(&ready, "worker")?);
        if options.firmware {
            let key = text(&ready, "authority_public_key")?;
            self.firmware = Some((text(&ready, "downstream")?, key));
            self.page = Some(text(&ready, "page")?);
        }
        self.worker = Some(worker);
        self.pool.event("worker_registered", START_TIME_MAX)?;
        // It is at work before its model is there.
        if options.fetch {
            self.wait_until_served()?;
        }
        Ok(())
    }

    /// Waits until the pool knows a worker that serves the first model.
    fn wait_until_served(&self) -> anyhow::Result<()> {
        let end = Instant::now() + START_TIME_MAX;
        loop {
            let models = output(self.agent().args(["models", "--json"]))?;
            let models: Value = serde_json::from_str(models.trim())?;
            if models[0]["workers"].as_u64() > Some(0) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "no worker serves the model");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the worker and starts it again, with what it has kept.
    ///
    /// # Errors
    /// If there is none, or it does not come back.
    pub fn restart_worker(&mut self) -> anyhow::Result<()> {
        let mut worker = self.worker.take().context("there is no worker")?;
        worker.stop();
        let layout = self.layout();
        let config = layout.file("worker.toml").to_string_lossy().into_owned();
        let arguments = ["run", "--config", &config];
        let mut worker = layout.spawn("worker-restarted", "dovetail-worker", &arguments)?;
        worker.ready(START_TIME_MAX)?;
        self.worker = Some(worker);
        self.pool.event("worker_registered", START_TIME_MAX)?;
        Ok(())
    }

    /// Stops the pool and starts it again on the same ports.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart_pool(&mut self) -> anyhow::Result<()> {
        self.pool.stop();
        let layout = self.layout();
        let config = layout.file("pool.toml").to_string_lossy().into_owned();
        let api = self.grpc.trim_start_matches("http://");
        let ports = [
            ("MINING__LISTEN", self.mining.as_str()),
            ("API__LISTEN", api),
        ];
        let settings = [&ports, self.pool_settings].concat();
        self.pool = layout.spawn_pool("pool-restarted", &config, &settings)?;
        self.pool.ready(START_TIME_MAX)?;
        Ok(())
    }

    /// Starts the template provider again on the same port, after it was killed. Its chain starts over too.
    ///
    /// # Errors
    /// If there is none, or it does not come back.
    pub fn restart_templates(&mut self) -> anyhow::Result<()> {
        self.network.restart_templates(&Layout { dir: &self.dir })
    }

    /// Starts the declarator again on the same port, after it was stopped or killed.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn restart_declarator(&mut self) -> anyhow::Result<()> {
        self.declarator.stop();
        let layout = self.layout();
        let config = layout.file("jd.toml").to_string_lossy().into_owned();
        let mut command = Command::new(program("dovetail-jd"));
        command
            .args(["--config", &config])
            .env("DOVETAIL_JD__DECLARATION__LISTEN", &self.declaration);
        let logs = self.dir.join("logs");
        self.declarator = Daemon::spawn("declarator-restarted", command, &logs)?;
        self.declarator.ready(START_TIME_MAX)?;
        Ok(())
    }

    /// What the worker's page says.
    ///
    /// # Errors
    /// If there is none, or it does not answer.
    pub fn worker_status(&self) -> anyhow::Result<Value> {
        let page = self.page.as_ref().context("the worker has no page")?;
        crate::process::status(page)
    }

    pub(crate) fn layout(&self) -> Layout<'_> {
        Layout { dir: &self.dir }
    }

    /// A file of this scenario.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// One statement on the ledger; see [`Postgres::query`].
    ///
    /// # Errors
    /// If the server refuses.
    pub fn query(&self, sql: &str) -> anyhow::Result<String> {
        self.postgres.query(&self.database, sql)
    }

    /// As [`Scenario::query`], once the query says this: what the pool has acknowledged comes into the ledger a little later.
    ///
    /// # Errors
    /// If it never says so.
    pub fn query_until(&self, sql: &str, wanted: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        loop {
            let said = self.query(sql)?;
            if said.trim() == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{sql} says {said:?} and not {wanted:?}:\n{}",
                    self.pool.log_tail()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until nothing has come into the ledger from the pool's log for half a second, five times what its writer waits
    /// for more. For tests in which nobody submits shares meanwhile.
    ///
    /// # Errors
    /// If Postgres does not answer, or shares go on coming.
    pub fn written(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        let (mut before, mut since) = (String::new(), Instant::now());
        while since.elapsed() < Duration::from_millis(500) {
            let position = self.query("SELECT sum(position) FROM share_logs")?;
            if position != before {
                (before, since) = (position, Instant::now());
            }
            if Instant::now() >= deadline {
                bail!("shares go on coming into the ledger");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Keeps a statement's locks on the ledger; see [`Postgres::hold`].
    ///
    /// # Errors
    /// If the server refuses.
    pub fn hold(&self, sql: &str) -> anyhow::Result<Held> {
        self.postgres.hold(&self.database, sql)
    }

    /// The URL of the ledger.
    pub fn ledger_url(&self) -> String {
        self.postgres.url(&self.database)
    }

    /// The agent's command line against this pool.
    pub fn agent(&self) -> Command {
        let mut command = Command::new(program("dovetail"));
        command.env("DOVETAIL_POOL", &self.grpc);
        command
    }

    /// Has an agent ask, wait for the receipt, check it and keep it in `receipt`, a file of this scenario; what it
    /// prints at the end.
    ///
    /// # Errors
    /// If the agent gets no answer or no receipt.
    pub fn ask(
        &self,
        prompt: &str,
        max_tokens: u32,
        receipt: &str,
        more: &[&str],
    ) -> anyhow::Result<Value> {
        let said = output(
            self.agent()
                .args(["ask", "--json", "--wait", "120"])
                .args(["--max-tokens", &max_tokens.to_string()])
                .args(["--pool-key", RECEIPT_PUBLIC, "--receipt"])
                .arg(self.file(receipt))
                .args(more)
                .args(["--", prompt]),
        )?;
        Ok(serde_json::from_str(said.trim())?)
    }

    /// Leaves everything running when this value is dropped.
    pub fn leave_running(&mut self) {
        self.keep_database = true;
        self.network
            .daemons()
            .into_iter()
            .for_each(Daemon::leave_running);
        self.pool.leave_running();
        self.declarator.leave_running();
        for daemon in [&mut self.worker, &mut self.hasher].into_iter().flatten() {
            daemon.leave_running();
        }
    }

    /// The process ids of all parts.
    pub fn process_ids(&mut self) -> Vec<u32> {
        let mut daemons = self.network.daemons();
        daemons.extend([&mut self.pool, &mut self.declarator]);
        daemons.extend([&mut self.worker, &mut self.hasher].into_iter().flatten());
        daemons.into_iter().map(|daemon| daemon.id()).collect()
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if self.keep_database {
            return;
        }
        for daemon in [&mut self.hasher, &mut self.worker].into_iter().flatten() {
            daemon.stop();
        }
        self.declarator.stop();
        self.pool.stop();
        self.network.stop();
        self.postgres.drop_database(&self.database);
    }
}

/// The model of a scenario, in its folder.
pub(crate) const MODEL_FILE: &str = "model.safetensors";

/// Where a worker that fetches its model keeps it.
pub(crate) const FETCHED: &str = "fetched";

/// Where a scenario's files lie.
pub(crate) struct Layout<'a> {
    pub(crate) dir: &'a Path,
}

impl Layout<'_> {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> anyhow::Result<String> {
        let path = self.file(name);
        std::fs::write(&path, content)
            .with_context(|| format!("cannot write {}", path.display()))?;
        // The keys of a scenario stand in it.
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(path.to_string_lossy().into_owned())
    }

    pub(crate) fn spawn(
        &self,
        name: &str,
        binary: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Daemon> {
        let mut command = Command::new(program(binary));
        command.args(arguments).current_dir(self.dir);
        Daemon::spawn(name, command, &self.dir.join("logs"))
    }

    fn spawn_pool(
        &self,
        name: &str,
        config: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Daemon> {
        let mut command = Command::new(program("dovetail-pool"));
        command.args(["--config", config]).current_dir(self.dir);
        let settings = settings.iter();
        command.envs(settings.map(|(key, value)| (format!("DOVETAIL_POOL__{key}"), value)));
        Daemon::spawn(name, command, &self.dir.join("logs"))
    }

    /// A validator, and what makes a pool use it.
    fn start_validator(&self) -> anyhow::Result<(Daemon, String)> {
        let arguments = [
            "validator",
            "--listen",
            "127.0.0.1:0",
            "--secret-file",
            "validators.key",
            "--model",
            MODEL_FILE,
        ];
        let mut validator = self.spawn("validator", "dovetail-pool", &arguments)?;
        let ready = validator.ready(START_TIME_MAX)?;
        let address = text(&ready, "validation")?;
        let secret = self.dir.join("validators.key");
        let lines = format!(
            "validators = [\"http://{address}\"]\nvalidators_secret = {{ file = {secret:?} }}\n"
        );
        Ok((validator, lines))
    }
}

/// The x-only public key of the test pools' receipt key.
pub const RECEIPT_PUBLIC: &str = "1b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f";

pub(crate) fn text(ready: &Value, key: &str) -> anyhow::Result<String> {
    ready[key]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the ready line names no {key}"))
}
