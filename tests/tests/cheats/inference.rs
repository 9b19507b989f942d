//! Lies about the computation. Only a replay finds them, and a new worker is replayed whole.

use dovetail_commitment::{Constraint, FinishReason, Form, StopSequences};
use dovetail_engine::{ENGINE_VERSION, Output, ReplayInput, Request, Runtime, forced_trace};
use dovetail_sv2::extension::AssignTask;

use crate::fixture::{BATCH_MSAT, Case};
use crate::scripted_worker::{Models, ScriptedWorker, TestBatch, honest, request, rewritten};

/// Takes a task, delivers what `lie` makes of the honest output, claims it: the audit names `found`,
/// and the cheat is the worse for it.
async fn is_caught(found: &str, lie: impl FnOnce(&Models, &AssignTask, &mut Output)) {
    let (case, mut cheat) = Case::with_worker().await;
    let earned = earn(&case, &mut cheat).await;
    let task = case.task(&mut cheat).await;
    caught(&case, &mut cheat, (&earned, &task), found, lie).await;
    case.end().await;
}

/// What it has earned honestly is held, and is its collateral. Before it takes a task: a new worker has one at a time.
async fn earn(case: &Case, cheat: &mut ScriptedWorker) -> TestBatch {
    let earned = case.batch(cheat).await;
    cheat.claim(&earned.root).await.credited();
    case.earned_batches(cheat, 1);
    earned
}

async fn caught(
    case: &Case,
    cheat: &mut ScriptedWorker,
    (earned, task): (&TestBatch, &AssignTask),
    found: &str,
    lie: impl FnOnce(&Models, &AssignTask, &mut Output),
) {
    let batch = found_out(case, cheat, task, found, lie).await;
    // It is left with nothing, and with the reason on record.
    let forfeited = format!(
        "SELECT count(*) FROM held_credits WHERE worker = '\\x{}' AND state = 'forfeited'
           AND root = '\\x{}' AND amount_msat = {BATCH_MSAT}",
        cheat.keys.name, earned.root
    );
    assert_eq!(case.fixture.number(&forfeited), 1);
    let on_record = format!(
        "SELECT count(*) FROM appeals WHERE root = '\\x{}' AND worker = '\\x{}'
           AND task_id = '\\x{}' AND mismatch = '{found}' AND engine_version = {ENGINE_VERSION}
           AND forfeited_msat = {BATCH_MSAT} AND forfeited_credits = 1",
        batch.root, cheat.keys.name, task.task_id
    );
    assert_eq!(case.fixture.number(&on_record), 1);
}

/// What a lie about this task comes to: `found`, a spent batch, and nothing earned.
async fn found_out(
    case: &Case,
    cheat: &mut ScriptedWorker,
    task: &AssignTask,
    found: &str,
    lie: impl FnOnce(&Models, &AssignTask, &mut Output),
) -> TestBatch {
    let mut output = honest(&case.models().asked, task);
    lie(case.models(), task, &mut output);
    let batch = cheat.batch_output(task, &output).await;
    let outcome = cheat.claim(&batch.root).await.caught();
    assert_eq!((outcome.accepted, outcome.code.as_str()), (false, found));
    // The root is of no use any more, and the task is over.
    let spent = cheat.register_batch(&batch).await;
    assert_eq!(spent, Err("batch-spent".to_owned()));
    let failed = format!(
        "SELECT count(*) FROM tasks WHERE id = '\\x{}' AND state = 'failed'",
        task.task_id
    );
    assert_eq!(case.fixture.number(&failed), 1);
    assert_eq!(case.fixture.inference_msat(&cheat.keys.name), 0);
    batch
}

/// What the asked model's trace is when it only reads these tokens.
fn read(models: &Models, task: &AssignTask, tokens: &[u32]) -> Vec<[u8; 32]> {
    let input = ReplayInput {
        request: request(task),
        tokens: tokens.to_vec(),
    };
    forced_trace(&Runtime::new(1).unwrap(), &models.asked, &input).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_worker_that_is_played_is_credited_so_the_cheats_fail_for_their_lies() {
    let (case, mut worker, batch) = Case::with_batch().await;
    let outcome = worker.claim(&batch.root).await.credited();
    assert_eq!((outcome.accepted, outcome.code.as_str()), (true, ""));
    case.earned_batches(&worker, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model() {
    is_caught("tokens", |models, task, output| {
        *output = honest(&models.other, task);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smaller_model() {
    is_caught("tokens", |models, task, output| {
        *output = honest(&models.smaller, task);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_model_in_fewer_bits() {
    is_caught("tokens", |models, task, output| {
        *output = honest(&models.coarser, task);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_a_draft_model_with_the_digests_of_a_real_prefill() {
    is_caught("tokens", |models, task, output| {
        *output = honest(&models.smaller, task);
        output.trace = read(models, task, &output.tokens);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prompt_changed() {
    is_caught("tokens", |models, task, output| {
        *output = rewritten(&models.asked, task, |request| {
            request.prompt_tokens = models.asked.encode(b"something easier").unwrap();
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_the_prompts_tokens_left_out() {
    is_caught("tokens", |models, task, output| {
        *output = rewritten(&models.asked, task, |request| {
            let half = request.prompt_tokens.len() / 2;
            request.prompt_tokens.truncate(half);
        });
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_the_prompts_tokens_exchanged() {
    is_caught("tokens", |models, task, output| {
        *output = rewritten(&models.asked, task, |request| {
            request.prompt_tokens.swap(1, 2);
        });
    })
    .await;
}

async fn another_sampling_is_caught(change: impl FnOnce(&mut Request)) {
    is_caught("tokens", |models, task, output| {
        *output = rewritten(&models.asked, task, change);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_seed() {
    another_sampling_is_caught(|request| request.seed[0] ^= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_temperature() {
    another_sampling_is_caught(|request| request.sampling.temperature_milli = 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_end() {
    let (case, mut cheat) = Case::with_worker().await;
    // Worth little, so nothing is held: then it is replayed for certain.
    let task = case.task(&mut cheat).await;
    let early = |_: &Models, _: &AssignTask, output: &mut Output| {
        output.tokens.truncate(10);
        output.trace.truncate(1);
        output.finish_reason = FinishReason::Stop;
    };
    found_out(&case, &mut cheat, &task, "length", early).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_for_another_reason() {
    is_caught("finish-reason", |_, _, output| {
        output.finish_reason = FinishReason::Stop;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_padded_past_the_stop_sequence() {
    let (case, mut cheat) = Case::with_worker().await;
    // Any letter: the tiny model's text has few of anything else.
    let letters = [b"a", b"e", b"o", b" "].map(|letter| letter.to_vec());
    let stop = StopSequences::new(letters.to_vec()).unwrap();
    let earned = earn(&case, &mut cheat).await;
    let task = case.task_until(&mut cheat, stop).await;
    caught(
        &case,
        &mut cheat,
        (&earned, &task),
        "length",
        |models, task, output| {
            assert_eq!(output.finish_reason, FinishReason::Stop);
            *output = rewritten(&models.asked, task, |request| {
                request.stop = StopSequences::default();
            });
        },
    )
    .await;
    case.end().await;
}

/// Three digits again and again: nothing that the tiny model would write by itself.
fn digits() -> Form {
    Form::Regex("[0-9]{3}(, [0-9]{3}){3,20}".to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_ignored() {
    let (case, mut cheat) = Case::with_worker().await;
    let earned = earn(&case, &mut cheat).await;
    let task = case.task_of_form(&mut cheat, digits()).await;
    let free = |models: &Models, task: &AssignTask, output: &mut Output| {
        let honest = std::mem::replace(
            output,
            rewritten(&models.asked, task, |request| request.constraint = None),
        );
        assert_ne!(honest.tokens[0], output.tokens[0]);
    };
    caught(&case, &mut cheat, (&earned, &task), "tokens", free).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_constraint_than_the_one_that_was_asked_for() {
    let (case, mut cheat) = Case::with_worker().await;
    // Worth little, so nothing is held: then it is replayed for certain.
    let task = case.task_of_form(&mut cheat, digits()).await;
    // Easier: digits as well, but fewer.
    let easier = |models: &Models, task: &AssignTask, output: &mut Output| {
        *output = rewritten(&models.asked, task, |request| {
            let form = Form::Regex("[0-9]{3}".to_owned());
            request.constraint = Some(Constraint::new(form).unwrap());
        });
    };
    found_out(&case, &mut cheat, &task, "length", easier).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_is_said_to_be_unmet() {
    let (case, mut cheat) = Case::with_worker().await;
    // Worth little, so nothing is held: then it is replayed for certain.
    let task = case.task_of_form(&mut cheat, digits()).await;
    let given_up = |_: &Models, _: &AssignTask, output: &mut Output| {
        output.tokens.truncate(4);
        output.trace.truncate(1);
        output.finish_reason = FinishReason::ConstraintUnmet;
    };
    found_out(&case, &mut cheat, &task, "length", given_up).await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_answer_of_the_form_is_credited() {
    let (case, mut worker) = Case::with_worker().await;
    let task = case.task_of_form(&mut worker, digits()).await;
    let output = honest(&case.models().asked, &task);
    let text = case.models().asked.decode(&output.tokens);
    assert!(text.iter().all(|byte| b"0123456789, ".contains(byte)));
    let batch = worker.batch_output(&task, &output).await;
    worker.claim(&batch.root).await.credited();
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_token_under_the_honest_digests() {
    is_caught("tokens", |_, _, output| output.tokens[11] ^= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_last_token_which_no_digest_covers() {
    is_caught("tokens", |models, task, output| {
        let honest_trace = output.trace.clone();
        *output.tokens.last_mut().unwrap() ^= 1;
        output.trace = read(models, task, &output.tokens);
        assert_eq!(output.trace, honest_trace);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_tokens_under_a_wrong_digest() {
    is_caught("trace", |_, _, output| output.trace[0][0] ^= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_tokens_without_any_digest() {
    is_caught("trace", |_, _, output| output.trace.clear()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_another_worker_was_paid_for() {
    let (case, mut victim) = Case::with_worker().await;
    let theirs = case.task(&mut victim).await;
    let output = honest(&case.models().asked, &theirs);
    drop(victim);
    // Another task, even with the same prompt, has a seed of its own.
    let mut thief = case.worker().await;
    let earned = earn(&case, &mut thief).await;
    let task = case.task(&mut thief).await;
    caught(
        &case,
        &mut thief,
        (&earned, &task),
        "tokens",
        |_, _, ours| *ours = output,
    )
    .await;
    case.end().await;
}
