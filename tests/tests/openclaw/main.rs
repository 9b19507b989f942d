//! OpenClaw, unmodified, on the real pool, with a model that other people trained. It is configured by the block of docs/openclaw.md,
//! and runs the commands of that page. `cargo xtask test --full` gets it and names its folder.

#![allow(clippy::unwrap_used)]

mod tap;

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dovetail_tests::scenario::{Options, Scenario, ServedModel};
use dovetail_tests::{needed, root};
use serde_json::Value;
use tap::Tap;

/// A system prompt of 2,000 tokens takes a busy machine of two cores more than the 30 seconds that workers and validators usually have.
const PATIENT: [(&str, &str); 3] = [
    ("INFERENCE__FIRST_TOKEN_S", "300"),
    ("INFERENCE__PROGRESS_S", "300"),
    ("AUDIT__TIMEOUT_S", "3600"),
];
/// What one answer of the page's model may cost at most: its `maxTokens`, 1,000 msat each.
const ANSWER_MSAT_MAX: i64 = 256_000;
const SETTLED: &str = "SELECT count(*) FROM tasks WHERE state = 'settled'";
/// A turn of an agent, with the time that OpenClaw takes to start on a busy machine.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(420);

/// What stands in a fence of this language on OpenClaw's page, the first that has this text.
fn of_page(language: &str, with: &str) -> String {
    let page = std::fs::read_to_string(root().join("docs/openclaw.md")).unwrap();
    let blocks = page.split("\n```").skip(1).step_by(2);
    let mut blocks = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    blocks
        .find(|block| block.contains(with))
        .unwrap()
        .to_owned()
}

/// The page's command that begins so.
fn command_of_page(begin: &str) -> String {
    let block = of_page("sh", begin);
    let line = block.lines().find(|line| line.starts_with(begin));
    line.unwrap().to_owned()
}

/// Somebody's OpenClaw: a home that has the page's configuration, and nothing of the machine's.
struct OpenClaw {
    home: tempfile::TempDir,
}

impl OpenClaw {
    fn with_key(secret: &str, pool: &str) -> Self {
        let mut config = of_page("json5", "providers");
        for (shown, real) in [("http://127.0.0.1:50051", pool), ("sk-...", secret)] {
            assert_eq!(
                config.matches(shown).count(),
                1,
                "the page's block has {shown}"
            );
            config = config.replace(shown, real);
        }
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".openclaw");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("openclaw.json"), config).unwrap();
        Self { home }
    }

    fn run(&self, command: &str) -> Output {
        let bin = needed("DOVETAIL_OPENCLAW")
            .unwrap()
            .join("node_modules/.bin");
        let home = self.home.path();
        let temporary = home.join("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        let seconds = COMMAND_TIME_MAX.as_secs().to_string();
        Command::new("/usr/bin/timeout")
            .args([&seconds, "sh", "-c", command])
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("HOME", home)
            .env("TMPDIR", temporary)
            // Nobody listens there: it is to talk to the pool alone.
            .env("HTTP_PROXY", "http://127.0.0.1:1")
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("NO_PROXY", "127.0.0.1")
            .current_dir(home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn text_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What an inference of OpenClaw's prints as its answer.
fn answer_of(output: &Output) -> String {
    let said: Value = serde_json::from_str(&text_of(output)).unwrap();
    said["outputs"][0]["text"].as_str().unwrap().to_owned()
}

fn pool() -> (tempfile::TempDir, Scenario) {
    let options = Options {
        model: ServedModel::SmolLm2,
        // Its time is the model's here.
        hasher: false,
        pool_settings: &PATIENT,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

#[test]
#[ignore = "needs OpenClaw, which cargo xtask test --full puts into DOVETAIL_OPENCLAW, and SmolLM2"]
fn openclaw_prints_what_the_pool_answered_and_has_an_agent_take_a_turn_as_its_page_says() {
    let (_dir, scenario) = pool();
    let tap = Tap::before(&scenario.grpc);
    let secret = scenario.new_key("openclaw", 1_000_000).unwrap();
    let openclaw = OpenClaw::with_key(&secret, &tap.url());

    let answer = answer_of(&openclaw.run(&command_of_page("openclaw infer ")));
    let [infer] = &tap.taken()[..] else {
        panic!("one question is one request");
    };
    assert_eq!(answer, infer.text.trim());

    // Its key has paid what the answer says that it cost.
    scenario.query_until(SETTLED, "1").unwrap();
    let standing = scenario.pool_says(&["keys", "list", "--json"]).unwrap();
    assert_eq!(standing["spent_msat"], infer.usage["cost_msat"]);

    let turn = text_of(&openclaw.run(&command_of_page("openclaw agent ")));
    let [agent] = &tap.taken()[..] else {
        panic!("one turn is one request: {turn}");
    };
    // Its whole system prompt got there; what it prints is the pool's.
    assert!(
        agent.usage["prompt_tokens"].as_u64() > Some(1_000),
        "{}",
        agent.usage
    );
    let first = agent.text.lines().find(|line| !line.trim().is_empty());
    assert!(
        turn.contains(first.unwrap().trim()),
        "{turn:?} of {:?}",
        agent.text
    );

    // The ledger has both tasks, at what the answers said.
    for taken in [infer, agent] {
        let task = &taken.task;
        let cost = &taken.usage["cost_msat"];
        let row = format!(
            "SELECT state IN ('finished', 'settled') AND price_msat = {cost} FROM tasks WHERE id = '\\x{task}'"
        );
        assert_eq!(scenario.query(&row).unwrap().trim(), "t");
    }
    // Of its own home alone, and of what it was told in it.
    assert!(openclaw.home.path().join(".openclaw/state").exists());
}

#[test]
#[ignore = "needs OpenClaw, which cargo xtask test --full puts into DOVETAIL_OPENCLAW, and SmolLM2"]
fn openclaw_says_so_after_one_request_when_its_key_is_used_up() {
    let (_dir, scenario) = pool();
    let tap = Tap::before(&scenario.grpc);
    let secret = scenario.new_key("poor", ANSWER_MSAT_MAX).unwrap();
    let openclaw = OpenClaw::with_key(&secret, &tap.url());
    let command = command_of_page("openclaw infer ");
    // The budget has room for one answer at its longest, and a little less after it.
    answer_of(&openclaw.run(&command));
    assert_eq!(tap.taken().len(), 1);
    // Until then its price is set aside, and another request is worth another try.
    scenario.query_until(SETTLED, "1").unwrap();
    let refused = openclaw.run(&command);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned()
        + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("402"), "{said}");
    assert!(!said.contains(&secret));
    let [refusal] = &tap.taken()[..] else {
        panic!("it asks again: {said}");
    };
    assert_eq!((refusal.status, &*refusal.text), (402, ""));
}
