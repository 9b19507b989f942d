//! OpenAI's package for Python, from PyPI, for the tests of the HTTP API. Nothing of it lies in the repository.

use std::path::PathBuf;
use std::process::Command;

use dovetail_tests::process::output;
use dovetail_tests::{cache, root};

use crate::setup;
use crate::steps::run;

/// Ends well where Python finds what is wanted.
const IMPORT: &str =
    "import sys, openai; assert 'openai==' + openai.__version__ + ' ' in open(sys.argv[1]).read()";

/// The folder that Python finds the package in, which holds what is wanted, by its hashes.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    let folder = cache().join("openai-python");
    let wanted = root().join("tests/tests/openai_clients/requirements.txt");
    let mut import = Command::new("python3");
    import
        .env("PYTHONPATH", &folder)
        .args(["-c", IMPORT])
        .arg(&wanted);
    if output(&mut import).is_ok() {
        return Ok(folder);
    }
    setup::pip()?;
    std::fs::create_dir_all(&folder)?;
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:"])
        .arg("--target")
        .arg(&folder)
        .args(["--require-hashes", "--requirement"])
        .arg(&wanted))?;
    Ok(folder)
}
