//! OpenAI's own package for Python against the real pool, with a model that other people trained. `cargo xtask test` installs the package and
//! names its folder.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, ServedModel};
use dovetail_tests::{needed, program, root};

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON, and SmolLM2"]
fn openai_s_package_for_python_is_answered_refused_and_given_a_receipt() {
    let packages = needed("DOVETAIL_OPENAI_PYTHON").unwrap();
    let options = Options {
        model: ServedModel::SmolLm2,
        ..Options::default()
    };
    let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
    let script = root().join("tests/tests/openai_clients/client.py");
    let said = output(
        Command::new("python3")
            .env("PYTHONPATH", packages)
            .env("DOVETAIL", program("dovetail"))
            .env("DOVETAIL_POOL", &scenario.grpc)
            .current_dir(dir.path())
            .arg(script)
            .arg(&scenario.grpc),
    );
    println!("{}", said.unwrap());
}
