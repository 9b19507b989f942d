//! Answers that are computed again on the agent's machine: an honest one comes out the same, and each lie that a pool could
//! sign is named.

#![allow(clippy::unwrap_used)]

mod synthetic;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use dovetail_agent::receipt_file::{Kept, Prompt};
use dovetail_agent::verify::{Check, Known, Outcome, Report, verify_with};
use dovetail_agent::{Question, ReceiptFile, ReplayOutcome, Replayer, StopSequences};
use dovetail_commitment::receipt::Receipt;
use dovetail_commitment::{
    Constraint, EncodedPrompt, FinishReason, Form, SamplingParams, Transcript, WorkerKey,
    output_digest, prompt_commitment, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Model, Request, Runtime, run, tiny};
use serde_json::Value;
use synthetic::{parts, pool, pool_key};
use tempfile::TempDir;

/// The answers' length.
const TOKENS: usize = 40;

/// Tiny models in a folder, one of which can be computed with.
struct Fixture {
    folder: TempDir,
    replayer: Replayer,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for seed in [1, 2] {
            std::fs::write(path_of(&folder, seed), tiny::generate(seed)).unwrap();
        }
        Self {
            replayer: Replayer::load(&path_of(&folder, 1), 1).unwrap(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn report(&self, answered: &Answered) -> Report {
        let known = Known {
            pool_key: Some(pool_key()),
            replayer: Some(&self.replayer),
            ..Known::default()
        };
        verify_with(&Kept::File(Box::new(answered.file())), &known)
    }

    /// What the command says, of a file that it reads.
    fn command(&self, file: &ReceiptFile, model: u64, more: &[&str]) -> Output {
        let path = self.path("receipt.json");
        file.save(&path).unwrap();
        self.verify(&path, model, more)
    }

    fn verify(&self, path: &Path, model: u64, more: &[&str]) -> Output {
        std::process::Command::new(env!("CARGO_BIN_EXE_dovetail"))
            .args(["receipt", "verify", "--replay", "--model"])
            .arg(path_of(&self.folder, model))
            .arg(path)
            .args(["--pool-key", &hex::encode(pool_key())])
            .args(more)
            .output()
            .unwrap()
    }
}

fn path_of(folder: &TempDir, seed: u64) -> PathBuf {
    folder.path().join(format!("{seed}.safetensors"))
}

fn model(seed: u64) -> Arc<Model> {
    Arc::new(Model::from_bytes(&tiny::generate(seed)).unwrap())
}

/// A question, and what a worker committed to and handed in.
#[derive(Clone)]
struct Answered {
    question: Question,
    prompt: EncodedPrompt,
    transcript: Transcript,
    tokens: Vec<u32>,
}

fn question(model: &Model) -> Question {
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: 40,
    };
    let mut question = Question::new(model.id(), b"an invoice".to_vec(), sampling);
    question.seed = [0; 32];
    question.seed[31] = 0x2a;
    question
}

/// The answer of an honest worker.
fn honest(model: &Arc<Model>) -> Answered {
    answered(model, question(model))
}

fn answered(model: &Arc<Model>, question: Question) -> Answered {
    let tokens = model.encode(&question.prompt).unwrap();
    let request = Request {
        prompt_tokens: tokens.clone(),
        sampling: question.sampling,
        seed: question.seed,
        stop: question.stop.clone(),
        constraint: question.constraint.clone(),
    };
    let output = run(&Runtime::new(1).unwrap(), model, request).unwrap();
    let prompt = EncodedPrompt::new(&question.prompt, tokens).unwrap();
    let mut answered = Answered {
        transcript: Transcript {
            task_id: question.task_id,
            worker_key: WorkerKey::from_bytes([2; 32]),
            model_id: model.id(),
            engine_version: ENGINE_VERSION,
            prompt_commitment: commitment(&question, &prompt),
            sampling: question.sampling,
            seed: question.seed,
            output_tokens: 0,
            output_digest: [0; 32],
            trace_root: trace_root(&output.trace),
            finish_reason: output.finish_reason,
        },
        question,
        prompt,
        tokens: Vec::new(),
    };
    answered.say(output.tokens);
    answered
}

fn commitment(
    question: &Question,
    prompt: &EncodedPrompt,
) -> dovetail_commitment::PromptCommitment {
    let constraint = question.constraint.as_ref();
    prompt_commitment(&question.salt, &question.stop, constraint, prompt)
}

impl Answered {
    /// Other tokens, that the transcript commits to.
    fn say(&mut self, tokens: Vec<u32>) {
        self.transcript.output_tokens = u32::try_from(tokens.len()).unwrap();
        self.transcript.output_digest = output_digest(&tokens);
        self.tokens = tokens;
    }

    /// What the agent keeps, with a receipt that the pool has signed: nothing of a lie is seen without the model.
    fn file(&self) -> ReceiptFile {
        let mut file = ReceiptFile::pending(&self.question, &self.prompt, self.tokens.clone());
        let input_tokens = u32::try_from(self.prompt.tokens().len()).unwrap();
        let parts = parts(self.transcript.clone(), input_tokens);
        file.receipt = Some(Receipt::sign(parts, &pool()));
        file
    }
}

fn outcome(report: &Report) -> ReplayOutcome {
    report.replay.as_ref().unwrap().outcome
}

fn line(report: &Report, wanted: Check) -> &Outcome {
    let mut lines = report.lines.iter();
    &lines.find(|line| line.check == wanted).unwrap().outcome
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_honest_answer_comes_out_the_same_and_is_said_to() {
    let fixture = Fixture::new();
    let answered = honest(&model(1));
    assert_eq!(answered.tokens.len(), TOKENS);
    let report = fixture.report(&answered);
    assert!(report.verified && report.is_replayed(), "{report:?}");
    let all_hold = report
        .lines
        .iter()
        .all(|line| line.outcome == Outcome::Holds);
    assert!(all_hold, "{report:?}");

    let said = fixture.command(&answered.file(), 1, &[]);
    assert!(said.status.success(), "{said:?}");
    let id = answered.question.model_id.to_string();
    let sentence = format!(
        "These {TOKENS} tokens are what model {} gives for your prompt, at seed 2a",
        &id[..16]
    );
    assert!(text(&said.stdout).contains(&sentence), "{said:?}");

    let said = fixture.command(&answered.file(), 1, &["--json"]);
    let json: Value = serde_json::from_slice(&said.stdout).unwrap();
    let replay = &json["replay"];
    assert_eq!(json["verified"], true);
    assert_eq!(
        (&replay["result"], &replay["model_id"]),
        (&"same".into(), &id.into())
    );
    assert_eq!(
        (&replay["input_tokens"], &replay["output_tokens"]),
        (&11.into(), &TOKENS.into())
    );
    assert!(replay["sentence"].as_str().unwrap().starts_with(&sentence));
}

#[test]
fn answers_with_stop_sequences_with_a_form_and_those_that_were_cancelled_are_replayed_too() {
    let fixture = Fixture::new();
    let model = model(1);
    let mut question = question(&model);
    let plain = answered(&model, question.clone());
    let stop = plain.tokens[5..=6].iter().map(|t| u8::try_from(*t).ok());
    if let Some(stop) = stop.collect::<Option<Vec<u8>>>() {
        question.stop = StopSequences::new(vec![stop]).unwrap();
    }
    let stopped = answered(&model, question.clone());
    let form = Form::Choice(vec!["yes".to_owned(), "no".to_owned()]);
    question.constraint = Some(Constraint::new(form).unwrap());
    let formed = answered(&model, question);
    assert!(formed.tokens.len() < TOKENS);
    let mut cancelled = plain.clone();
    cancelled.say(plain.tokens[..20].to_vec());
    cancelled.transcript.finish_reason = FinishReason::Cancelled;
    // The trace of the prefix.
    let mut prefix = plain.question.clone();
    prefix.sampling.max_tokens = 20;
    cancelled.transcript.trace_root = answered(&model, prefix).transcript.trace_root;
    for answered in [stopped, formed, cancelled] {
        let report = fixture.report(&answered);
        assert_eq!(outcome(&report), ReplayOutcome::Same, "{report:?}");
    }
}

/// One way to change a copy.
type Change = fn(&mut ReceiptFile);

/// One way to lie, in a transcript that the pool signs all the same.
type Lie = fn(&mut Answered);

#[test]
fn each_lie_that_a_pool_has_signed_has_its_word_and_its_position() {
    let fixture = Fixture::new();
    let good = honest(&model(1));
    let lies: [(Lie, &str, Option<usize>); 8] = [
        (
            |a| {
                let mut tokens = a.tokens.clone();
                tokens[7] ^= 1;
                tokens[30] ^= 1;
                a.say(tokens);
            },
            "tokens",
            Some(7),
        ),
        (
            // No token of the model.
            |a| {
                let mut tokens = a.tokens.clone();
                tokens[9] = u32::MAX;
                a.say(tokens);
            },
            "tokens",
            Some(9),
        ),
        (|a| a.say(a.tokens[..20].to_vec()), "length", Some(20)),
        (
            |a| a.say([a.tokens.clone(), vec![1]].concat()),
            "length",
            Some(TOKENS),
        ),
        (
            // More than any answer has.
            |a| a.say([a.tokens.clone(), vec![1; 10_000]].concat()),
            "length",
            Some(TOKENS),
        ),
        (
            |a| a.transcript.finish_reason = FinishReason::Stop,
            "finish-reason",
            None,
        ),
        (|a| a.transcript.trace_root = [0; 32], "trace", None),
        (
            |a| a.transcript.engine_version = ENGINE_VERSION - 1,
            "engine-version",
            None,
        ),
    ];
    for (n, (lie, what, position)) in lies.into_iter().enumerate() {
        let mut answered = good.clone();
        lie(&mut answered);
        let report = fixture.report(&answered);
        assert_eq!(report.first_failure, Some(Check::Replay), "lie {n}");
        assert_eq!(
            outcome(&report),
            ReplayOutcome::Differs { what, position },
            "lie {n}"
        );
        assert!(matches!(line(&report, Check::Replay), Outcome::Fails(_)));
        assert_eq!(line(&report, Check::Output), &Outcome::Holds, "lie {n}");
    }
}

fn first_difference(one: &Answered, other: &Answered) -> usize {
    let differs = |(one, other): (&u32, &u32)| one != other;
    let mut pairs = one.tokens.iter().zip(&other.tokens);
    pairs.position(differs).unwrap()
}

#[test]
fn the_draws_of_another_seed_are_found_where_they_first_matter() {
    let fixture = Fixture::new();
    let honest = honest(&model(1));
    let mut question = honest.question.clone();
    question.seed[0] ^= 1;
    let mut lie = answered(&model(1), question);
    let first = first_difference(&honest, &lie);
    lie.transcript.seed = honest.question.seed;
    lie.question.seed = honest.question.seed;
    let tokens = ReplayOutcome::Differs {
        what: "tokens",
        position: Some(first),
    };
    assert_eq!(outcome(&fixture.report(&lie)), tokens);
}

#[test]
fn the_output_of_another_model_is_evidence_from_the_position_on_where_it_differs() {
    let fixture = Fixture::new();
    let (asked, cheaper) = (model(1), model(2));
    let honest = honest(&asked);
    let mut lie = answered(&cheaper, honest.question.clone());
    let first = first_difference(&honest, &lie);
    lie.transcript.model_id = asked.id();
    let report = fixture.report(&lie);
    assert_eq!(
        outcome(&report),
        ReplayOutcome::Differs {
            what: "tokens",
            position: Some(first)
        }
    );
    let said = fixture.command(&lie.file(), 1, &[]);
    assert_eq!(said.status.code(), Some(1));
    let stdout = text(&said.stdout);
    for words in [
        "tokens are not what model",
        &format!("differs at position {first}"),
        "The receipt is genuine",
        "evidence",
    ] {
        assert!(stdout.contains(words), "{stdout}");
    }
    let said = fixture.command(&lie.file(), 1, &["--json"]);
    let json: Value = serde_json::from_slice(&said.stdout).unwrap();
    assert_eq!(json["first_failure"], "replay");
    assert_eq!(json["replay"]["result"], "differs");
    assert_eq!(json["replay"]["position"], first);
}

#[test]
fn what_the_agent_or_a_stranger_changes_in_a_copy_is_named_before_anything_is_computed() {
    let fixture = Fixture::new();
    let good = honest(&model(1)).file();
    let changes: [(Change, &str); 11] = [
        (|f| f.salt[0] ^= 1, "prompt"),
        (|f| f.prompt = Prompt::Text("another".into()), "prompt"),
        (|f| f.prompt_tokens[1] ^= 1, "prompt"),
        (|f| f.prompt_tokens[1] = u32::MAX, "prompt"),
        (|f| f.prompt_tokens = vec![1; 70_000], "prompt"),
        (|f| f.stop.push(Prompt::Text("a stop".into())), "prompt"),
        (|f| f.seed[0] ^= 1, "sampling"),
        (|f| f.sampling.temperature_milli = 0, "sampling"),
        (|f| f.output_tokens[3] ^= 1, "output"),
        (|f| f.output_tokens = vec![7; 100_000], "output"),
        (
            |f| f.receipt.as_mut().unwrap().transcript[220] ^= 1,
            "signature",
        ),
    ];
    for (n, (change, named)) in changes.into_iter().enumerate() {
        let mut file = good.clone();
        change(&mut file);
        let said = fixture.command(&file, 1, &["--json"]);
        assert_eq!(said.status.code(), Some(1), "change {n}");
        let json: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!(json["first_failure"], named, "change {n}");
        assert_eq!(json["replay"], Value::Null, "change {n}");
    }
}

#[test]
fn a_prompt_that_the_model_cannot_take_in_is_refused_in_words_and_not_computed() {
    let fixture = Fixture::new();
    let model = model(1);
    let good = honest(&model);
    // A pool that signed it never had it run.
    let mut long = good.clone();
    long.question.prompt = vec![b'x'; model.context_tokens()];
    let tokens = model.encode(&long.question.prompt).unwrap();
    long.prompt = EncodedPrompt::new(&long.question.prompt, tokens).unwrap();
    long.transcript.prompt_commitment = commitment(&long.question, &long.prompt);
    let report = fixture.report(&long);
    let request = ReplayOutcome::Differs {
        what: "request",
        position: None,
    };
    assert_eq!(outcome(&report), request);
    let Outcome::Fails(why) = line(&report, Check::Replay) else {
        panic!("{report:?}")
    };
    assert!(why.contains("no room"), "{why}");

    // Tokens that are none of the model's are none that its tokenizer makes.
    let mut strange = good;
    let tokens = vec![256, u32::MAX];
    strange.prompt = EncodedPrompt::new(&strange.question.prompt, tokens).unwrap();
    strange.transcript.prompt_commitment = commitment(&strange.question, &strange.prompt);
    let report = fixture.report(&strange);
    assert_eq!(report.first_failure, Some(Check::Encoding));
    assert!(report.replay.is_none());
}

#[test]
fn without_what_it_needs_nothing_is_replayed_and_nobody_accused() {
    let fixture = Fixture::new();
    let answered = honest(&model(1));
    // Another model's file.
    let refused = fixture.command(&answered.file(), 2, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = text(&refused.stderr);
    assert!(stderr.contains("the model file is of model"), "{stderr}");
    assert!(refused.stdout.is_empty());
    let others = honest(&model(2));
    let report = fixture.report(&others);
    assert!(matches!(outcome(&report), ReplayOutcome::NotDone { .. }));
    assert!(report.verified && !report.is_replayed(), "{report:?}");

    // A form that another release's guide has followed.
    let mut formed = answered.clone();
    let form = Form::Choice(vec!["yes".to_owned()]);
    formed.question.constraint = Some(Constraint::for_guide("guide-0", form).unwrap());
    formed.transcript.prompt_commitment = commitment(&formed.question, &formed.prompt);
    let said = fixture.command(&formed.file(), 1, &[]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let stdout = text(&said.stdout);
    assert!(stdout.contains("was not replayed"), "{stdout}");
    assert!(!stdout.contains("FAILS"), "{stdout}");

    // A receipt alone.
    let alone = fixture.path("alone.json");
    let receipt = answered.file().receipt.unwrap();
    std::fs::write(&alone, serde_json::to_string(&receipt).unwrap()).unwrap();
    let refused = fixture.verify(&alone, 1, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no prompt"), "{refused:?}");
}
