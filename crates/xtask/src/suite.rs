//! `cargo xtask test`: everything that has to hold before a change lands.

use clap::Args;

use crate::steps::{Steps, cargo};
use crate::{programs, setup, tidy};

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
    let tested = tests(arguments, &mut steps, &postgres);
    postgres.stop();
    tested?;
    eprintln!("\nall steps passed in {:.0} s", steps.seconds());
    Ok(())
}

fn tests(
    arguments: &TestArguments,
    steps: &mut Steps,
    postgres: &dovetail_tests::postgres::Postgres,
) -> anyhow::Result<()> {
    steps.step("tests", || {
        crate::steps::run(
            cargo(&["test", "--workspace"])
                .env("DOVETAIL_TEST_DATABASE_URL", postgres.url("postgres")),
        )
    })?;
    if arguments.fast {
        eprintln!("\nleft out by --fast: Bitcoin Core and the SRI clients");
        return Ok(());
    }
    let core = steps.step("Bitcoin Core", programs::bitcoin_core)?;
    let sri = steps.step("SRI clients", programs::sri)?;
    steps.step("lints of the Lightning node", || {
        run_lightning(&["fmt", "--check"])?;
        run_lightning(&["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    let lightning_node = steps.step("Lightning node", programs::lightning_node)?;
    steps.step("tests of the Lightning node", || run_lightning(&["test"]))?;
    steps.step("the whole path on Bitcoin Core and LDK", || {
        crate::steps::run(
            cargo(&[
                "test",
                "--package",
                "dovetail-tests",
                "--test",
                "real",
                "--",
                "--ignored",
            ])
            .env("DOVETAIL_BITCOIN_NODE", &core.node)
            .env("DOVETAIL_BITCOIN_CLI", &core.cli)
            .env("DOVETAIL_LIGHTNING_NODE", &lightning_node),
        )
    })?;
    steps.step("tests on Bitcoin Core", || {
        crate::steps::run(
            cargo(&["test", "--package", "dovetail-templates", "--", "--ignored"])
                .env("DOVETAIL_BITCOIN_NODE", &core.node)
                .env("DOVETAIL_BITCOIN_CLI", &core.cli),
        )
    })?;
    steps.step("tests with the SRI clients", || {
        crate::steps::run(
            cargo(&[
                "test",
                "--package",
                "dovetail-tests",
                "--test",
                "sri_clients",
                "--",
                "--ignored",
            ])
            .env("DOVETAIL_MINING_DEVICE", &sri.mining_device)
            .env("DOVETAIL_TRANSLATOR", &sri.translator),
        )
    })
}

fn run_cargo(arguments: &[&str]) -> anyhow::Result<()> {
    crate::steps::run(&mut cargo(arguments))
}

fn run_lightning(arguments: &[&str]) -> anyhow::Result<()> {
    crate::steps::run(&mut programs::lightning_node_cargo(arguments))
}
