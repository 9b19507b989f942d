//! Chat templates of models in use, from a package of npm, and what jinja2 from PyPI makes of them: the tests of `crates/models`
//! compare with that. Nothing of it lies in the repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use dovetail_tests::process::output;
use dovetail_tests::{cache, root};

use crate::registries::{NpmPackage, wheels};

/// It is data here: nothing of it is run.
const TEMPLATES: NpmPackage = NpmPackage {
    name: "@huggingface/ollama-utils@0.0.18",
    archive: "huggingface-ollama-utils-0.0.18.tgz",
    sha256: "3d8beba35ea5d634970e29090ab45234e54a3db8d9263cf72e0031c1cc44f8d5",
};
/// Ends well where Python finds what is wanted; a system's own jinja2 may be another one.
const IMPORT: &str = "import jinja2; assert jinja2.__version__ == '3.1.6'";

/// Gets what is missing into the cache, has Python render, and returns the file with the prompts.
pub(crate) fn rendered() -> anyhow::Result<PathBuf> {
    let folder = cache().join("chat-templates");
    let golden = root()
        .join("crates")
        .join("models")
        .join("tests")
        .join("golden");
    // First: Python is what looks at the package.
    let python = folder.join("python");
    wheels(&python, &golden.join("requirements.txt"), IMPORT)?;
    let package = TEMPLATES.unpacked(&folder)?;
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
