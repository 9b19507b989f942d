//! Answers of a given form: each token is one that the form allows, and a replay gives the same bits.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use dovetail_commitment::{Constraint, FinishReason, Form, SamplingParams, StopSequences};
use dovetail_engine::{
    EngineError, Generation, GuideError, Model, Output, ReplayInput, Request, Runtime, replay, run,
    step, tiny,
};
use serde_json::Value;

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(Model::from_bytes(&tiny::generate(1)).unwrap()));

const ORDER: &str = r#"{
    "type": "object",
    "properties": {
        "vendor": {"type": "string", "maxLength": 10},
        "paid": {"type": "boolean"},
        "pieces": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "maxItems": 3}
    },
    "required": ["vendor", "paid", "pieces"],
    "additionalProperties": false
}"#;

fn constraint(form: Form) -> Option<Constraint> {
    Some(Constraint::new(form).unwrap())
}

fn schema() -> Option<Constraint> {
    constraint(Form::JsonSchema(ORDER.to_owned()))
}

fn regex(text: &str) -> Option<Constraint> {
    constraint(Form::Regex(text.to_owned()))
}

fn request(constraint: Option<Constraint>, temperature_milli: u32, seed: u8) -> Request {
    Request {
        prompt_tokens: MODEL.encode(b"An order:").unwrap(),
        sampling: SamplingParams {
            temperature_milli,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 400,
        },
        seed: [seed; 32],
        stop: StopSequences::default(),
        constraint,
    }
}

fn output(request: &Request) -> Output {
    run(&Runtime::new(1).unwrap(), &MODEL, request.clone()).unwrap()
}

fn replayed(runtime: &Runtime, inputs: &[(&Request, &[u32])]) -> Vec<Output> {
    let inputs = inputs.iter().map(|(request, tokens)| ReplayInput {
        request: (*request).clone(),
        tokens: tokens.to_vec(),
    });
    let outputs = replay(runtime, &MODEL, &inputs.collect::<Vec<_>>());
    outputs.into_iter().map(Result::unwrap).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8(MODEL.decode(&output.tokens)).unwrap()
}

#[test]
fn a_model_that_knows_nothing_answers_in_json_of_the_schema_and_the_replay_agrees() {
    for (temperature_milli, seed) in [(0, 1), (800, 2), (1500, 3), (2000, 4)] {
        let request = request(schema(), temperature_milli, seed);
        let output = output(&request);
        assert_eq!(
            output.finish_reason,
            FinishReason::Stop,
            "{}",
            text(&output)
        );
        let order: Value = serde_json::from_str(&text(&output)).unwrap();
        assert!(order["vendor"].as_str().unwrap().chars().count() <= 10);
        assert!(order["paid"].is_boolean());
        let pieces = order["pieces"].as_array().unwrap();
        assert!(pieces.len() <= 3 && pieces.iter().all(|piece| piece.as_u64().unwrap() < 100));
        assert_eq!(order.as_object().unwrap().len(), 3);
        for threads in [1, 3] {
            let runtime = Runtime::new(threads).unwrap();
            let again = replayed(&runtime, &[(&request, &output.tokens)]);
            assert_eq!(again, std::slice::from_ref(&output));
        }
    }
}

#[test]
fn answers_with_and_without_a_form_do_not_notice_each_other() {
    let requests = [
        request(schema(), 800, 1),
        request(None, 800, 2),
        request(regex("[a-z ]{5,60}[.]"), 800, 3),
        request(schema(), 800, 4),
    ];
    let alone: Vec<Output> = requests.iter().map(output).collect();
    let runtime = Runtime::new(2).unwrap();
    let mut together: Vec<Generation> = requests
        .iter()
        .map(|request| Generation::new(&MODEL, request.clone()).unwrap())
        .collect();
    while !together.iter().all(Generation::is_finished) {
        step(&runtime, &mut together.iter_mut().collect::<Vec<_>>());
    }
    let together: Vec<Output> = together.into_iter().map(Generation::finish).collect();
    assert_eq!(together, alone);
    let tokens = alone.iter().map(|output| output.tokens.as_slice());
    let inputs: Vec<_> = requests.iter().zip(tokens).collect();
    assert_eq!(replayed(&runtime, &inputs), alone);
}

#[test]
fn a_replay_of_other_tokens_ends_with_the_first_that_is_another() {
    let request = request(schema(), 800, 1);
    let honest = output(&request);
    let runtime = Runtime::new(1).unwrap();
    for at in [0, 5, honest.tokens.len() - 1] {
        let mut tokens = honest.tokens.clone();
        // A letter that the form may allow there or not, and a token that it never allows.
        for other in [u32::from(b'x'), 0] {
            tokens[at] = other;
            if tokens == honest.tokens {
                continue;
            }
            let again = replayed(&runtime, &[(&request, &tokens)]).pop().unwrap();
            assert_eq!(again.tokens, honest.tokens[..=at]);
        }
    }
    let longer = [honest.tokens.as_slice(), &[u32::from(b' ')]].concat();
    let again = replayed(&runtime, &[(&request, &longer)]).pop().unwrap();
    assert_eq!(again, honest);
}

#[test]
fn an_answer_that_is_complete_ends_and_one_that_may_go_on_ends_where_the_model_ends_it() {
    let fixed = output(&request(regex("yes, sir"), 0, 1));
    assert_eq!(text(&fixed), "yes, sir");
    assert_eq!(fixed.finish_reason, FinishReason::Stop);
    let texts = vec!["yes".to_owned(), "no".to_owned(), "no way".to_owned()];
    let choice = output(&request(constraint(Form::Choice(texts.clone())), 2000, 1));
    assert!(texts.contains(&text(&choice)), "{}", text(&choice));
    assert_eq!(choice.finish_reason, FinishReason::Stop);
}

#[test]
fn an_answer_that_reaches_its_limit_before_its_form_is_complete_ends_there() {
    let mut short = request(schema(), 800, 1);
    short.sampling.max_tokens = 9;
    let output = output(&short);
    assert_eq!(
        (output.tokens.len(), output.finish_reason),
        (9, FinishReason::Length)
    );
    let again = replayed(&Runtime::new(1).unwrap(), &[(&short, &output.tokens)]);
    assert_eq!(again, [output]);
}

#[test]
fn a_stop_sequence_ends_an_answer_before_its_form_does() {
    let mut request = request(regex("[0-9]{3}-[0-9]{3}"), 800, 1);
    request.stop = StopSequences::new(vec![b"-".to_vec()]).unwrap();
    let output = output(&request);
    assert_eq!(
        (output.tokens.len(), output.finish_reason),
        (4, FinishReason::Stop)
    );
}

/// A model that has no other letters than these, and ends with another token.
fn model_of_letters(letters: &str) -> Arc<Model> {
    let arch = dovetail_engine::Architecture {
        vocabulary: 1 + letters.len(),
        ..MODEL.manifest().architecture
    };
    let mut parts = tiny::parts(arch, "letters", 1).unwrap();
    let names = letters.char_indices();
    let names: Vec<String> = names
        .map(|(index, letter)| format!("\"{letter}\":{}", index + 1))
        .collect();
    parts.tokenizer = Some(
        format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
"model":{{"type":"BPE","vocab":{{"<unk>":0,{}}},"merges":[],"unk_token":"<unk>"}}}}"#,
            names.join(",")
        )
        .into(),
    );
    Arc::new(Model::from_bytes(&parts.to_bytes().unwrap()).unwrap())
}

#[test]
fn a_form_that_the_model_has_no_letters_for_ends_for_that_reason_and_the_replay_agrees() {
    let model = model_of_letters("abc");
    let mut request = request(regex("ab+d"), 0, 1);
    request.prompt_tokens = vec![1, 2];
    request.sampling.max_tokens = 20;
    let runtime = Runtime::new(1).unwrap();
    // After "ab" the form wants more of "b", or a letter that the model lacks: it writes "b" to its limit.
    let endless = run(&runtime, &model, request.clone()).unwrap();
    assert_eq!(
        (endless.tokens.len(), endless.finish_reason),
        (20, FinishReason::Length)
    );

    request.constraint = regex("abd");
    let unmet = run(&runtime, &model, request.clone()).unwrap();
    assert_eq!(unmet.tokens, [1, 2]);
    assert_eq!(unmet.finish_reason, FinishReason::ConstraintUnmet);
    let input = ReplayInput {
        request,
        tokens: unmet.tokens.clone(),
    };
    let again = replay(&runtime, &model, &[input]).pop().unwrap().unwrap();
    assert_eq!(again, unmet);
}

#[test]
fn what_is_no_form_is_refused_before_anything_is_computed() {
    let refused = |constraint: Option<Constraint>| {
        let checked = MODEL.check_constraint(constraint.as_ref().unwrap());
        let begun = Generation::new(&MODEL, request(constraint, 0, 1)).map(|_| ());
        (checked.unwrap_err(), begun.unwrap_err())
    };
    for bad in [
        regex("("),
        constraint(Form::JsonSchema("{\"type\": 7}".to_owned())),
    ] {
        let errors = refused(bad);
        assert!(matches!(
            errors.0,
            EngineError::Constraint(GuideError::Refused(_))
        ));
        assert!(matches!(
            errors.1,
            EngineError::Constraint(GuideError::Refused(_))
        ));
    }
    let form = Form::Regex("a".to_owned());
    let other = Constraint::for_guide("another-1", form).unwrap();
    let errors = refused(Some(other));
    assert!(matches!(
        errors.0,
        EngineError::Constraint(GuideError::OtherGuide)
    ));
}
