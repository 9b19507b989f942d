//! OpenAI's own packages for Python and Node.js against the real pool, with a model that other people trained. `cargo xtask test` gets the
//! packages and names their folders.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, ServedModel};
use dovetail_tests::{needed, program, root};

/// Runs a client of this folder against a pool of its own; the package's folder is in a variable of this name.
fn run(interpreter: &str, client: &str, variable: &str) {
    let package = needed(variable).unwrap();
    let options = Options {
        model: ServedModel::SmolLm2,
        ..Options::default()
    };
    let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let client = root().join("tests/tests/openai_clients").join(client);
    let said = output(
        Command::new(interpreter)
            .env("PYTHONPATH", package)
            .env("DOVETAIL", program("dovetail"))
            .env("DOVETAIL_POOL", &scenario.grpc)
            .current_dir(dir.path())
            .arg(client)
            .arg(&scenario.grpc),
    );
    println!("{}", said.unwrap());
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON, and SmolLM2"]
fn openai_s_package_for_python_is_answered_refused_and_given_a_receipt() {
    run("python3", "client.py", "DOVETAIL_OPENAI_PYTHON");
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_NODE, and SmolLM2"]
fn openai_s_package_for_node_is_answered_refused_and_cancels_what_it_aborts() {
    run("node", "client.mjs", "DOVETAIL_OPENAI_NODE");
}
