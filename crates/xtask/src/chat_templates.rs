//! Chat templates of models in use, from a package of npm, and what jinja2 from PyPI makes of them: the tests of `crates/models`
//! compare with that. Nothing of it lies in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use dovetail_tests::process::output;
use dovetail_tests::{cache, root};

use crate::setup;
use crate::steps::run;

const PACKAGE: &str = "@huggingface/ollama-utils@0.0.18";
const ARCHIVE: &str = "huggingface-ollama-utils-0.0.18.tgz";
const SHA256: &str = "3d8beba35ea5d634970e29090ab45234e54a3db8d9263cf72e0031c1cc44f8d5";
/// Ends well where Python finds what is wanted; a system's own jinja2 may be another one.
const IMPORT: &str = "import jinja2; assert jinja2.__version__ == '3.1.6'";
/// Prints the SHA-256 of a file.
const DIGEST: &str =
    "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";

/// Gets what is missing into the cache, has Python render, and returns the file with the prompts.
pub(crate) fn rendered() -> anyhow::Result<PathBuf> {
    let folder = cache().join("chat-templates");
    std::fs::create_dir_all(&folder)?;
    let golden = root()
        .join("crates")
        .join("models")
        .join("tests")
        .join("golden");
    // First: Python is what looks at the package.
    let python = jinja2(&folder, &golden.join("requirements.txt"))?;
    let package = templates(&folder)?;
    let prompts = output(
        Command::new("python3")
            .env("PYTHONPATH", python)
            .arg(golden.join("templates.py"))
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
        let archive = work.path().join(ARCHIVE);
        let digest = output(Command::new("python3").args(["-c", DIGEST]).arg(&archive))?;
        ensure!(
            digest.trim() == SHA256,
            "{PACKAGE} of npm is not the package that is known here; nothing of it is used"
        );
        run(Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(folder))?;
        std::fs::rename(&archive, folder.join(ARCHIVE))?;
    }
    Ok(package)
}

/// The folder that Python finds jinja2 in, which holds what is wanted, by its hashes.
fn jinja2(folder: &Path, wanted: &Path) -> anyhow::Result<PathBuf> {
    let python = folder.join("python");
    let is_there = |python: &Path| {
        let mut import = Command::new("python3");
        import.env("PYTHONPATH", python).args(["-c", IMPORT]);
        output(&mut import).is_ok()
    };
    if !is_there(&python) {
        setup::pip()?;
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"])
            .args(["--disable-pip-version-check", "--only-binary", ":all:"])
            .arg("--target")
            .arg(&python)
            .args(["--require-hashes", "--requirement"])
            .arg(wanted))?;
    }
    Ok(python)
}
