//! Transcripts that do not belong to their task. They are refused when they are delivered, which costs
//! nothing: the honest one is still taken.

use dovetail_commitment::{
    EncodedPrompt, FinishReason, ModelId, OUTPUT_TOKENS_MAX, TaskId, Transcript, prompt_commitment,
};

use dovetail_sv2::extension::StreamTokens;

use crate::fixture::Case;
use crate::scripted_worker::{assert_refused, batch_of, honest, transcript};

const NOT_MATCHING: &str = "transcript-not-matching-task";

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_with_any_field_changed() {
    let (case, mut cheat) = Case::with_worker().await;
    let task = case.task(&mut cheat).await;
    let output = honest(&case.models().asked, &task);
    let good = transcript(cheat.keys.name, &task, &output);
    cheat.stream(task.task_id, &output.tokens).await;

    let committed = |prompt: &EncodedPrompt| Transcript {
        prompt_commitment: prompt_commitment(&task.salt, &task.stop, None, prompt),
        ..good.clone()
    };
    let tokens = task.prompt.tokens().to_vec();
    let other_text = EncodedPrompt::new(b"something easier", tokens.clone()).unwrap();
    let fewer = tokens[..tokens.len() / 2].to_vec();
    let other_tokens = EncodedPrompt::from_parts(*task.prompt.text(), fewer).unwrap();
    let lies: [fn(&mut Transcript); 10] = [
        |t| t.task_id = TaskId::from_bytes([9; 32]),
        |t| t.worker_key = dovetail_commitment::WorkerKey::from_bytes([9; 32]),
        |t| t.model_id = ModelId::from_bytes([9; 32]),
        |t| t.engine_version += 1,
        |t| t.sampling.temperature_milli = 0,
        |t| t.sampling.max_tokens = OUTPUT_TOKENS_MAX,
        |t| t.seed[0] ^= 1,
        |t| t.output_tokens -= 1,
        |t| t.output_digest[0] ^= 1,
        // A prefix of a task that nobody cancelled.
        |t| t.finish_reason = FinishReason::Cancelled,
    ];
    let mut changed: Vec<Transcript> = lies
        .iter()
        .map(|lie| {
            let mut transcript = good.clone();
            lie(&mut transcript);
            transcript
        })
        .collect();
    changed.extend([&other_text, &other_tokens].map(committed));
    for transcript in changed {
        let refused = cheat.deliver_bytes(task.task_id, transcript.encode()).await;
        assert_eq!(refused, Err(NOT_MATCHING.to_owned()), "{transcript:?}");
    }
    cheat
        .deliver_bytes(task.task_id, good.encode())
        .await
        .unwrap();
    let batch = batch_of(&[good]);
    cheat.register_batch(&batch).await.unwrap();
    cheat.claim(&batch.root).await.credited();
    case.earned_batches(&cheat, 1);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tokens_than_were_streamed_or_none() {
    let (case, mut cheat) = Case::with_worker().await;
    for streamed in [0, 16, 39] {
        let task = case.task(&mut cheat).await;
        let output = honest(&case.models().asked, &task);
        let good = transcript(cheat.keys.name, &task, &output);
        let refused = cheat.deliver(&output.tokens[..streamed], &good).await;
        assert_eq!(refused, Err(NOT_MATCHING.to_owned()), "{streamed} streamed");
        // A new worker gets the next task only once it is done with this one.
        let rest = StreamTokens {
            task_id: task.task_id,
            first_position: u32::try_from(streamed).unwrap(),
            tokens: output.tokens[streamed..].to_vec(),
        };
        cheat.wire.send(&rest).await;
        let taken = cheat.deliver_bytes(task.task_id, good.encode()).await;
        assert_eq!(taken, Ok(()));
    }
    let task = case.task(&mut cheat).await;
    let output = honest(&case.models().asked, &task);
    let good = transcript(cheat.keys.name, &task, &output);
    let mut other = output.tokens.clone();
    other[0] ^= 1;
    assert_refused(cheat.deliver(&other, &good).await, NOT_MATCHING);
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_padded_past_its_limit() {
    let (case, mut cheat) = Case::with_worker().await;
    let task = case.task(&mut cheat).await;
    let mut output = honest(&case.models().asked, &task);
    output.tokens.push(7);
    let padded = transcript(cheat.keys.name, &task, &output);
    assert_refused(cheat.deliver(&output.tokens, &padded).await, NOT_MATCHING);
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_transcript() {
    let (case, mut cheat) = Case::with_worker().await;
    let task = case.task(&mut cheat).await;
    let output = honest(&case.models().asked, &task);
    let good = transcript(cheat.keys.name, &task, &output).encode();
    let last = good.len() - 1;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let longer = [good.clone(), vec![0]].concat();
    let junk = [
        Vec::new(),
        good[..last].to_vec(),
        longer,
        with(0, 2),
        with(last, 4),
        vec![0xff; 1_024],
    ];
    for bytes in junk {
        assert_refused(
            cheat.deliver_bytes(task.task_id, bytes).await,
            "transcript-malformed",
        );
    }
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_of_a_task_that_is_not_ones_own() {
    let (case, mut thief) = Case::with_worker().await;
    let task = case.task(&mut thief).await;
    let output = honest(&case.models().asked, &task);
    let mut stolen = transcript(thief.keys.name, &task, &output);
    stolen.task_id = case.bystander_batch().tasks[0];
    assert_refused(
        thief.deliver(&output.tokens, &stolen).await,
        "task-not-yours",
    );
    stolen.task_id = TaskId::from_bytes([9; 32]);
    assert_refused(thief.deliver(&output.tokens, &stolen).await, "task-unknown");
    case.end().await;
}
