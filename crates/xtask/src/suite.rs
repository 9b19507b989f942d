//! `cargo xtask test`: everything that has to hold before a change lands.

use std::path::Path;

use clap::Args;

use crate::bench::outside;
use crate::steps::{Steps, cargo};
use crate::{chat_templates, demo, openai_clients, openclaw, programs, setup, tidy};

/// Which tests.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    /// Leave out what takes long builds of other projects' programs.
    #[arg(long)]
    fast: bool,
    /// Run OpenClaw against the pool too: it and its Node.js come from npm, 850 MB on disk, once, and a minute or two each time.
    #[arg(long, conflicts_with = "fast")]
    full: bool,
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
        eprintln!(
            "\nleft out by --fast: chat templates, SmolLM2, OpenAI's packages, LangChain, OpenClaw, Bitcoin Core and the SRI clients"
        );
        return Ok(());
    }
    models_of_others(steps, postgres)?;
    openclaw_on_a_pool(arguments.full, steps, postgres)?;
    on_other_peoples_programs(steps)
}

/// What needs the templates and the model that other people made, from npm and PyPI.
fn models_of_others(
    steps: &mut Steps,
    postgres: &dovetail_tests::postgres::Postgres,
) -> anyhow::Result<()> {
    let prompts = steps.step("chat templates of models in use", chat_templates::rendered)?;
    steps.step("chat templates beside jinja2", || {
        crate::steps::run(
            cargo(&[
                "test",
                "--workspace",
                "--test",
                "templates",
                "--",
                "--ignored",
            ])
            .env("DOVETAIL_CHAT_TEMPLATES", &prompts),
        )
    })?;
    steps.step("the whole path with SmolLM2", || {
        demo::check_smollm2(postgres)
    })?;
    // Behind the step that gets SmolLM2.
    let python = steps.step("OpenAI's package for Python", openai_clients::python)?;
    let node = steps.step("OpenAI's package for Node.js", openai_clients::node)?;
    let langchain = steps.step("LangChain's package", openai_clients::langchain)?;
    steps.step("the HTTP API with OpenAI's packages and LangChain", || {
        crate::steps::run(
            cargo(&["test", "--workspace", "--test", "openai_clients"])
                .args(["--", "--ignored"])
                .env("DOVETAIL_OPENAI_PYTHON", &python)
                .env("DOVETAIL_OPENAI_NODE", &node)
                .env("DOVETAIL_LANGCHAIN", &langchain)
                .env("DOVETAIL_TEST_DATABASE_URL", postgres.url("postgres")),
        )
    })?;
    steps.step("clerk on papers of other people, a figure", || {
        // Nobody should make the model fit these papers, so no figure of them fails; nor does a registry out of reach.
        let papers = match outside::papers() {
            Ok(papers) => papers,
            Err(error) => {
                eprintln!("not measured: {error:#}");
                return Ok(());
            }
        };
        let bench = dovetail_tests::program("dovetail-bench");
        outside::measure(&bench, &dovetail_tests::clerk_model(), false, &papers).map(drop)
    })
}

/// What needs OpenClaw, which is large: only where that was asked for.
fn openclaw_on_a_pool(
    is_wanted: bool,
    steps: &mut Steps,
    postgres: &dovetail_tests::postgres::Postgres,
) -> anyhow::Result<()> {
    if !is_wanted {
        eprintln!("\nleft out without --full: OpenClaw");
        return Ok(());
    }
    steps.step("OpenClaw on a pool", || {
        // A registry out of reach is no fault of the pool's; whatever happens behind it is.
        let openclaw = match openclaw::installed() {
            Ok(folder) => folder,
            Err(error) => {
                eprintln!("not tested, since OpenClaw cannot be had: {error:#}");
                return Ok(());
            }
        };
        crate::steps::run(
            cargo(&["test", "--workspace", "--test", "openclaw"])
                // One after the other: each has a model at work.
                .args(["--", "--ignored", "--test-threads", "1"])
                .env("DOVETAIL_OPENCLAW", openclaw)
                .env("DOVETAIL_TEST_DATABASE_URL", postgres.url("postgres")),
        )
    })
}

/// What needs Bitcoin Core, a Lightning node and the SRI clients.
fn on_other_peoples_programs(steps: &mut Steps) -> anyhow::Result<()> {
    let core = steps.step("Bitcoin Core", programs::bitcoin_core)?;
    let sri = steps.step("SRI clients", programs::sri)?;
    steps.step("lints of the Lightning node", || {
        run_lightning(&["fmt", "--check"])?;
        run_lightning(&["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    let lightning_node = steps.step("Lightning node", programs::lightning_node)?;
    steps.step("tests of the Lightning node", || run_lightning(&["test"]))?;
    // Of the whole workspace: of one package, its dependencies would be built again with fewer features.
    let mut ignored = |what: &str, target: &[&str], more: &[(&str, &Path)]| {
        steps.step(what, || {
            let mut command = cargo(&["test", "--workspace"]);
            command
                .args(target)
                .args(["--", "--ignored"])
                .env("DOVETAIL_BITCOIN_NODE", &core.node)
                .env("DOVETAIL_BITCOIN_CLI", &core.cli)
                .env("DOVETAIL_MINING_DEVICE", &sri.mining_device)
                .envs(more.iter().copied());
            crate::steps::run(&mut command)
        })
    };
    ignored(
        "the whole path on Bitcoin Core and LDK",
        &["--test", "bitcoin_core_and_ldk"],
        &[("DOVETAIL_LIGHTNING_NODE", &lightning_node)],
    )?;
    ignored(
        "the wallet's contract on LDK",
        &["--test", "wallet_contract"],
        &[("DOVETAIL_LIGHTNING_NODE", &lightning_node)],
    )?;
    ignored("tests on Bitcoin Core", &["--lib"], &[])?;
    ignored(
        "declared blocks on Bitcoin Core",
        &["--test", "declared_blocks"],
        &[],
    )?;
    ignored(
        "found blocks on Bitcoin Core",
        &["--test", "found_blocks", "--test", "block_sinks"],
        &[],
    )?;
    ignored(
        "rewards of blocks on Bitcoin Core",
        &["--test", "block_rewards", "--test", "coinbase_payouts"],
        &[],
    )?;
    ignored(
        "payouts on the chain of Bitcoin Core",
        &["--test", "onchain_payouts"],
        &[],
    )?;
    ignored(
        "worker templates on Bitcoin Core",
        &["--test", "worker_templates"],
        &[],
    )?;
    ignored("cheats on Bitcoin Core", &["--test", "cheats"], &[])?;
    ignored(
        "tests with the SRI clients",
        &["--test", "sri_clients"],
        &[("DOVETAIL_TRANSLATOR", &sri.translator)],
    )?;
    ignored(
        "tests with the SRI job declarator client",
        &["--test", "sri_jd_client"],
        &[("DOVETAIL_JD_CLIENT", &sri.jd_client)],
    )
}

fn run_cargo(arguments: &[&str]) -> anyhow::Result<()> {
    crate::steps::run(&mut cargo(arguments))
}

fn run_lightning(arguments: &[&str]) -> anyhow::Result<()> {
    crate::steps::run(&mut programs::lightning_node_cargo(arguments))
}
