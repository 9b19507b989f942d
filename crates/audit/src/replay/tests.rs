//! Honest transcripts pass, and each lie has its name.

use std::sync::Arc;

use super::*;
use dovetail_commitment::{Form, SamplingParams, TaskId, WorkerKey};
use dovetail_engine::{Generation, GuideError, Output, run, tiny};

fn runtime() -> Runtime {
    Runtime::new(1).unwrap()
}

fn replay(model: &Model, evidence: &Evidence) -> Result<(), Mismatch> {
    let verdict = super::replay(&runtime(), model, std::slice::from_ref(evidence));
    let verdict = verdict.unwrap().pop();
    verdict.unwrap().map_err(|finding| finding.mismatch)
}

fn honest(model: &Arc<Model>) -> Evidence {
    stopped(model, StopSequences::default())
}

fn stopped(model: &Arc<Model>, stop: StopSequences) -> Evidence {
    generated(model, stop, None)
}

/// The text, encoded by the model's tokenizer.
fn encoded(model: &Model, text: &str) -> EncodedPrompt {
    let tokens = model.encode(text.as_bytes()).unwrap();
    EncodedPrompt::new(text.as_bytes(), tokens).unwrap()
}

fn generated(model: &Arc<Model>, stop: StopSequences, constraint: Option<Constraint>) -> Evidence {
    let prompt = encoded(model, "an invoice");
    let tokens = prompt.tokens().to_vec();
    ran(model, prompt, tokens, stop, constraint)
}

/// What a worker delivers that was assigned `prompt` and ran `prompt_tokens`.
fn ran(
    model: &Arc<Model>,
    prompt: EncodedPrompt,
    prompt_tokens: Vec<u32>,
    stop: StopSequences,
    constraint: Option<Constraint>,
) -> Evidence {
    let salt = [4; 32];
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: 40,
    };
    let request = Request {
        prompt_tokens,
        sampling,
        seed: [5; 32],
        stop: stop.clone(),
        constraint: constraint.clone(),
    };
    let output = run(&runtime(), model, request).unwrap();
    Evidence {
        transcript: Transcript {
            task_id: TaskId::from_bytes([1; 32]),
            worker_key: WorkerKey::from_bytes([2; 32]),
            model_id: model.id(),
            engine_version: ENGINE_VERSION,
            prompt_commitment: prompt_commitment(&salt, &stop, constraint.as_ref(), &prompt),
            sampling,
            seed: [5; 32],
            output_tokens: u32::try_from(output.tokens.len()).unwrap(),
            output_digest: output_digest(&output.tokens),
            trace_root: trace_root(&output.trace),
            finish_reason: output.finish_reason,
        },
        salt,
        prompt,
        stop,
        constraint,
        output_tokens: output.tokens,
    }
}

fn tiny_model(seed: u64) -> Arc<Model> {
    Arc::new(Model::from_bytes(&tiny::generate(seed)).unwrap())
}

fn with_tokens(mut evidence: Evidence, tokens: Vec<u32>) -> Evidence {
    evidence.transcript.output_tokens = u32::try_from(tokens.len()).unwrap();
    evidence.transcript.output_digest = output_digest(&tokens);
    evidence.output_tokens = tokens;
    evidence
}

#[test]
fn an_honest_transcript_passes_and_each_lie_is_named() {
    let model = tiny_model(1);
    let good = honest(&model);
    assert_eq!(replay(&model, &good), Ok(()));

    let mut changed = good.output_tokens.clone();
    changed[7] ^= 1;
    let lie = with_tokens(good.clone(), changed);
    assert_eq!(replay(&model, &lie), Err(Mismatch::Tokens { position: 7 }));

    let short = with_tokens(good.clone(), good.output_tokens[..20].to_vec());
    assert!(matches!(
        replay(&model, &short),
        Err(Mismatch::Length | Mismatch::FinishReason)
    ));

    let padded = [good.output_tokens.clone(), vec![1]].concat();
    let padded = with_tokens(good.clone(), padded);
    assert_eq!(replay(&model, &padded), Err(Mismatch::Length));

    let mut other = honest(&tiny_model(2));
    other.transcript.model_id = model.id();
    assert!(matches!(
        replay(&model, &other),
        Err(Mismatch::Tokens { .. } | Mismatch::Length)
    ));

    let mut lie = good.clone();
    lie.transcript.trace_root = [0; 32];
    assert_eq!(replay(&model, &lie), Err(Mismatch::Trace));

    let mut lie = good.clone();
    lie.prompt = encoded(&model, "another");
    assert_eq!(replay(&model, &lie), Err(Mismatch::Prompt));

    let mut lie = good.clone();
    lie.transcript.output_digest = [0; 32];
    assert_eq!(replay(&model, &lie), Err(Mismatch::OutputDigest));

    let mut lie = good;
    lie.transcript.finish_reason = FinishReason::Stop;
    assert_eq!(replay(&model, &lie), Err(Mismatch::FinishReason));
}

#[test]
fn going_on_past_a_stop_sequence_is_a_lie_and_so_is_making_one_up() {
    let model = tiny_model(1);
    let whole = honest(&model);
    let text = model.decode(&whole.output_tokens);
    let stop = StopSequences::new(vec![text[9..12].to_vec()]).unwrap();
    let good = stopped(&model, stop.clone());
    assert!(good.output_tokens.len() < whole.output_tokens.len());
    assert_eq!(replay(&model, &good), Ok(()));

    let mut made_up = good;
    made_up.stop = StopSequences::default();
    assert_eq!(replay(&model, &made_up), Err(Mismatch::Prompt));

    let mut past = whole;
    past.transcript.prompt_commitment = prompt_commitment(&past.salt, &stop, None, &past.prompt);
    past.stop = stop;
    assert_eq!(replay(&model, &past), Err(Mismatch::Length));
}

#[test]
fn a_replay_takes_in_the_assigned_tokens_and_no_tokenizers_opinion_of_the_text() {
    let model = tiny_model(1);
    let tokens: Vec<u32> = model.encode(b"another encoding").unwrap();
    let prompt = EncodedPrompt::new(b"an invoice", tokens.clone()).unwrap();
    assert_ne!(prompt, encoded(&model, "an invoice"));
    let evidence = ran(&model, prompt, tokens, StopSequences::default(), None);
    assert_eq!(replay(&model, &evidence), Ok(()));
}

#[test]
fn a_worker_that_took_in_other_tokens_than_it_was_given_is_caught() {
    let model = tiny_model(1);
    let assigned = encoded(&model, "an invoice of thirty pages");
    // Cheaper: half of the prompt. Under the commitment to all of it.
    let half = assigned.tokens()[..13].to_vec();
    let none = StopSequences::default;
    let lie = ran(&model, assigned.clone(), half.clone(), none(), None);
    let caught = replay(&model, &lie);
    assert!(
        matches!(
            caught,
            Err(Mismatch::Tokens { .. } | Mismatch::Length | Mismatch::Trace)
        ),
        "{caught:?}"
    );
    // Or under the commitment to what it did run.
    let run_prompt = EncodedPrompt::from_parts(*assigned.text(), half.clone()).unwrap();
    let mut lie = ran(&model, run_prompt, half, none(), None);
    lie.prompt = assigned.clone();
    assert_eq!(replay(&model, &lie), Err(Mismatch::Prompt));
    // Another text under the same tokens.
    let tokens = assigned.tokens().to_vec();
    let renamed = EncodedPrompt::new(b"an offer", tokens.clone()).unwrap();
    let mut lie = ran(&model, renamed, tokens, none(), None);
    lie.prompt = assigned;
    assert_eq!(replay(&model, &lie), Err(Mismatch::Prompt));
}

#[test]
fn a_transcript_of_tokens_that_the_model_lacks_is_a_request_that_nobody_ran() {
    let model = tiny_model(1);
    for tokens in [vec![256, u32::MAX], vec![256; model.context_tokens()]] {
        let mut lie = honest(&model);
        lie.prompt = EncodedPrompt::from_parts(*lie.prompt.text(), tokens).unwrap();
        commit_again(&mut lie);
        assert_eq!(replay(&model, &lie), Err(Mismatch::Request));
    }
}

/// The first tokens of what the model writes: a task that was cancelled then.
fn prefix(model: &Arc<Model>, whole: &Evidence, tokens: usize) -> Evidence {
    let request = Request {
        prompt_tokens: whole.prompt.tokens().to_vec(),
        sampling: whole.transcript.sampling,
        seed: whole.transcript.seed,
        stop: whole.stop.clone(),
        constraint: whole.constraint.clone(),
    };
    let mut generation = Generation::new(model, request).unwrap();
    for _ in 0..tokens {
        assert!(generation.next_token(&runtime()).is_some());
    }
    let Output { tokens, trace, .. } = generation.finish();
    let mut evidence = with_tokens(whole.clone(), tokens);
    evidence.transcript.trace_root = trace_root(&trace);
    evidence.transcript.finish_reason = FinishReason::Cancelled;
    evidence
}

#[test]
fn a_prefix_of_any_length_passes_and_a_made_up_one_does_not() {
    let model = tiny_model(1);
    let whole = honest(&model);
    for tokens in 1..=whole.output_tokens.len() {
        let good = prefix(&model, &whole, tokens);
        assert_eq!(replay(&model, &good), Ok(()), "{tokens}");
        let mut lie = good.clone();
        lie.transcript.trace_root[0] ^= 1;
        assert_eq!(replay(&model, &lie), Err(Mismatch::Trace), "{tokens}");
        let mut changed = good.output_tokens.clone();
        let position = tokens - 1;
        changed[position] ^= 1;
        let lie = with_tokens(good, changed);
        assert_eq!(replay(&model, &lie), Err(Mismatch::Tokens { position }));
    }
    let mut none = with_tokens(whole.clone(), Vec::new());
    none.transcript.finish_reason = FinishReason::Cancelled;
    assert_eq!(replay(&model, &none), Err(Mismatch::Request));
}

#[test]
fn no_prefix_goes_on_past_the_end_of_the_output() {
    let model = tiny_model(1);
    let whole = honest(&model);
    let text = model.decode(&whole.output_tokens);
    let stop = StopSequences::new(vec![text[9..12].to_vec()]).unwrap();
    let good = stopped(&model, stop.clone());
    // Cancelled with its last token: nobody asks whether that was the end.
    let end = good.output_tokens.len();
    assert_eq!(replay(&model, &prefix(&model, &good, end)), Ok(()));
    let mut past = prefix(&model, &whole, end + 3);
    past.stop = stop;
    commit_again(&mut past);
    assert_eq!(replay(&model, &past), Err(Mismatch::Length));
}

fn commit_again(evidence: &mut Evidence) {
    evidence.transcript.prompt_commitment = prompt_commitment(
        &evidence.salt,
        &evidence.stop,
        evidence.constraint.as_ref(),
        &evidence.prompt,
    );
}

#[test]
fn an_answer_of_the_form_that_was_asked_for_passes_and_one_without_it_is_a_lie() {
    let model = tiny_model(1);
    let digits = Form::Regex("[0-9]{3}(, [0-9]{3})*".to_owned());
    let digits = Some(Constraint::new(digits).unwrap());
    let good = generated(&model, StopSequences::default(), digits.clone());
    let text = model.decode(&good.output_tokens);
    assert!(text.iter().all(|byte| b"0123456789, ".contains(byte)));
    assert_eq!(replay(&model, &good), Ok(()));

    // The constraint ignored, under the commitment that was asked for.
    let mut free = honest(&model);
    free.constraint.clone_from(&digits);
    commit_again(&mut free);
    let caught = replay(&model, &free);
    assert!(matches!(caught, Err(Mismatch::Tokens { .. })), "{caught:?}");

    // Another form than the one that was asked for.
    let mut other = good.clone();
    let letters = Form::Regex("[a-z]+".to_owned());
    other.constraint = Some(Constraint::new(letters).unwrap());
    assert_eq!(replay(&model, &other), Err(Mismatch::Prompt));
    other.constraint = None;
    assert_eq!(replay(&model, &other), Err(Mismatch::Prompt));

    // A form that the model is said not to meet.
    let mut given_up = with_tokens(good.clone(), good.output_tokens[..5].to_vec());
    given_up.transcript.finish_reason = FinishReason::ConstraintUnmet;
    assert_eq!(replay(&model, &given_up), Err(Mismatch::Length));
}

#[test]
fn evidence_of_another_release_is_no_evidence() {
    let mut evidence = honest(&tiny_model(1));
    assert!(evidence.is_replayable());
    evidence.transcript.engine_version -= 1;
    assert!(!evidence.is_replayable());
    evidence.transcript.engine_version += 1;
    let form = || Form::Regex("[a-z]+".to_owned());
    evidence.constraint = Some(Constraint::new(form()).unwrap());
    assert!(evidence.is_replayable());
    evidence.constraint = Some(Constraint::for_guide("another-1", form()).unwrap());
    assert!(!evidence.is_replayable());
}

#[test]
fn transcripts_that_are_replayed_together_have_verdicts_of_their_own() {
    let model = tiny_model(1);
    let good = honest(&model);
    let mut other_trace = good.clone();
    other_trace.transcript.trace_root = [0; 32];
    let mut unread = good.clone();
    unread.prompt = encoded(&model, "another");
    let mut changed = good.output_tokens.clone();
    changed[7] ^= 1;
    let changed = with_tokens(good.clone(), changed);
    let batch = [good.clone(), other_trace, unread, changed];
    let verdicts = super::replay(&runtime(), &model, &batch).unwrap();
    assert_eq!(verdicts[0], Ok(()));

    let finding = verdicts[1].unwrap_err();
    assert_eq!(finding.mismatch, Mismatch::Trace);
    let replayed = finding.replayed.unwrap();
    assert_eq!(replayed.output_digest, good.transcript.output_digest);
    assert_eq!(replayed.trace_root, good.transcript.trace_root);

    assert_eq!(verdicts[2], Err(Finding::from(Mismatch::Prompt)));

    let finding = verdicts[3].unwrap_err();
    assert_eq!(finding.mismatch, Mismatch::Tokens { position: 7 });
    let replayed = finding.replayed.unwrap();
    assert_eq!(replayed.tokens, 8);
    assert_eq!(
        replayed.output_digest,
        output_digest(&good.output_tokens[..8])
    );
}

#[test]
fn a_mismatch_is_read_back_from_its_parts() {
    for mismatch in [
        Mismatch::Model,
        Mismatch::EngineVersion,
        Mismatch::Prompt,
        Mismatch::Request,
        Mismatch::Tokens { position: 3 },
        Mismatch::Length,
        Mismatch::FinishReason,
        Mismatch::OutputDigest,
        Mismatch::Trace,
    ] {
        let read = Mismatch::from_parts(mismatch.code(), mismatch.position());
        assert_eq!(read, Some(mismatch));
    }
    assert_eq!(Mismatch::from_parts("tokens", None), None);
    assert_eq!(Mismatch::from_parts("trace", Some(1)), None);
    assert_eq!(Mismatch::from_parts("", None), None);
}

#[test]
fn a_machine_that_starts_no_thread_for_a_constraint_gives_no_verdict_on_anybody() {
    let model = Arc::new(Model::from_bytes(&tiny::generate(1)).unwrap());
    let evidence = honest(&model);
    let of = |error: GuideError| super::verdict(&evidence, Err(EngineError::Constraint(error)));
    assert_eq!(of(GuideError::Unavailable), Err(NotReplayed));
    assert_eq!(
        super::verdict(&evidence, Err(EngineError::Threads)),
        Err(NotReplayed)
    );
    // A form that is not followed is the same on every machine: no honest worker ran it.
    let refused = of(GuideError::Refused("it is too costly to read".to_owned()));
    assert_eq!(refused, Ok(Err(Mismatch::Request.into())));
}
