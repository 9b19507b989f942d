//! Rules that no compiler checks: files stay short enough to read.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use dovetail_tests::process::output;

/// A source file has at most this many lines. Exceptions stand in `LONG`, each with its reason.
const LINES_MAX: usize = 500;
/// Longer files.
const LONG: &[(&str, &str)] = &[
    (
        "crates/api/src/generated/dovetail.inference.v1.rs",
        "generated from the protobuf files",
    ),
    (
        "crates/api/src/generated/dovetail.models.v1.rs",
        "generated from the protobuf files",
    ),
    (
        "crates/api/src/generated/dovetail.validation.v1.rs",
        "generated from the protobuf files",
    ),
];

/// Checks every Rust file that git knows.
pub(crate) fn check() -> anyhow::Result<()> {
    let root = dovetail_tests::root();
    let listed = output(Command::new("git").current_dir(&root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*.rs",
    ]))?;
    let long: Vec<String> = listed
        .lines()
        .map(PathBuf::from)
        .filter(|path| !LONG.iter().any(|(known, _)| Path::new(known) == path))
        .filter_map(|path| {
            let lines = std::fs::read_to_string(root.join(&path))
                .ok()?
                .lines()
                .count();
            (lines > LINES_MAX).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    if !long.is_empty() {
        bail!(
            "split these files, or list them with a reason in tidy.rs:\n{}",
            long.join("\n")
        );
    }
    eprintln!("{} files are short enough", listed.lines().count());
    Ok(())
}
