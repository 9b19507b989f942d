//! Packages of npm and PyPI that tests use, in the cache. Each is known by its hash; nothing of them lies in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use dovetail_tests::process::output;

use crate::setup;
use crate::steps::run;

/// Prints the SHA-256 of a file.
const DIGEST: &str =
    "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";

/// A package of npm without dependencies.
pub(crate) struct NpmPackage {
    /// With its version.
    pub(crate) name: &'static str,
    pub(crate) archive: &'static str,
    pub(crate) sha256: &'static str,
}

impl NpmPackage {
    /// Its folder, beneath this one; the archive is fetched unless it is there.
    pub(crate) fn unpacked(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        if !folder.join(self.archive).exists() {
            setup::npm()?;
            // The archive comes last: without it, a run that broke off begins again.
            let work = tempfile::tempdir_in(folder)?;
            run(Command::new("npm")
                .args(["pack", "--silent", self.name])
                .current_dir(&work))?;
            let archive = work.path().join(self.archive);
            let digest = output(Command::new("python3").args(["-c", DIGEST]).arg(&archive))?;
            ensure!(
                digest.trim() == self.sha256,
                "{} of npm is not the package that is known here; nothing of it is used",
                self.name
            );
            run(Command::new("tar")
                .arg("-xzf")
                .arg(&archive)
                .arg("-C")
                .arg(folder))?;
            std::fs::rename(&archive, folder.join(self.archive))?;
        }
        Ok(folder.join("package"))
    }
}

/// Has Python find the wheels that this file wants, by their hashes, in a folder. `import` is a program that ends well where they
/// are there; its argument is the file.
pub(crate) fn wheels(folder: &Path, wanted: &Path, import: &str) -> anyhow::Result<()> {
    let mut check = Command::new("python3");
    check
        .env("PYTHONPATH", folder)
        .args(["-c", import])
        .arg(wanted);
    if output(&mut check).is_ok() {
        return Ok(());
    }
    setup::pip()?;
    std::fs::create_dir_all(folder)?;
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:"])
        .arg("--target")
        .arg(folder)
        .args(["--require-hashes", "--requirement"])
        .arg(wanted))
}
