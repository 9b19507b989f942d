//! Running commands as numbered steps with their time.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use dovetail_tests::process::interrupted;

/// Counts and times steps.
pub(crate) struct Steps {
    started: Instant,
    done: usize,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            done: 0,
        }
    }

    /// Runs `work` as the next step.
    pub(crate) fn step<T>(
        &mut self,
        what: &str,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if interrupted() {
            bail!("interrupted");
        }
        self.done += 1;
        eprintln!("\n[{}] {what}", self.done);
        let begun = Instant::now();
        let result = work().with_context(|| format!("step {}, {what}", self.done))?;
        eprintln!(
            "[{}] done in {:.1} s",
            self.done,
            begun.elapsed().as_secs_f64()
        );
        Ok(result)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// Runs a command with its output shown; fails if it does. Standard output goes to standard error,
/// so that what a command of ours prints last stays last.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed: {status}");
    }
    Ok(())
}

/// `cargo` in the checkout.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(dovetail_tests::root());
    // What cargo sets for us is not meant for the cargo that we start.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}
