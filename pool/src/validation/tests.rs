//! Validators on real models, in this process and behind their port, and what happens when one dies.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dovetail_audit::Mismatch;
use dovetail_commitment::{
    CONSTRAINT_BYTES_MAX, Constraint, EncodedPrompt, FinishReason, Form, OUTPUT_TOKENS_MAX,
    PROMPT_TOKENS_MAX, SamplingParams, StopSequences, TaskId, Transcript, WorkerKey, output_digest,
    prompt_commitment, trace_root,
};
use dovetail_engine::{ENGINE_VERSION, Model, Request, Runtime, run, tiny};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::models::Models;

const CONFIG: ValidatorsConfig = ValidatorsConfig {
    queue_max: 256,
    batch_max: 64,
    validator_timeout: Duration::from_secs(20),
};

/// For a replay.
const TIME_MAX: Duration = Duration::from_secs(20);

fn runtime() -> Arc<Runtime> {
    Arc::new(Runtime::new(1).unwrap())
}

pub(crate) fn tiny_model(seed: u64) -> Arc<Model> {
    Arc::new(Model::from_bytes(&tiny::generate(seed)).unwrap())
}

pub(crate) fn local(models: &Models) -> Member {
    Member {
        validator: Arc::new(ThreadValidator::new(0, runtime(), models.clone())),
        is_local: true,
    }
}

/// A pace of models that nobody measures.
fn pace() -> ReplayPace {
    ReplayPace::new(Models::default(), CONFIG.validator_timeout)
}

fn honest(model: &Arc<Model>, n: u8) -> Evidence {
    let tokens = model.encode(b"an invoice").unwrap();
    let (salt, prompt) = ([n; 32], EncodedPrompt::new(b"an invoice", tokens).unwrap());
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: 8,
    };
    let stop = StopSequences::default();
    let request = Request {
        prompt_tokens: prompt.tokens().to_vec(),
        sampling,
        seed: [n; 32],
        stop: stop.clone(),
        constraint: None,
    };
    let output = run(&runtime(), model, request).unwrap();
    assert_ne!(output.finish_reason, FinishReason::Cancelled);
    Evidence {
        transcript: Transcript {
            task_id: TaskId::from_bytes([n; 32]),
            worker_key: WorkerKey::from_bytes([2; 32]),
            model_id: model.id(),
            engine_version: ENGINE_VERSION,
            prompt_commitment: prompt_commitment(&salt, &stop, None, &prompt),
            sampling,
            seed: [n; 32],
            output_tokens: u32::try_from(output.tokens.len()).unwrap(),
            output_digest: output_digest(&output.tokens),
            trace_root: trace_root(&output.trace),
            finish_reason: output.finish_reason,
        },
        salt,
        prompt,
        stop,
        constraint: None,
        output_tokens: output.tokens,
    }
}

/// Two that hold and one that does not, in between.
fn evidence(model: &Arc<Model>) -> Vec<Arc<Evidence>> {
    let mut lie = honest(model, 2);
    lie.transcript.trace_root[0] ^= 1;
    [honest(model, 1), lie, honest(model, 3)]
        .map(Arc::new)
        .to_vec()
}

/// A validator's process: on a runtime of its own, so that it dies with all its connections.
struct Served {
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    fn start(models: &Models, listen: &str) -> Self {
        Self::with_secret(models, listen, None)
    }

    fn with_secret(models: &Models, listen: &str, secret: Option<SharedSecret>) -> Self {
        let listener = std::net::TcpListener::bind(listen).unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = service::Service::new(models.clone(), runtime(), secret);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            service::serve_on(listener, service, CancellationToken::new()).await
        });
        Self { url, runtime }
    }

    fn member(&self) -> Member {
        Member {
            validator: Arc::new(RemoteValidator::new(&self.url, None).unwrap()),
            is_local: false,
        }
    }

    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

fn start(members: Vec<Member>) -> (Validators, CancellationToken) {
    let stop = CancellationToken::new();
    let validators = Validators::start(members, CONFIG, pace(), &TaskTracker::new(), &stop);
    (validators, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_behind_its_port_says_what_one_in_the_process_says() {
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let served = Served::start(&models, "127.0.0.1:0");
    let remote = RemoteValidator::new(&served.url, None).unwrap();
    let local = ThreadValidator::new(0, runtime(), models.clone());
    assert_eq!(
        remote.describe().await.unwrap(),
        HashSet::from([model.id()])
    );
    let work = Work {
        model: model.id(),
        evidence: evidence(&model),
    };
    let verdicts = remote.replay(&work).await.unwrap();
    assert_eq!(verdicts, local.replay(&work).await.unwrap());
    assert_eq!((verdicts[0], verdicts[2]), (Ok(()), Ok(())));
    assert_eq!(verdicts[1].unwrap_err().mismatch, Mismatch::Trace);

    let unknown = Work {
        model: ModelId::from_bytes([9; 32]),
        ..work.clone()
    };
    let refused = remote.replay(&unknown).await;
    assert!(matches!(refused, Err(ValidatorError::ModelUnknown)));
    served.kill();
    let refused = remote.replay(&work).await;
    assert!(matches!(refused, Err(ValidatorError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_port_refuses_what_is_malformed_and_too_much() {
    use dovetail_api::validation_v1::{ReplayRequest, validation_client::ValidationClient};
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let served = Served::start(&models, "127.0.0.1:0");
    let mut client = ValidationClient::connect(served.url.clone()).await.unwrap();
    let good = wire::evidence_to_proto(&honest(&model, 1));
    let request = |count: usize| ReplayRequest {
        engine_version: u32::from(ENGINE_VERSION),
        model_id: model.id().to_bytes().to_vec(),
        evidence: vec![good.clone(); count],
        guide: dovetail_commitment::GUIDE.to_owned(),
    };
    let mut code = async |request: ReplayRequest| client.replay(request).await.unwrap_err().code();
    assert_eq!(code(request(0)).await, tonic::Code::InvalidArgument);
    assert_eq!(code(request(65)).await, tonic::Code::InvalidArgument);
    let mut bad = request(1);
    bad.model_id.pop();
    assert_eq!(code(bad).await, tonic::Code::InvalidArgument);
    let mut bad = request(1);
    bad.engine_version += 1;
    assert_eq!(code(bad).await, tonic::Code::FailedPrecondition);
    let mut bad = request(1);
    bad.guide.push('0');
    assert_eq!(code(bad).await, tonic::Code::FailedPrecondition);
    let mut bad = request(1);
    bad.evidence[0].prompt = vec![0; dovetail_api::VALIDATION_MESSAGE_BYTES_MAX];
    assert_eq!(code(bad).await, tonic::Code::OutOfRange);
    served.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_longest_evidence_is_one_message() {
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let served = Served::start(&models, "127.0.0.1:0");
    let remote = RemoteValidator::new(&served.url, None).unwrap();
    let mut longest = honest(&model, 1);
    longest.prompt = EncodedPrompt::new(b"x", vec![u32::MAX; PROMPT_TOKENS_MAX]).unwrap();
    longest.output_tokens = vec![u32::MAX; OUTPUT_TOKENS_MAX as usize];
    let schema = Form::JsonSchema(" ".repeat(CONSTRAINT_BYTES_MAX));
    longest.constraint = Some(Constraint::new(schema).unwrap());
    let longest = Arc::new(longest);
    // A model that is not there: all of it was read when the answer comes.
    let work = Work {
        model: ModelId::from_bytes([9; 32]),
        evidence: vec![longest; dovetail_api::VALIDATION_EVIDENCE_MAX],
    };
    let refused = remote.replay(&work).await;
    assert!(
        matches!(refused, Err(ValidatorError::ModelUnknown)),
        "{refused:?}"
    );
    served.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_validators_process_dies_another_takes_over_and_it_is_asked_again_once_back() {
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let served = Served::start(&models, "127.0.0.1:0");
    let address = served.url.trim_start_matches("http://").to_owned();
    let (validators, stop) = start(vec![served.member(), local(&models)]);
    let evidence = evidence(&model);
    let replay = || validators.replay(model.id(), evidence.clone(), TIME_MAX);
    // Whoever was ready first.
    replay().await.unwrap();
    until_replayed_by(0, &replay).await;

    served.kill();
    let taken_over = replay().await.unwrap();
    assert_eq!(taken_over.by, 1);
    assert_eq!(taken_over.verdicts.len(), 3);

    let back = Served::start(&models, &address);
    until_replayed_by(0, &replay).await;
    back.kill();
    stop.cancel();
}

async fn until_replayed_by<F: Future<Output = Result<Replayed, NotReplayed>>>(
    validator: usize,
    replay: &impl Fn() -> F,
) {
    for _ in 0..200 {
        if replay().await.unwrap().by == validator {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("validator {validator} is not asked");
}

/// Says that it is here, and dies over the first work it gets.
struct Dying(AtomicUsize);

#[tonic::async_trait]
impl Validator for Dying {
    fn name(&self) -> &str {
        "dying"
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(HashSet::from([tiny_model(1).id()])),
            _ => Err(ValidatorError::Unreachable("dead".to_owned())),
        }
    }

    async fn replay(&self, _work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(ValidatorError::Unreachable("dead".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dying_validator_held_is_answered_by_another() {
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let dying = Arc::new(Dying(AtomicUsize::new(0)));
    let member = Member {
        validator: dying.clone(),
        is_local: false,
    };
    let (validators, stop) = start(vec![member, local(&models)]);
    let replays = (0..8).map(|_| {
        let (validators, model) = (validators.clone(), Arc::clone(&model));
        async move {
            let evidence = evidence(&model);
            validators.replay(model.id(), evidence, TIME_MAX).await
        }
    });
    for replayed in futures_of(replays).await {
        assert_eq!(replayed.unwrap().verdicts.len(), 3);
    }
    stop.cancel();
}

async fn futures_of<F>(futures: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}

/// Takes so long for each piece of work, and finds that nothing holds.
struct Slow(Duration);

#[tonic::async_trait]
impl Validator for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        Ok(HashSet::from([tiny_model(1).id()]))
    }

    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        tokio::time::sleep(self.0).await;
        Ok(vec![Err(Mismatch::Trace.into()); work.evidence.len()])
    }
}

/// A validator that is slow, and takes one sample at a time.
fn start_slow(takes: Duration) -> (Validators, CancellationToken) {
    let stop = CancellationToken::new();
    let member = Member {
        validator: Arc::new(Slow(takes)),
        is_local: true,
    };
    let config = ValidatorsConfig {
        batch_max: 3,
        ..CONFIG
    };
    let tracker = TaskTracker::new();
    let validators = Validators::start(vec![member], config, pace(), &tracker, &stop);
    (validators, stop)
}

/// Else whoever has many claims makes those of others, that are honest, look as if they could not be replayed.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_validator_is_no_part_of_a_replays_time_and_has_its_own() {
    let time_max = Duration::from_secs(3);
    let (validators, stop) = start_slow(time_max * 6 / 10);
    let model = tiny_model(1);
    let replays = (0..3).map(|_| {
        let (validators, evidence) = (validators.clone(), evidence(&model));
        let id = model.id();
        async move { validators.replay(id, evidence, time_max).await }
    });
    let replayed = futures_of(replays).await;
    // One has waited for another, and one in vain for both.
    let count = |is: fn(&Result<Replayed, NotReplayed>) -> bool| {
        replayed.iter().filter(|replayed| is(replayed)).count()
    };
    assert_eq!(count(Result::is_ok), 2, "{replayed:?}");
    assert_eq!(count(|it| matches!(it, Err(NotReplayed::Crowded))), 1);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_takes_too_long_is_given_up_and_still_says_in_the_end_what_it_found() {
    let time_max = Duration::from_secs(1);
    let (validators, stop) = start_slow(time_max * 2);
    let model = tiny_model(1);
    let replayed = validators.replay(model.id(), evidence(&model), time_max);
    let Err(NotReplayed::Late(mut late)) = replayed.await else {
        panic!("it was not given up");
    };
    let replayed = late.verdicts().await.unwrap();
    assert_eq!(replayed.verdicts, [Err(Mismatch::Trace.into()); 3]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_validator_a_sample_is_dropped_at_the_end_and_not_before() {
    let (validators, stop) = start(Vec::new());
    let model = tiny_model(1);
    let waiting = {
        let validators = validators.clone();
        let evidence = evidence(&model);
        tokio::spawn(async move { validators.replay(model.id(), evidence, TIME_MAX).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    waiting.abort();
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_and_a_validator_without_the_same_secret_believe_each_other_nothing() {
    let model = tiny_model(1);
    let models: Models = [Arc::clone(&model)].into_iter().collect();
    let secret = |n| Some(SharedSecret::from_bytes([n; 32]));
    let work = Work {
        model: model.id(),
        evidence: evidence(&model),
    };
    let served = Served::with_secret(&models, "127.0.0.1:0", secret(1));
    let with = |secret| RemoteValidator::new(&served.url, secret).unwrap();
    let good = with(secret(1));
    assert_eq!(good.describe().await.unwrap(), HashSet::from([model.id()]));
    assert_eq!(good.replay(&work).await.unwrap().len(), 3);
    for other in [secret(2), None] {
        let remote = with(other);
        let refused = remote.describe().await;
        assert!(
            matches!(refused, Err(ValidatorError::Unauthenticated)),
            "{refused:?}"
        );
        let refused = remote.replay(&work).await;
        assert!(
            matches!(refused, Err(ValidatorError::Unauthenticated)),
            "{refused:?}"
        );
    }
    // Whoever poses as a validator has no secret to prove.
    let posing = Served::start(&models, "127.0.0.1:0");
    let remote = RemoteValidator::new(&posing.url, secret(1)).unwrap();
    let refused = remote.replay(&work).await;
    assert!(
        matches!(refused, Err(ValidatorError::Unauthenticated)),
        "{refused:?}"
    );
    served.kill();
    posing.kill();
}

#[tokio::test]
async fn a_validator_that_strangers_can_reach_needs_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("tiny.safetensors");
    std::fs::write(&model, tiny::generate(1)).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    let serve = |secret_file| {
        let options = ValidatorOptions {
            listen: "0.0.0.0:0".parse().unwrap(),
            secret_file,
            models: vec![model.clone()],
            threads: 1,
        };
        serve_validator(options, stop.clone(), |_| ())
    };
    let refused = serve(None).await.unwrap_err().to_string();
    assert!(refused.contains("--secret-file"), "{refused}");
    serve(Some(dir.path().join("secret"))).await.unwrap();
}
