//! `cargo xtask test`: everything that has to hold before a change lands.

use clap::Args;

use crate::steps::{Steps, cargo};
use crate::{setup, tidy};

/// Which tests.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Leave out what takes long builds of other projects' programs.
    #[arg(long)]
    fast: bool,
}

/// Runs the suite; stops at the first step that fails.
pub(crate) fn run(arguments: &TestArguments) -> anyhow::Result<()> {
    let mut steps = Steps::new();
    steps.step("packages", setup::packages)?;
    steps.step("formatting", || run_cargo(&["fmt", "--all", "--check"]))?;
    steps.step("tidy", tidy::check)?;
    steps.step("lints", || {
        run_cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    steps.step("programs", || {
        run_cargo(&["build", "--workspace", "--bins"])
    })?;
    let postgres = steps.step("Postgres", setup::postgres)?;
    let tests = steps.step("tests", || {
        let mut command = cargo(&["test", "--workspace"]);
        command.env("DOVETAIL_TEST_DATABASE_URL", postgres.url("postgres"));
        if arguments.fast {
            command.env("DOVETAIL_TEST_FAST", "1");
        }
        crate::steps::run(&mut command)
    });
    postgres.stop();
    tests?;
    eprintln!("\nall steps passed in {:.0} s", steps.seconds());
    Ok(())
}

fn run_cargo(arguments: &[&str]) -> anyhow::Result<()> {
    crate::steps::run(&mut cargo(arguments))
}
