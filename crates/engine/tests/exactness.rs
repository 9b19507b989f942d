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
fn the_end_token_stops_the_output_and_its_position_is_traced() {
    let model = model();
    let mut request = request(&model, "An invoice", 1500, 11);
    (request.sampling.top_k, request.sampling.top_p_milli) = (0, 1000);
    request.sampling.max_tokens = 256;
    let output = run(&model, &request).unwrap();
    assert_eq!(output.finish_reason, FinishReason::Stop);
    assert_eq!(model.decode(&output.tokens), b"tiyf");
    assert_eq!(
        output.trace.iter().map(hex::encode).collect::<Vec<_>>(),
        ["81802ba20ff2941704c6dd7b43e44c47dd265d6e367414396415fd483eced5b9"]
    );
    assert_eq!(replay(&model, &request, &output.tokens).unwrap(), output);
}

#[test]
fn a_replay_never_goes_past_the_limits_however_long_the_claim() {
    let model = model();
    let mut request = request(&model, "Stranded energy", 800, 7);
    let honest = run(&model, &request).unwrap();
    let padded = [honest.tokens.clone(), vec![1; 100_000]].concat();
    assert_eq!(replay(&model, &request, &padded).unwrap(), honest);
    assert_eq!(replay(&model, &request, &[]).unwrap().tokens.len(), 1);
    request.sampling.max_tokens = 5000;
    assert!(matches!(
        replay(&model, &request, &honest.tokens),
        Err(EngineError::Sampling(_))
    ));
}

#[test]
fn a_sequence_does_not_notice_what_runs_beside_it() {
    let model = model();
    let requests: Vec<_> = (0..4_u8)
        .map(|n| request(&model, &"prompt ".repeat(1 + usize::from(n)), 900, n))
        .collect();
    let mut together: Vec<_> = requests
        .iter()
        .map(|request| Generation::new(&model, request).unwrap())
        .collect();
    for step in 0..60 {
        // Not all of them at every step.
        for (n, generation) in together.iter_mut().enumerate() {
            if step % (n + 1) == 0 {
                generation.next_token();
            }
        }
    }
    for (request, mut generation) in requests.iter().zip(together) {
        while generation.next_token().is_some() {}
        assert_eq!(generation.finish(), run(&model, request).unwrap());
    }
}

#[test]
fn output_goes_on_the_same_when_it_is_fed_back_as_prompt() {
    let model = model();
    let whole = request(&model, "Stranded energy", 0, 1);
    let output = run(&model, &whole).unwrap();
    for cut in [1, 17, 32, 47] {
        let mut rest = whole.clone();
        rest.prompt_tokens.extend(&output.tokens[..cut]);
        rest.sampling.max_tokens = 48 - u32::try_from(cut).unwrap();
        assert_eq!(run(&model, &rest).unwrap().tokens, output.tokens[cut..]);
    }
}

#[test]
fn the_tiny_model_says_various_things() {
    let model = model();
    let outputs: std::collections::HashSet<_> = (0..8)
        .map(|seed| {
            run(&model, &request(&model, "An invoice", 1000, seed))
                .unwrap()
                .tokens
        })
        .collect();
    assert_eq!(outputs.len(), 8);
    let tokens: std::collections::HashSet<_> = outputs.iter().flatten().collect();
    assert!(tokens.len() > 15, "{}", tokens.len());
}

#[test]
fn a_file_that_is_missing_or_endless_is_refused() {
    let nowhere = std::path::Path::new("/nonexistent/model");
    assert!(matches!(Model::load(nowhere), Err(EngineError::Read(_))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.dvtl");
    let mut bytes = tiny::generate(1);
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(Model::load(&file).unwrap().id(), model().id());
    bytes.push(0);
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(Model::load(&file), Err(EngineError::Format(_))));
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
    fn a_damaged_file_never_passes_for_the_model(at in 0_usize..250_000, mask in 1_u8.., cut in 0_usize..250_000) {
        let mut bytes = tiny::generate(1);
        let len = bytes.len();
        bytes[at % len] ^= mask;
        // A few bytes of the manifest are a name: with another one it is another model.
        if let Ok(other) = Model::from_bytes(&bytes) {
            prop_assert_ne!(other.id(), model().id());
        }
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
