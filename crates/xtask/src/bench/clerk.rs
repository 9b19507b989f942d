//! `cargo xtask bench clerk`: how often the small model is right.

use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use serde_json::Value;

use super::outside;
use super::report::{build_bench, report};
use crate::steps::Steps;

/// What is asked of which model.
#[derive(Debug, Args)]
pub(crate) struct ClerkArguments {
    /// The model file; the shipped one where it is not given.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Documents to answer.
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// The documents' seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Documents of the wide generator, which the shipped model has not learned.
    #[arg(long)]
    wide: bool,
    /// Papers that other people wrote too, fetched into the cache.
    #[arg(long)]
    outside: bool,
    /// Bind the answers to clerk's schema.
    #[arg(long)]
    schema: bool,
    /// End with one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the measurement.
pub(super) fn measure(arguments: &ClerkArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    let bench = steps.step("the bench", build_bench)?;
    let model = arguments.model.clone();
    let model = model.unwrap_or_else(dovetail_tests::clerk_model);
    let mut measured = steps.step("clerk's answers", || {
        report(
            Command::new(&bench)
                .arg("clerk")
                .arg("--model")
                .arg(&model)
                .args(["--count", &arguments.count.to_string()])
                .args(["--seed", &arguments.seed.to_string()])
                .args(arguments.wide.then_some("--wide"))
                .args(arguments.schema.then_some("--schema")),
        )
    })?;
    show(&measured);
    if arguments.outside {
        let papers = steps.step("papers of other people", || {
            outside::measure(&bench, &model, arguments.schema, &outside::papers()?)
        })?;
        measured["outside"] = papers;
    }
    if arguments.json {
        println!("{measured}");
    }
    Ok(())
}

fn show(report: &Value) {
    eprintln!(
        "\n{:<9} {:<12} {:>6} {:>6} {:>8}",
        "kind", "field", "right", "of", "%"
    );
    for row in report["fields"].as_array().into_iter().flatten() {
        eprintln!(
            "{:<9} {:<12} {:>6} {:>6} {:>8.2}",
            row["kind"].as_str().unwrap_or("-"),
            row["field"].as_str().unwrap_or("-"),
            row["right"],
            row["of"],
            row["percent"].as_f64().unwrap_or(f64::NAN),
        );
    }
    eprintln!(
        "{} of {} answers are right as a whole; {} tokens in {:.1} s",
        report["whole_right"],
        report["documents"],
        report["tokens_generated"],
        report["seconds"].as_f64().unwrap_or(f64::NAN),
    );
}
