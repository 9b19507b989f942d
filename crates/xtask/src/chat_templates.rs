//! Chat templates of models in use, from a package of npm, and what jinja2 from PyPI makes of them: the tests of `crates/models`
//! compare with that. Nothing of it lies in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use dovetail_tests::process::output;
use dovetail_tests::{cache, root};

use crate::setup;
use crate::steps::run;

const PACKAGE: &str = "@huggingface/ollama-utils@0.0.18";
const ARCHIVE: &str = "huggingface-ollama-utils-0.0.18.tgz";
const PYTHON_PACKAGES: [&str; 2] = ["jinja2==3.1.6", "markupsafe==3.0.3"];

/// Gets what is missing into the cache, has Python render, and returns the file with the prompts.
pub(crate) fn rendered() -> anyhow::Result<PathBuf> {
    let folder = cache().join("chat-templates");
    std::fs::create_dir_all(&folder)?;
    let package = templates(&folder)?;
    let python = jinja2(&folder)?;
    let script = root()
        .join("crates")
        .join("models")
        .join("tests")
        .join("golden")
        .join("templates.py");
    let prompts = output(
        Command::new("python3")
            .env("PYTHONPATH", python)
            .arg(script)
            .arg(package),
    )?;
    let file = folder.join("prompts.json");
    std::fs::write(&file, prompts).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The package's folder. It is data here: nothing of it is run.
fn templates(folder: &Path) -> anyhow::Result<PathBuf> {
    let package = folder.join("package");
    if !folder.join(ARCHIVE).exists() {
        setup::npm()?;
        // The archive comes last: without it, a run that broke off begins again.
        let work = tempfile::tempdir_in(folder)?;
        run(Command::new("npm")
            .args(["pack", "--silent", PACKAGE])
            .current_dir(&work))?;
        run(Command::new("tar")
            .arg("-xzf")
            .arg(work.path().join(ARCHIVE))
            .arg("-C")
            .arg(folder))?;
        std::fs::rename(work.path().join(ARCHIVE), folder.join(ARCHIVE))?;
    }
    Ok(package)
}

/// The folder that Python finds jinja2 in.
fn jinja2(folder: &Path) -> anyhow::Result<PathBuf> {
    let python = folder.join("python");
    let is_there = |python: &Path| {
        let mut import = Command::new("python3");
        import
            .env("PYTHONPATH", python)
            .args(["-c", "import jinja2"]);
        output(&mut import).is_ok()
    };
    if !is_there(&python) {
        setup::pip()?;
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            .arg("--target")
            .arg(&python)
            .args(PYTHON_PACKAGES))?;
    }
    Ok(python)
}
