//! OpenClaw from npm, with a Node.js that is new enough for it, for the tests of the HTTP API.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use dovetail_tests::{cache, root};

use crate::setup;
use crate::steps::run;

/// npm compares each package with its hash in the second.
const WANTED: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder that it is installed in; none of its packages' install scripts is run.
pub(crate) fn installed() -> anyhow::Result<PathBuf> {
    let folder = cache().join("openclaw");
    let source = root().join("tests/tests/openclaw");
    let lock = std::fs::read(source.join("package-lock.json"))?;
    // The mark comes last: without it, a run that broke off begins again.
    let mark = folder.join("installed-lock.json");
    if std::fs::read(&mark).is_ok_and(|installed| installed == lock) {
        return Ok(folder);
    }
    setup::npm()?;
    std::fs::create_dir_all(&folder)?;
    for name in WANTED {
        std::fs::copy(source.join(name), folder.join(name))
            .with_context(|| format!("cannot copy {name}"))?;
    }
    eprintln!("installing OpenClaw from npm: about 850 MB, once");
    // Of the system's own Node.js, which may be older than OpenClaw takes, only npm is used.
    run(Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .args(["--loglevel", "error"])
        .current_dir(&folder))?;
    std::fs::write(&mark, lock).with_context(|| format!("cannot write {}", mark.display()))?;
    Ok(folder)
}
