//! Cheats over the wire, against a running pool: each is refused with its own code, earns nothing,
//! and leaves honest work alone.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dovetail_agent::{AgentClient, Question};
use dovetail_commitment::{
    FinishReason, SamplingParams, TaskId, Transcript, output_digest, prompt_commitment, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Model, Output, Request, Runtime, run, tiny};
use dovetail_sv2::extension::{AssignTask, Bytes, DeliverTranscript, StreamTokens};
use dovetail_templates::{SourceConfig, TemplateHandle};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use dovetail_worker::claim::{ClaimEnd, Claimer};
use dovetail_worker::declarator::DeclaratorOptions;
use dovetail_worker::keys::WorkerKeys;
use dovetail_worker::session::{PoolEvent, PoolOptions, PoolSession};
use dovetail_worker::transcripts::{Finished, ReadyBatch};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

const TIME_MAX: Duration = Duration::from_secs(60);

/// A pool, its chain and its declarator, without any honest worker.
struct Arena {
    scenario: Scenario,
    _dir: tempfile::TempDir,
    templates: TemplateHandle,
    model: Arc<Model>,
    stop: CancellationToken,
}

impl Arena {
    fn start() -> Self {
        let options = Options {
            worker: false,
            hasher: false,
            ..Options::default()
        };
        let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
        let stop = CancellationToken::new();
        let source = SourceConfig::TemplateProvider {
            address: scenario.ground.template_provider().unwrap().to_owned(),
            authority_public_key: None,
        };
        Self {
            templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            model: Arc::new(Model::load(&scenario.file("model.safetensors")).unwrap()),
            scenario,
            _dir: dir,
            stop,
        }
    }

    /// Asks for a completion in the name of an agent that does not wait for it.
    async fn ask(&self) {
        let client = AgentClient::connect(&self.scenario.grpc).await.unwrap();
        let sampling = SamplingParams {
            temperature_milli: 800,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 40,
        };
        let question = Question::new(self.model.id(), b"what was asked".to_vec(), sampling);
        tokio::spawn(async move {
            let mut answer = client.ask(question).await.unwrap();
            while let Ok(Some(_)) = answer.next().await {}
        });
    }

    async fn worker(&self) -> Cheat {
        let keys = WorkerKeys::generate();
        let options = PoolOptions {
            address: self.scenario.mining.clone(),
            authority: Some(AUTHORITY_PUBLIC.parse().unwrap()),
            models: vec![self.model.id()],
            max_tasks: 4,
            nominal_hash_rate: 1_000_000.0,
            declares_jobs: true,
        };
        Cheat {
            session: PoolSession::open(&options, &keys).await.unwrap(),
            keys,
        }
    }

    /// What the ledger owes anybody for inference.
    fn inference_credit(&self) -> String {
        self.scenario
            .query("SELECT COALESCE(sum(debits_posted), 0) FROM accounts WHERE name = 'pool:inference'")
            .unwrap()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A worker that the test plays.
struct Cheat {
    session: PoolSession,
    keys: WorkerKeys,
}

impl Cheat {
    async fn task(&mut self) -> AssignTask {
        self.wait(|event| match event {
            PoolEvent::Task(task) => Some(task),
            _ => None,
        })
        .await
    }

    async fn wait<T>(&mut self, mut wanted: impl FnMut(PoolEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                if let Some(found) = wanted(self.session.next().await.unwrap()) {
                    return found;
                }
            }
        };
        tokio::time::timeout(TIME_MAX, search).await.unwrap()
    }

    fn transcript(&self, task: &AssignTask, output: &Output) -> Transcript {
        Transcript {
            task_id: task.task_id,
            worker_key: self.keys.name,
            model_id: task.model_id,
            engine_version: ENGINE_VERSION,
            prompt_commitment: prompt_commitment(&task.salt, &task.stop, &task.prompt.0),
            sampling: task.sampling,
            seed: task.seed,
            output_tokens: u32::try_from(output.tokens.len()).unwrap(),
            output_digest: output_digest(&output.tokens),
            trace_root: trace_root(&output.trace),
            finish_reason: output.finish_reason,
        }
    }

    /// Streams the tokens and delivers the transcript; the code if it is refused.
    async fn deliver(&mut self, tokens: &[u32], transcript: &Transcript) -> Result<(), String> {
        for (chunk, first_position) in tokens.chunks(16).zip((0..).step_by(16)) {
            self.session
                .send(&StreamTokens {
                    task_id: transcript.task_id,
                    first_position,
                    tokens: chunk.to_vec(),
                })
                .unwrap();
        }
        self.session
            .send(&DeliverTranscript {
                task_id: transcript.task_id,
                transcript: Bytes(transcript.encode()),
            })
            .unwrap();
        self.wait(|event| match event {
            PoolEvent::TranscriptAccepted(_) => Some(Ok(())),
            PoolEvent::TranscriptRefused(_, code) => Some(Err(code)),
            _ => None,
        })
        .await
    }

    /// Registers, declares, hashes and claims the batch as an honest worker would.
    async fn claim(&mut self, arena: &Arena, batch: &ReadyBatch) -> ClaimEnd {
        let (events_in, events) = mpsc::channel(256);
        let (channel_in, channel) = watch::channel(self.session.channel().clone());
        let declarator = DeclaratorOptions {
            address: arena.scenario.declaration.clone(),
            authority: Some(AUTHORITY_PUBLIC.parse().unwrap()),
        };
        let mut claimer = Claimer::new(
            self.session.outbox().clone(),
            channel,
            events,
            arena.templates.clone(),
            declarator,
            self.keys.clone(),
        );
        let pump = async {
            loop {
                let event = self.session.next().await.unwrap();
                let _ = channel_in.send(self.session.channel().clone());
                let _ = events_in.send(event).await;
            }
        };
        tokio::select! {
            end = tokio::time::timeout(TIME_MAX, claimer.claim(batch)) => end.unwrap().unwrap(),
            () = pump => unreachable!("the pump runs until the claim has ended"),
        }
    }

    /// A whole cheat: takes a task, delivers what `lie` makes of the honest output, and claims it.
    async fn cheat(
        &mut self,
        arena: &Arena,
        lie: impl FnOnce(&AssignTask, &mut Output),
    ) -> ClaimEnd {
        arena.ask().await;
        let task = self.task().await;
        let mut output = honest(&arena.model, &task);
        lie(&task, &mut output);
        let transcript = self.transcript(&task, &output);
        self.deliver(&output.tokens, &transcript).await.unwrap();
        self.claim(arena, &batch(vec![transcript])).await
    }
}

fn honest(model: &Arc<Model>, task: &AssignTask) -> Output {
    computed(model, request(model, task))
}

fn computed(model: &Arc<Model>, request: Request) -> Output {
    run(&Runtime::new(1).unwrap(), model, request).unwrap()
}

fn request(model: &Model, task: &AssignTask) -> Request {
    Request {
        prompt_tokens: model.encode(&task.prompt.0).unwrap(),
        sampling: task.sampling,
        seed: task.seed,
        stop: task.stop.clone(),
    }
}

fn batch(transcripts: Vec<Transcript>) -> ReadyBatch {
    let expires = Instant::now() + Duration::from_secs(600);
    let items = transcripts.into_iter().map(|transcript| Finished {
        transcript,
        expires,
        accepted: true,
    });
    ReadyBatch::new(items.collect()).unwrap()
}

fn assert_mismatch(arena: &Arena, end: &ClaimEnd) {
    assert!(
        matches!(end, ClaimEnd::Settled { accepted: false, code, .. } if code == "inference-mismatch"),
        "{end:?}"
    );
    assert_eq!(arena.inference_credit(), "0");
    let inference = arena
        .scenario
        .query("SELECT count(*) FROM shares WHERE kind = 'inference'");
    assert_eq!(inference.unwrap(), "0");
    assert_eq!(
        arena.scenario.query("SELECT state FROM tasks").unwrap(),
        "failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_worker_that_is_played_is_credited_so_the_cheats_fail_for_their_lies() {
    let arena = Arena::start();
    let end = arena.worker().await.cheat(&arena, |_, _| {}).await;
    assert!(
        matches!(end, ClaimEnd::Settled { accepted: true, .. }),
        "{end:?}"
    );
    assert_eq!(arena.inference_credit(), "40000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_token_is_found() {
    let arena = Arena::start();
    let end = arena
        .worker()
        .await
        .cheat(&arena, |_, output| output.tokens[11] ^= 1)
        .await;
    assert_mismatch(&arena, &end);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_found() {
    let arena = Arena::start();
    let other = Arc::new(Model::from_bytes(&tiny::generate(2)).unwrap());
    let end = arena
        .worker()
        .await
        .cheat(&arena, |task, output| *output = honest(&other, task))
        .await;
    assert_mismatch(&arena, &end);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_prompt_is_found() {
    let arena = Arena::start();
    let model = Arc::clone(&arena.model);
    let end = arena
        .worker()
        .await
        .cheat(&arena, |task, output| {
            let mut request = request(&model, task);
            request.prompt_tokens = model.encode(b"something easier").unwrap();
            *output = computed(&model, request);
        })
        .await;
    assert_mismatch(&arena, &end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_output_is_found() {
    let arena = Arena::start();
    let end = arena
        .worker()
        .await
        .cheat(&arena, |_, output| {
            output.tokens.truncate(10);
            output.finish_reason = FinishReason::Stop;
        })
        .await;
    assert_mismatch(&arena, &end);
}

#[tokio::test(flavor = "multi_thread")]
async fn right_tokens_with_a_wrong_trace_are_found() {
    let arena = Arena::start();
    let end = arena
        .worker()
        .await
        .cheat(&arena, |_, output| output.trace[0][0] ^= 1)
        .await;
    assert_mismatch(&arena, &end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_of_other_tokens_than_were_streamed_is_refused_at_once() {
    let arena = Arena::start();
    let mut worker = arena.worker().await;
    arena.ask().await;
    let task = worker.task().await;
    let output = honest(&arena.model, &task);
    let transcript = worker.transcript(&task, &output);
    let mut streamed = output.tokens.clone();
    streamed[0] ^= 1;
    let refused = worker.deliver(&streamed, &transcript).await;
    assert_eq!(refused, Err("transcript-not-matching-task".to_owned()));
    let junk = Transcript {
        task_id: TaskId::from_bytes([9; 32]),
        ..transcript
    };
    let refused = worker.deliver(&[], &junk).await;
    assert_eq!(refused, Err("task-unknown".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_spent_once() {
    let arena = Arena::start();
    let mut worker = arena.worker().await;
    arena.ask().await;
    let task = worker.task().await;
    let output = honest(&arena.model, &task);
    let transcript = worker.transcript(&task, &output);
    worker.deliver(&output.tokens, &transcript).await.unwrap();
    let batch = batch(vec![transcript]);
    let first = worker.claim(&arena, &batch).await;
    assert!(
        matches!(first, ClaimEnd::Settled { accepted: true, .. }),
        "{first:?}"
    );
    let second = worker.claim(&arena, &batch).await;
    assert_eq!(second, ClaimEnd::Refused("batch-spent".to_owned()));
    assert_eq!(arena.inference_credit(), "40000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_on_anothers_transcript_is_refused() {
    let arena = Arena::start();
    let mut honest_worker = arena.worker().await;
    arena.ask().await;
    let task = honest_worker.task().await;
    let output = honest(&arena.model, &task);
    let transcript = honest_worker.transcript(&task, &output);
    honest_worker
        .deliver(&output.tokens, &transcript)
        .await
        .unwrap();

    let mut thief = arena.worker().await;
    let stolen = batch(vec![transcript.clone()]);
    let end = thief.claim(&arena, &stolen).await;
    assert_eq!(end, ClaimEnd::Refused("task-not-yours".to_owned()));

    // The one whom it belongs to is untouched.
    let end = honest_worker.claim(&arena, &stolen).await;
    assert!(
        matches!(end, ClaimEnd::Settled { accepted: true, .. }),
        "{end:?}"
    );
}
