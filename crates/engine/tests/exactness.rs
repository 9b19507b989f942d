//! The promise: same model, prompt and seed, same bits; and golden values that pin the bits.

#![allow(clippy::unwrap_used)]

use dovetail_commitment::{FinishReason, SamplingParams, trace_root};
use dovetail_engine::{EngineError, Generation, Model, Request, replay, run, tiny};
use proptest::prelude::*;

fn model() -> Model {
    Model::from_bytes(&tiny::generate(1)).unwrap()
}

fn request(model: &Model, prompt: &str, temperature_milli: u32, seed: u8) -> Request {
    Request {
        prompt_tokens: model.encode(prompt.as_bytes()),
        sampling: SamplingParams {
            temperature_milli,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 48,
        },
        seed: [seed; 32],
    }
}

#[test]
fn the_tiny_model_of_seed_1_never_changes() {
    let model = model();
    assert_eq!(
        model.id().to_string(),
        "97b20ab20d7c911f5a1125f5510aa60333f7f1cd0c28af7746bd1d39234e1a19"
    );
    let output = run(&model, &request(&model, "Stranded energy", 800, 7)).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&model.decode(&output.tokens)),
        "yyyyyzefzeqdzxyyfzetkhfzetkoxetkox-yf f f f f fz"
    );
    assert_eq!(
        hex::encode(trace_root(&output.trace)),
        "06d2f8e27ca4ae70413bfbddbcf2fc9d3e95477226b2cfdca800f0d166bb2173"
    );
    let greedy = run(&model, &request(&model, "Stranded energy", 0, 7)).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&model.decode(&greedy.tokens)),
        "yyyyzety1khoxyfzetkhwyfzetkoxyf f fzetkoxetkox-y"
    );
}

#[test]
fn the_output_ends_at_the_limit_or_with_the_context() {
    let model = model();
    let output = run(&model, &request(&model, "a", 900, 1)).unwrap();
    assert_eq!(output.finish_reason, FinishReason::Length);
    assert_eq!((output.tokens.len(), output.trace.len()), (48, 2));
    let mut long = request(&model, &"x".repeat(1020), 900, 1);
    let output = run(&model, &long).unwrap();
    assert_eq!(output.finish_reason, FinishReason::Length);
    assert_eq!(output.tokens.len(), 4);
    long.prompt_tokens = model.encode(&[b'x'; 1023]);
    assert!(matches!(
        run(&model, &long),
        Err(EngineError::PromptTooLong { .. })
    ));
    long.prompt_tokens = vec![];
    assert!(matches!(
        run(&model, &long),
        Err(EngineError::PromptInvalid)
    ));
    long.prompt_tokens = vec![1 << 20];
    assert!(matches!(
        run(&model, &long),
        Err(EngineError::PromptInvalid)
    ));
}

#[test]
fn a_generation_that_is_dropped_early_is_cancelled() {
    let model = model();
    let mut generation = Generation::new(&model, &request(&model, "a", 0, 1)).unwrap();
    assert!(generation.next_token().is_some());
    assert_eq!(generation.finish().finish_reason, FinishReason::Cancelled);
}

#[test]
fn replay_gives_the_same_bits_and_stops_where_the_claim_departs() {
    let model = model();
    let request = request(&model, "Stranded energy", 800, 7);
    let output = run(&model, &request).unwrap();
    assert_eq!(replay(&model, &request, &output.tokens).unwrap(), output);
    let mut changed = output.tokens.clone();
    changed[5] ^= 1;
    assert_eq!(replay(&model, &request, &changed).unwrap().tokens.len(), 6);
    let other_seed = Request {
        seed: [8; 32],
        ..request
    };
    assert_ne!(run(&model, &other_seed).unwrap().tokens, output.tokens);
}

#[test]
fn another_seed_is_another_model() {
    let other = Model::from_bytes(&tiny::generate(2)).unwrap();
    assert_ne!(other.id(), model().id());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_is_refused_without_panic(at in 0_usize..250_000, mask in 1_u8.., cut in 0_usize..250_000) {
        let mut bytes = tiny::generate(1);
        let len = bytes.len();
        bytes[at % len] ^= mask;
        prop_assert!(Model::from_bytes(&bytes).is_err());
        prop_assert!(Model::from_bytes(&tiny::generate(1)[..cut % len]).is_err());
    }

    #[test]
    fn junk_is_refused_without_panic(junk: Vec<u8>, length: u32) {
        prop_assert!(Model::from_bytes(&junk).is_err());
        let header = [b"DVTLMODL".as_slice(), &1_u32.to_le_bytes(), &length.to_le_bytes(), &junk].concat();
        prop_assert!(Model::from_bytes(&header).is_err());
    }

    #[test]
    fn tokens_depend_on_prompt_and_seed_alone(prompt in "[a-z ]{1,30}", seed: u8, temperature in 0_u32..1500) {
        let model = model();
        let request = request(&model, &prompt, temperature, seed);
        prop_assert_eq!(run(&model, &request).unwrap(), run(&model, &request).unwrap());
    }
}
