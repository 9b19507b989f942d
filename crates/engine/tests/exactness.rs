//! The promise: same model, prompt and seed, same bits, whatever computes them and beside whatever;
//! and golden values that pin the bits.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock};

use dovetail_commitment::{FinishReason, SamplingParams, StopSequences, trace_root};
use dovetail_engine::{
    EngineError, Generation, Kernel, Model, Output, Prefixes, ReplayInput, Request, Runtime,
    forced_trace, replay, run, step, tiny,
};
use proptest::prelude::*;

static MODEL: LazyLock<Arc<Model>> =
    LazyLock::new(|| Arc::new(Model::from_bytes(&tiny::generate(1)).unwrap()));
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new(1).unwrap());
/// Every kernel of this machine on 1 to 4 threads.
static RUNTIMES: LazyLock<Vec<Runtime>> = LazyLock::new(|| {
    let runtimes = Kernel::available().into_iter().flat_map(|kernel| {
        (1..=4).map(move |threads| Runtime::with_kernel(threads, kernel).unwrap())
    });
    runtimes.collect()
});

fn request(prompt: &str, temperature_milli: u32, seed: u8) -> Request {
    Request {
        prompt_tokens: MODEL.encode(prompt.as_bytes()).unwrap(),
        sampling: SamplingParams {
            temperature_milli,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 48,
        },
        seed: [seed; 32],
        stop: StopSequences::default(),
        constraint: None,
    }
}

fn output(request: &Request) -> Output {
    run(&RUNTIME, &MODEL, request.clone()).unwrap()
}

fn replayed(request: &Request, tokens: &[u32]) -> Output {
    let input = ReplayInput {
        request: request.clone(),
        tokens: tokens.to_vec(),
    };
    replay(&RUNTIME, &MODEL, &[input]).pop().unwrap().unwrap()
}

fn refusal(request: &Request) -> EngineError {
    run(&RUNTIME, &MODEL, request.clone()).unwrap_err()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&MODEL.decode(&output.tokens)).into_owned()
}

/// Whoever knows what the processor has says so (`aarch64.sh` does): a kernel that was not found is not tried.
#[test]
fn the_kernels_that_this_machine_should_have_are_found_the_fastest_first() {
    let names: Vec<_> = Kernel::available().into_iter().map(Kernel::name).collect();
    assert_eq!(
        (RUNTIME.kernel().name(), names.last()),
        (names[0], Some(&"scalar"))
    );
    if let Ok(expected) = std::env::var("DOVETAIL_TEST_KERNELS") {
        assert_eq!(names.join(" "), expected);
    }
}

#[test]
fn golden_tokens_of_the_tiny_model_of_seed_1_never_change() {
    assert_eq!(MODEL.id().to_string(), GOLDEN_ID);
    let drawn = output(&request("Stranded energy", 800, 7));
    assert_eq!(text(&drawn), GOLDEN_DRAWN);
    assert_eq!(hex::encode(trace_root(&drawn.trace)), GOLDEN_TRACE);
    let greedy = output(&request("Stranded energy", 0, 7));
    assert_eq!(text(&greedy), GOLDEN_GREEDY);
}
const GOLDEN_ID: &str = "f98dab2fde257882e1237ece4389a401e22e7a899390e6ab679f1e46b8313169";
const GOLDEN_DRAWN: &str = "pjbrfpjbrfpjbrfpwbrfpwbrfpwpwpwpwpwpwpwppppppppp";
const GOLDEN_TRACE: &str = "965aa513b69ae0a7fd16e914e6217b2bd52d299f0cc472bcb3663a0bfa9a31ea";
const GOLDEN_GREEDY: &str = "pjbrfpjbrfpjbrfpwbrfpwbrfpwpwpwpwpwpwpwppppppppp";

#[test]
fn the_output_ends_at_the_limit_or_with_the_context() {
    let short = output(&request("a", 900, 1));
    assert_eq!(short.finish_reason, FinishReason::Length);
    assert_eq!((short.tokens.len(), short.trace.len()), (48, 2));
    let mut long = request(&"x".repeat(1020), 900, 1);
    let last = output(&long);
    assert_eq!(last.finish_reason, FinishReason::Length);
    assert_eq!(last.tokens.len(), 4);
    assert_eq!(replayed(&long, &last.tokens), last);
    long.prompt_tokens = MODEL.encode(&[b'x'; 1023]).unwrap();
    assert!(matches!(refusal(&long), EngineError::PromptTooLong { .. }));
    for prompt in [vec![], vec![1 << 20]] {
        long.prompt_tokens = prompt;
        assert!(matches!(refusal(&long), EngineError::PromptInvalid));
    }
}

#[test]
fn the_end_token_stops_the_output_and_its_position_is_traced() {
    // Some seed among these draws the end token before the limit.
    let ended = (0..=255).find_map(|seed| {
        let mut request = request("An invoice", 1500, seed);
        (request.sampling.top_k, request.sampling.top_p_milli) = (0, 1000);
        let output = output(&request);
        (output.finish_reason == FinishReason::Stop).then_some((request, output))
    });
    let (request, output) = ended.unwrap();
    assert!(output.tokens.len() < 48);
    assert_eq!(output.trace.len(), output.tokens.len() / 32 + 1);
    assert_eq!(replayed(&request, &output.tokens), output);
}

#[test]
fn a_stop_sequence_ends_the_output_with_the_token_that_completes_it() {
    let mut request = request("Stranded energy", 800, 7);
    let whole = output(&request);
    let bytes = MODEL.decode(&whole.tokens);
    let stop = bytes[10..13].to_vec();
    let first = bytes.windows(3).position(|text| text == stop).unwrap();
    request.stop = StopSequences::new(vec![b"not in there".to_vec(), stop]).unwrap();
    let stopped = output(&request);
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.tokens, whole.tokens[..first + 3]);
    assert_eq!(replayed(&request, &stopped.tokens), stopped);
    // Whoever goes on after the stop is found out.
    assert_ne!(replayed(&request, &whole.tokens), whole);
}

#[test]
fn a_replay_never_goes_past_the_limits_however_long_its_input() {
    let mut request = request("Stranded energy", 800, 7);
    let honest = output(&request);
    let padded = [honest.tokens.clone(), vec![1; 100_000]].concat();
    assert_eq!(replayed(&request, &padded), honest);
    assert_eq!(replayed(&request, &[]).tokens.len(), 1);
    let unknown = [&honest.tokens[..9], &[1 << 30]].concat();
    assert_eq!(replayed(&request, &unknown).tokens, honest.tokens[..10]);
    request.sampling.max_tokens = 5000;
    assert!(matches!(refusal(&request), EngineError::Sampling(_)));
}

#[test]
fn a_bad_input_does_not_disturb_those_replayed_with_it() {
    let good = request("Stranded energy", 800, 7);
    let honest = output(&good);
    let mut bad = good.clone();
    bad.prompt_tokens.clear();
    let mut other = good.clone();
    other.seed = [8; 32];
    let input = |request: &Request| ReplayInput {
        request: request.clone(),
        tokens: honest.tokens.clone(),
    };
    // So many that they are replayed in several groups, side by side.
    let three = [input(&bad), input(&good), input(&other)];
    let inputs: Vec<_> = three.iter().cycle().take(120).cloned().collect();
    let outputs = replay(&RUNTIME, &MODEL, &inputs);
    assert_eq!(outputs.len(), inputs.len());
    for outputs in outputs.chunks(3) {
        assert!(matches!(outputs[0], Err(EngineError::PromptInvalid)));
        assert_eq!(outputs[1].as_ref().unwrap(), &honest);
        assert!(outputs[2].as_ref().unwrap().tokens.len() < honest.tokens.len());
    }
}

#[test]
fn output_goes_on_the_same_when_it_is_fed_back_as_prompt() {
    let whole = request("Stranded energy", 0, 1);
    let tokens = output(&whole).tokens;
    for cut in [1, 17, 32, 47] {
        let mut rest = whole.clone();
        rest.prompt_tokens.extend(&tokens[..cut]);
        rest.sampling.max_tokens = 48 - u32::try_from(cut).unwrap();
        assert_eq!(output(&rest).tokens, tokens[cut..]);
    }
}

#[test]
fn the_tiny_model_says_various_things() {
    let outputs: std::collections::HashSet<_> = (0..8)
        .map(|seed| output(&request("An invoice", 1000, seed)).tokens)
        .collect();
    assert_eq!(outputs.len(), 8);
    let tokens: std::collections::HashSet<_> = outputs.iter().flatten().collect();
    assert!(tokens.len() > 15, "{}", tokens.len());
}

#[test]
fn a_file_that_is_missing_or_too_long_is_refused() {
    let nowhere = std::path::Path::new("/nonexistent/model");
    assert!(matches!(Model::load(nowhere), Err(EngineError::Read(_))));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tiny.safetensors");
    let mut bytes = tiny::generate(1);
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(Model::load(&file).unwrap().id(), MODEL.id());
    bytes.push(0);
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(Model::load(&file), Err(EngineError::Format(_))));
}

#[test]
fn a_generation_that_is_dropped_early_is_cancelled() {
    let mut generation = Generation::new(&MODEL, request("a", 0, 1)).unwrap();
    assert!(generation.next_token(&RUNTIME).is_some());
    assert_eq!(generation.finish().finish_reason, FinishReason::Cancelled);
}

#[test]
fn replay_gives_the_same_bits_and_stops_where_its_input_departs() {
    let request = request("Stranded energy", 800, 7);
    let honest = output(&request);
    assert_eq!(replayed(&request, &honest.tokens), honest);
    let mut changed = honest.tokens.clone();
    changed[5] ^= 1;
    assert_eq!(replayed(&request, &changed).tokens, honest.tokens[..6]);
    let other_seed = Request {
        seed: [8; 32],
        ..request
    };
    assert_ne!(output(&other_seed).tokens, honest.tokens);
}

#[test]
fn reading_a_text_leaves_the_trace_of_writing_it_and_of_any_other_text_its_own() {
    let request = request("a draft", 700, 3);
    let written = output(&request);
    let mut tokens = written.tokens.clone();
    let read = |tokens: &[u32]| {
        let input = ReplayInput {
            request: request.clone(),
            tokens: tokens.to_vec(),
        };
        forced_trace(&RUNTIME, &MODEL, &input).unwrap()
    };
    assert_eq!(read(&tokens), written.trace);
    tokens[0] ^= 1;
    let other = read(&tokens);
    assert_eq!(other.len(), written.trace.len());
    assert_ne!(other, written.trace);
}

#[test]
fn another_seed_is_another_model() {
    let other = Model::from_bytes(&tiny::generate(2)).unwrap();
    assert_ne!(other.id(), MODEL.id());
}

#[test]
fn a_common_beginning_is_computed_once_and_changes_nothing() {
    let mut prefixes = Prefixes::new(10 << 20);
    let instruction = "You turn invoices into JSON. ".repeat(8);
    for (number, reused_min) in [(1, 0), (2, 230), (3, 230)] {
        let request = request(&format!("{instruction}Invoice {number}"), 700, number);
        let mut generation = Generation::new(&MODEL, request.clone()).unwrap();
        let reused = generation.reuse(&mut prefixes);
        assert!(reused >= reused_min, "{reused}");
        while generation.next_token(&RUNTIME).is_some() {}
        generation.keep_prompt(&mut prefixes);
        assert_eq!(generation.finish(), output(&request));
    }
    assert_eq!(prefixes.len(), 3);
    // A conversation goes on from all that was taken in, and what it is kept with makes the rest superfluous.
    let first = request(&instruction, 0, 1);
    let mut generation = Generation::new(&MODEL, first.clone()).unwrap();
    generation.reuse(&mut prefixes);
    while generation.next_token(&RUNTIME).is_some() {}
    generation.keep_all(&mut prefixes);
    assert_eq!(prefixes.len(), 4);
    let mut second = first.clone();
    second.prompt_tokens.extend(generation.finish().tokens);
    second.prompt_tokens.extend(b"and then?".map(u32::from));
    let mut generation = Generation::new(&MODEL, second.clone()).unwrap();
    // The last token of the output was never taken in.
    let known = first.prompt_tokens.len() + 47;
    assert_eq!(generation.reuse(&mut prefixes), known);
    while generation.next_token(&RUNTIME).is_some() {}
    generation.keep_all(&mut prefixes);
    assert_eq!(generation.finish(), output(&second));
    assert_eq!(prefixes.len(), 4);
    // Another model's prompts are of no use, and what there is no room for is not kept.
    let other = Arc::new(Model::from_bytes(&tiny::generate(2)).unwrap());
    let long = request(&instruction, 0, 1);
    let mut generation = Generation::new(&other, long).unwrap();
    assert_eq!(generation.reuse(&mut prefixes), 0);
    let mut none = Prefixes::new(100);
    generation.next_token(&RUNTIME);
    generation.keep_prompt(&mut none);
    assert!(none.is_empty());
}

#[test]
fn sixty_four_sequences_at_once_are_what_each_is_alone() {
    let requests: Vec<_> = (0..64_u8)
        .map(|n| {
            let mut request = request(&"prompt ".repeat(1 + usize::from(n) % 7), 900, n);
            request.sampling.max_tokens = 1 + u32::from(n) % 40;
            request
        })
        .collect();
    let alone: Vec<_> = requests.iter().map(output).collect();
    let inputs: Vec<_> = requests
        .iter()
        .zip(&alone)
        .map(|(request, output)| ReplayInput {
            request: request.clone(),
            tokens: output.tokens.clone(),
        })
        .collect();
    for runtime in RUNTIMES.iter() {
        let mut together: Vec<_> = requests
            .iter()
            .map(|request| Generation::new(&MODEL, request.clone()).unwrap())
            .collect();
        while together.iter().any(|generation| !generation.is_finished()) {
            step(runtime, &mut together.iter_mut().collect::<Vec<_>>());
        }
        for (generation, alone) in together.into_iter().zip(&alone) {
            assert_eq!(&generation.finish(), alone);
        }
        for (replayed, alone) in replay(runtime, &MODEL, &inputs).iter().zip(&alone) {
            assert_eq!(replayed.as_ref().unwrap(), alone);
        }
    }
}

#[test]
fn every_batch_size_from_1_to_64_gives_the_same_bits_on_all_kernels_and_threads() {
    // A prompt of one token, so that each step has as many rows as sequences: one more joins at every step.
    let requests: Vec<_> = (0..64_u8)
        .map(|n| {
            let mut request = request("", 1100, n);
            assert_eq!(request.prompt_tokens.len(), 1);
            request.sampling.max_tokens = 64 - u32::from(n);
            request
        })
        .collect();
    let alone: Vec<_> = requests.iter().map(output).collect();
    let inputs: Vec<_> = requests
        .iter()
        .zip(&alone)
        .map(|(request, output)| ReplayInput {
            request: request.clone(),
            tokens: output.tokens.clone(),
        })
        .collect();
    for runtime in RUNTIMES.iter() {
        let mut together = Vec::new();
        for request in &requests {
            together.push(Generation::new(&MODEL, request.clone()).unwrap());
            step(runtime, &mut together.iter_mut().collect::<Vec<_>>());
        }
        for (generation, alone) in together.into_iter().zip(&alone) {
            assert!(generation.is_finished());
            assert_eq!(&generation.finish(), alone);
        }
        for count in [1, 2, 3, 5, 17, 40] {
            let replayed = replay(runtime, &MODEL, &inputs[..count]);
            for (replayed, alone) in replayed.iter().zip(&alone) {
                assert_eq!(replayed.as_ref().unwrap(), alone);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_sequence_does_not_notice_what_runs_beside_it(
        count in 1_usize..=64, steps in proptest::collection::vec(any::<u64>(), 40),
        temperature in 0_u32..1500, runtime in any::<proptest::sample::Index>(),
    ) {
        let runtime = runtime.get(&RUNTIMES);
        let requests: Vec<_> = (0..count)
            .map(|n| {
                let mut request = request(&"ab ".repeat(n * 5 % 90), temperature, u8::try_from(n).unwrap());
                request.sampling.max_tokens = 12;
                request
            })
            .collect();
        let mut generations: Vec<_> = requests
            .iter()
            .map(|request| Generation::new(&MODEL, request.clone()).unwrap())
            .collect();
        // Not all of them at every step: they come and go.
        for chosen in steps {
            let mut some: Vec<_> = generations
                .iter_mut()
                .enumerate()
                .filter(|(n, _)| chosen >> n & 1 == 1)
                .map(|(_, generation)| generation)
                .collect();
            step(runtime, &mut some);
        }
        for (request, mut generation) in requests.iter().zip(generations) {
            while generation.next_token(runtime).is_some() {}
            prop_assert_eq!(generation.finish(), output(request));
        }
    }

    #[test]
    fn tokens_depend_on_prompt_and_seed_alone(prompt in "[a-z ]{1,12}", seed: u8, temperature in 0_u32..1500) {
        let mut request = request(&prompt, temperature, seed);
        request.sampling.max_tokens = 16;
        let expected = output(&request);
        for runtime in RUNTIMES.iter() {
            prop_assert_eq!(&run(runtime, &MODEL, request.clone()).unwrap(), &expected);
        }
    }

    #[test]
    fn a_damaged_file_never_passes_for_the_model(at in 0_usize..300_000, mask in 1_u8.., cut in 0_usize..300_000) {
        let mut bytes = tiny::generate(1);
        let len = bytes.len();
        bytes[at % len] ^= mask;
        // A few bytes of the header are a name: with another one it is another model. Others are space.
        if let Ok(other) = Model::from_bytes(&bytes) {
            let header = usize::try_from(u64::from_le_bytes(*bytes.first_chunk().unwrap())).unwrap();
            prop_assert!(other.id() != MODEL.id() || at % len < 8 + header);
        }
        prop_assert!(Model::from_bytes(&tiny::generate(1)[..cut % len]).is_err());
    }

    #[test]
    fn junk_is_refused_without_panic(junk: Vec<u8>, length: u32) {
        prop_assert!(Model::from_bytes(&junk).is_err());
        let header = [&u64::from(length).to_le_bytes(), junk.as_slice()].concat();
        prop_assert!(Model::from_bytes(&header).is_err());
        let length = u64::try_from(junk.len()).unwrap().to_le_bytes();
        prop_assert!(Model::from_bytes(&[&length, junk.as_slice()].concat()).is_err());
    }
}
