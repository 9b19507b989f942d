//! A private Postgres cluster: its own data folder, a Unix socket in a folder that only we can
//! enter, no network port. Starting one that runs is harmless.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, bail};

use crate::process::output;

/// What daemons of scenarios are to Postgres.
pub(crate) const DAEMONS_ROLE: &str = "dovetail_daemons";

/// A cluster that runs.
#[derive(Debug, Clone)]
pub struct Postgres {
    binaries: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    /// Postgres refuses to run as root; then it runs as this user.
    user: Option<&'static str>,
}

/// A transaction that is open until this is dropped, and then rolled back.
#[derive(Debug)]
pub struct Held {
    psql: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // At the end of its input psql hangs up.
        drop(self.stdin.take());
        let _ = self.psql.wait();
    }
}

impl Postgres {
    /// Starts the cluster whose files lie under `home`, and makes it first if it is new. Where the
    /// system's `postgres` user cannot reach `home`, the files lie under /var/tmp instead.
    ///
    /// # Errors
    /// If Postgres is not installed or does not start.
    pub fn start(home: &Path) -> anyhow::Result<Self> {
        let user = is_root()?.then_some("postgres");
        std::fs::create_dir_all(home)?;
        let home = reachable(home, user)?;
        let cluster = Self {
            binaries: binaries()?,
            data: home.join("data"),
            socket: home.join("socket"),
            user,
        };
        // Test programs that start at once take turns.
        let lock = std::fs::File::create(home.join("starting"))?;
        lock.lock()?;
        if !cluster.is_running() {
            cluster.own_folders()?;
            if !cluster.data.join("PG_VERSION").exists() {
                cluster.make()?;
            }
            cluster.launch()?;
        }
        Ok(cluster)
    }

    /// Makes the folders, and gives them to the server's user. Never while it runs: it would trip
    /// over the files that come and go there.
    fn own_folders(&self) -> anyhow::Result<()> {
        for folder in [&self.data, &self.socket] {
            std::fs::create_dir_all(folder)?;
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
            if let Some(user) = self.user {
                output(Command::new("chown").arg("-R").arg(user).arg(folder))?;
            }
        }
        Ok(())
    }

    fn make(&self) -> anyhow::Result<()> {
        output(
            self.command("initdb")
                .arg("--pgdata")
                .arg(&self.data)
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8"])
                .args(["--locale=C", "--no-sync", "--no-instructions"]),
        )?;
        Ok(())
    }

    fn launch(&self) -> anyhow::Result<()> {
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c unix_socket_permissions=0700 \
             -c max_connections=300 -c shared_buffers=64MB",
            self.socket.display()
        );
        output(
            self.command("pg_ctl")
                .args(["--wait", "--silent", "--pgdata"])
                .arg(&self.data)
                .arg("--log")
                .arg(self.data.join("server.log"))
                .arg(format!("--options={options}"))
                .arg("start"),
        )
        .context("Postgres did not start")?;
        Ok(())
    }

    fn is_running(&self) -> bool {
        output(
            self.command("pg_ctl")
                .arg("--pgdata")
                .arg(&self.data)
                .arg("status"),
        )
        .is_ok()
    }

    /// The server's process id.
    pub fn id(&self) -> Option<u32> {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Stops the cluster.
    pub fn stop(&self) {
        let stopped = output(
            self.command("pg_ctl")
                .args(["--wait", "--mode=fast", "--pgdata"])
                .arg(&self.data)
                .arg("stop"),
        );
        if let Err(error) = stopped {
            eprintln!("{error:#}");
        }
    }

    /// The URL of a database of this cluster.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost/{database}?host={}",
            self.socket.display()
        )
    }

    /// Makes an empty database; one of this name is dropped first.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn fresh_database(&self, database: &str) -> anyhow::Result<String> {
        self.query(
            "postgres",
            &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"),
        )?;
        self.query("postgres", &format!("CREATE DATABASE {database}"))?;
        Ok(self.url(database))
    }

    /// The URL of a database of this cluster for the role of daemons, which owns nothing.
    pub fn daemons_url(&self, database: &str) -> String {
        self.url(database)
            .replace("//postgres@", &format!("//{DAEMONS_ROLE}@"))
    }

    /// Makes the role of daemons, unless it is there.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn make_daemons_role(&self) -> anyhow::Result<()> {
        // Several scenarios may start at once.
        self.query(
            "postgres",
            &format!(
                "DO $$ BEGIN CREATE ROLE {DAEMONS_ROLE} LOGIN;
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
            ),
        )?;
        Ok(())
    }

    /// Drops a database.
    pub fn drop_database(&self, database: &str) {
        let _ = self.query(
            "postgres",
            &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"),
        );
    }

    /// Runs one statement through `psql`; returns its rows, columns separated by `|`.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn query(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let text = output(
            self.command("psql")
                .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
                .args(["--set=ON_ERROR_STOP=1", "--username=postgres", "--host"])
                .arg(&self.socket)
                .args(["--dbname", database, "--command", sql]),
        )?;
        Ok(text.trim().to_owned())
    }

    /// Runs one statement in a transaction of its own that stays open, with its locks, until the value
    /// returned is dropped.
    ///
    /// # Errors
    /// If the server refuses.
    pub fn hold(&self, database: &str, sql: &str) -> anyhow::Result<Held> {
        let mut psql = self
            .command("psql")
            .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--username=postgres", "--host"])
            .arg(&self.socket)
            .args(["--dbname", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start psql")?;
        let mut stdin = psql.stdin.take().context("psql has no input")?;
        let stdout = psql.stdout.take().context("psql has no output")?;
        writeln!(stdin, "BEGIN;\n{sql};\n\\echo held")?;
        let mut lines = BufReader::new(stdout).lines();
        loop {
            let line = lines.next().context("psql has ended")??;
            if line == "held" {
                break;
            }
        }
        Ok(Held {
            psql,
            stdin: Some(stdin),
        })
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = match self.user {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir("/");
        command
    }
}

fn is_root() -> anyhow::Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

/// `home`, or a folder for the same checkout that `user` can reach. Socket paths are short, too:
/// the system allows about 100 bytes.
fn reachable(home: &Path, user: Option<&str>) -> anyhow::Result<PathBuf> {
    let short = home.as_os_str().len() <= 70;
    let reached = user.is_none_or(|user| {
        let parent = home.parent().unwrap_or(home);
        output(
            Command::new("runuser")
                .args(["-u", user, "--", "test", "-x"])
                .arg(parent),
        )
        .is_ok()
    });
    if short && reached {
        return Ok(home.to_owned());
    }
    let name: String = home
        .to_string_lossy()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
        .to_be_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let elsewhere = PathBuf::from("/var/tmp").join(format!("dovetail-postgres-{name}"));
    std::fs::create_dir_all(&elsewhere)?;
    Ok(elsewhere)
}

/// Where the newest installed server's programs are.
fn binaries() -> anyhow::Result<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    let found = output(Command::new("pg_config").arg("--bindir"));
    match found {
        Ok(bin) if Path::new(bin.trim()).join("postgres").exists() => Ok(bin.trim().into()),
        _ => bail!("no Postgres server is installed (Debian: apt-get install postgresql)"),
    }
}
