//! A daemon as a child process: its log goes to a file, its standard output is read line by line
//! as JSON, and it never outlives the value that stands for it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

/// How long a daemon may take to stop before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a step of another program may take.
pub(crate) const STEP_TIME_MAX: Duration = Duration::from_secs(60);
/// How often waits look at [`interrupt`].
const POLL: Duration = Duration::from_millis(100);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this harness end with an error, so that what was started is stopped.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A running daemon.
pub struct Daemon {
    name: String,
    child: Child,
    lines: Receiver<Value>,
    log: PathBuf,
    leave: bool,
    muted: Arc<AtomicBool>,
}

impl Daemon {
    /// Starts `command`. Its standard error goes to `<logs>/<name>.log`.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn spawn(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(logs)?;
        let log = logs.join(format!("{name}.log"));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            // A group of its own: Ctrl-C reaches us alone, and we stop it in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = channel();
        let muted = Arc::new(AtomicBool::new(false));
        let is_muted = Arc::clone(&muted);
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            while !is_muted.load(Ordering::Relaxed) {
                line.clear();
                if !matches!(stdout.read_line(&mut line), Ok(1..)) {
                    return;
                }
                if let Ok(value) = serde_json::from_str(&line)
                    && sender.send(value).is_err()
                {
                    return;
                }
            }
            // It must not stand still because nobody reads what it says.
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            log,
            leave: false,
            muted,
        })
    }

    /// From now on nobody wants its lines: they are read and dropped, which costs next to nothing.
    pub fn mute(&self) {
        self.muted.store(true, Ordering::Relaxed);
    }

    /// Waits for the ready line and returns it.
    ///
    /// # Errors
    /// If the daemon ends or says nothing in time; the error shows the end of its log.
    pub fn ready(&mut self, time_max: Duration) -> anyhow::Result<Value> {
        self.wait_for(time_max, "its ready line", |line| line["ready"] == true)
    }

    /// Waits for an event of this name and returns it; events before it are dropped.
    ///
    /// # Errors
    /// As [`Daemon::ready`].
    pub fn event(&mut self, name: &str, time_max: Duration) -> anyhow::Result<Value> {
        self.wait_for(time_max, name, |line| line["event"] == name)
    }

    /// Waits for a line that `wanted` accepts.
    ///
    /// # Errors
    /// As [`Daemon::ready`].
    pub fn wait_for(
        &mut self,
        time_max: Duration,
        what: &str,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let deadline = Instant::now() + time_max;
        loop {
            if let Some(line) = self.next_line(POLL)? {
                if wanted(&line) {
                    return Ok(line);
                }
            } else if Instant::now() >= deadline {
                bail!(
                    "{} did not give {what} within {} s; the end of {}:\n{}",
                    self.name,
                    time_max.as_secs(),
                    self.log.display(),
                    self.log_tail()
                );
            }
        }
    }

    /// The next line, or `None` if none comes within `time_max`.
    ///
    /// # Errors
    /// If the daemon has ended, or the harness was interrupted.
    pub fn next_line(&mut self, time_max: Duration) -> anyhow::Result<Option<Value>> {
        if interrupted() {
            bail!("interrupted");
        }
        match self.lines.recv_timeout(time_max) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!(
                "{} has ended; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            ),
        }
    }

    /// The last lines of the log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// The whole log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Leaves the daemon running when this value is dropped.
    pub fn leave_running(&mut self) {
        self.leave = true;
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Stops it: politely, then not.
    pub fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        signal(self.child.id(), "TERM");
        let deadline = Instant::now() + STOP_TIME_MAX;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.leave {
            self.stop();
        }
    }
}

/// Waits for a condition; fails if it takes longer than a step may.
pub(crate) fn wait(what: &str, done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    wait_at_most(STEP_TIME_MAX, what, done)
}

/// Waits for a condition.
///
/// # Errors
/// If it takes longer than this, or the user has interrupted.
pub fn wait_at_most(
    time_max: Duration,
    what: &str,
    mut done: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + time_max;
    while !done()? {
        if interrupted() {
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            bail!("waited {} s for {what}", time_max.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Sends a signal through the shell, which has `kill` built in everywhere.
fn signal(pid: u32, name: &str) {
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .stderr(Stdio::null())
        .status();
}

/// What a worker's page says, as JSON.
///
/// # Errors
/// If there is none at this address.
pub fn status(page: &str) -> anyhow::Result<Value> {
    let mut stream = TcpStream::connect(page).context("cannot reach the page")?;
    let request = format!("GET /status.json HTTP/1.1\r\nHost: {page}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(serde_json::from_str(body)?),
        _ => bail!("the page answered {answer}"),
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails; the error shows what it wrote.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {program}"))?;
    if !done.status.success() {
        bail!(
            "{program} failed ({}):\n{}{}",
            done.status,
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
