//! OpenAI's own packages for Python and Node.js, and LangChain's for its API, against the real pool, with a model that other people
//! trained. `cargo xtask test` gets the packages and names their folders.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use dovetail_tests::process::output;
use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use dovetail_tests::{needed, program, root};
use tempfile::TempDir;

/// Strangers are not paid for.
const KEYS_ONLY: [(&str, &str); 2] = [
    ("INFERENCE__SUBSIDY__MSAT_PER_DAY", "0"),
    ("INFERENCE__SUBSIDY__MSAT_IN_ALL", "0"),
];

fn pool(pool_settings: &'static [(&'static str, &'static str)]) -> (TempDir, Scenario) {
    let options = Options {
        model: ServedModel::SmolLm2,
        pool_settings,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

/// Python or Node.js, with the package whose folder is in this variable, and `dovetail` for this pool.
fn interpreter(name: &str, variable: &str, scenario: &Scenario, dir: &Path) -> Command {
    let mut command = Command::new(name);
    command
        .env("PYTHONPATH", needed(variable).unwrap())
        .env("DOVETAIL", program("dovetail"))
        .env("DOVETAIL_POOL", &scenario.grpc)
        .current_dir(dir);
    command
}

/// Has one run a client of this folder against a pool.
fn client(name: &str, variable: &str, (dir, scenario): &(TempDir, Scenario)) -> Command {
    let run = match name.ends_with(".py") {
        true => "python3",
        false => "node",
    };
    let mut command = interpreter(run, variable, scenario, dir.path());
    let client = root().join("tests/tests/openai_clients").join(name);
    command.arg(client).arg(&scenario.grpc);
    command
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON, and SmolLM2"]
fn openai_s_package_for_python_is_answered_refused_and_given_a_receipt() {
    let pool = pool(&[]);
    let said = output(&mut client("client.py", "DOVETAIL_OPENAI_PYTHON", &pool));
    println!("{}", said.unwrap());
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_NODE, and SmolLM2"]
fn openai_s_package_for_node_is_answered_refused_and_cancels_what_it_aborts() {
    let pool = pool(&[]);
    let said = output(&mut client("client.mjs", "DOVETAIL_OPENAI_NODE", &pool));
    println!("{}", said.unwrap());
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_LANGCHAIN, and SmolLM2"]
fn langchain_is_answered_gets_objects_of_a_schema_is_refused_and_finds_its_receipt() {
    let pool = pool(&[]);
    let said = output(&mut client("langchain.py", "DOVETAIL_LANGCHAIN", &pool));
    println!("{}", said.unwrap());
}

#[test]
#[ignore = "needs the packages that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON and DOVETAIL_OPENAI_NODE, and SmolLM2"]
fn a_stream_whose_only_worker_is_killed_raises_worker_lost_in_openai_s_packages() {
    let mut pool = pool(&[]);
    for (name, package) in [
        ("lost.py", "DOVETAIL_OPENAI_PYTHON"),
        ("lost.mjs", "DOVETAIL_OPENAI_NODE"),
    ] {
        let mut client = client(name, package, &pool);
        let client = client.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(client.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        pool.1.worker.as_mut().unwrap().kill();
        let ended = client.wait_with_output().unwrap();
        assert!(ended.status.success() && line == "streaming\n", "{ended:?}");
        pool.1.restart_worker().unwrap();
    }
}

#[test]
#[ignore = "needs the packages that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON and DOVETAIL_OPENAI_NODE, and SmolLM2"]
fn openai_s_packages_give_up_on_a_used_up_key_and_wait_for_a_balance_that_is_held() {
    let pool = pool(&KEYS_ONLY);
    let key = |name: &str, budget| pool.1.new_key(name, budget).unwrap();
    let (used_up, busy) = (key("used-up", 24_000), key("busy", 400_000));
    let mut python = client("keys.py", "DOVETAIL_OPENAI_PYTHON", &pool);
    output(python.args([&used_up, &busy])).unwrap();
    let mut node = client("keys.mjs", "DOVETAIL_OPENAI_NODE", &pool);
    output(node.arg(&used_up)).unwrap();
}

#[test]
#[ignore = "needs the package that cargo xtask test puts into DOVETAIL_OPENAI_PYTHON, and SmolLM2"]
fn the_three_lines_that_readme_and_its_page_show_print_an_answer_and_that_its_receipt_holds() {
    let [readme, page] = ["README.md", "docs/openai.md"].map(|page| {
        let text = std::fs::read_to_string(root().join(page)).unwrap();
        let (_, lines) = text.split_once("```python\n").unwrap();
        lines.split_once("```").unwrap().0.to_owned()
    });
    assert_eq!(readme, page);
    assert_eq!(readme.lines().count(), 3);
    let (dir, scenario) = pool(&[]);
    let shown = "http://127.0.0.1:50051";
    assert_eq!(readme.matches(shown).count(), 1);
    let lines = readme.replace(shown, &scenario.grpc);
    let path = std::env::var("PATH").unwrap();
    let dovetail = program("dovetail");
    let path = format!("{}:{path}", dovetail.parent().unwrap().display());
    let mut python = interpreter("python3", "DOVETAIL_OPENAI_PYTHON", &scenario, dir.path());
    let said = output(python.env("PATH", path).args(["-c", &lines])).unwrap();
    assert!(said.contains("The capital of France is Paris."), "{said}");
    assert!(said.contains("The receipt holds."), "{said}");
}
