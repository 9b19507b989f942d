//! Where a case takes place: a pool with its chain and declarator, an agent that asks, and an honest
//! worker whom nothing may disturb.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use dovetail_agent::{AgentClient, AgentError, Answer, Question};
use dovetail_commitment::{
    Constraint, FinishReason, Form, ModelId, SamplingParams, StopSequences, TaskId, Transcript,
    WorkerKey,
};
use dovetail_engine::Model;
use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::AssignTask;
use dovetail_templates::SourceConfig;
use dovetail_tests::network::Network;
use dovetail_tests::postgres::Held;
use dovetail_tests::scenario::{Options, Scenario, tiny_file};
use tokio::sync::OwnedMutexGuard;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::scripted_worker::{
    Endpoints, Models, ScriptedWorker, TIME_MAX, TestBatch, batch_of, honest,
};

/// The model of the honest worker, so that the pool gives it no task of the cheats'.
const BYSTANDER_MODEL: u64 = 3;
/// Tokens of a task, and what they earn.
pub(crate) const TOKENS: u32 = 40;
/// What an honest batch of one task earns: 1000 msat a token.
pub(crate) const BATCH_MSAT: i64 = 1_000 * TOKENS as i64;

/// A running pool, its chain, its declarator.
pub(crate) struct Fixture {
    scenario: Mutex<Scenario>,
    models: Models,
    bystander_model: Arc<Model>,
    turns: Arc<tokio::sync::Mutex<()>>,
    _dir: tempfile::TempDir,
}

/// Shares are easy, blocks are not found by chance, and credit is held.
pub(crate) fn options() -> Options {
    Options {
        worker: false,
        hasher: false,
        min_hashrate: 1_000,
        maturity_s: 600,
        more_models: &[BYSTANDER_MODEL],
        ..Options::default()
    }
}

impl Fixture {
    pub(crate) fn start(options: &Options) -> Arc<Self> {
        let (dir, scenario) = dovetail_tests::scenario(options).unwrap();
        let load = |name: &str| Arc::new(Model::load(&scenario.file(name)).unwrap());
        Arc::new(Self {
            models: Models::of(load("model.safetensors")),
            bystander_model: load(&tiny_file(BYSTANDER_MODEL)),
            scenario: Mutex::new(scenario),
            turns: Arc::default(),
            _dir: dir,
        })
    }

    /// The pool of the cases that need nothing special.
    fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Fixture>> = Mutex::new(Weak::new());
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let fixture = Self::start(&options());
            *shared = Arc::downgrade(&fixture);
            fixture
        })
    }

    /// The model that the cheats' tasks are for.
    pub(crate) fn model(&self) -> &Arc<Model> {
        &self.models.asked
    }

    /// Where a worker connects, with templates of its own until `stop`, and an agent.
    pub(crate) async fn doors(&self, stop: &CancellationToken) -> (Endpoints, AgentClient) {
        let (endpoints, agent_url) = {
            let scenario = self.scenario();
            let source = source(&scenario.network);
            let endpoints = Endpoints {
                mining: scenario.mining.clone(),
                declaration: scenario.declaration.clone(),
                templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            };
            (endpoints, scenario.grpc.clone())
        };
        let mut work = endpoints.templates.subscribe();
        work.wait_for(Option::is_some).await.unwrap();
        let agent = AgentClient::connect(&agent_url).await.unwrap();
        (endpoints, agent)
    }

    pub(crate) fn scenario(&self) -> MutexGuard<'_, Scenario> {
        self.scenario
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What this worker has for inference, matured or not, and not taken back.
    pub(crate) fn inference_msat(&self, worker: &WorkerKey) -> i64 {
        self.number(&format!(
            "SELECT COALESCE(sum(t.amount), 0) FROM transfers t JOIN accounts a ON a.id = t.credit
             WHERE a.name = 'worker:{worker}' AND t.reason = 'inference'
               AND t.kind IN ('posted', 'pending')
               AND NOT EXISTS (SELECT 1 FROM transfers v WHERE v.ends = t.id AND v.kind = 'void')"
        ))
    }

    /// Waits until so many shares of this account are in the ledger.
    pub(crate) fn credited(&self, account: &impl std::fmt::Display, shares: &str) {
        let count = format!("SELECT count(*) FROM named_shares WHERE account = '{account}'");
        self.scenario().query_until(&count, shares).unwrap();
    }

    /// How many shares of this worker claimed a batch and were credited.
    pub(crate) fn inference_shares(&self, worker: &WorkerKey) -> i64 {
        self.number(&format!(
            "SELECT count(*) FROM batches WHERE worker = '\\x{worker}' AND settled_by IS NOT NULL"
        ))
    }

    /// The one number that a query gives.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.scenario().query(sql).unwrap().trim().parse().unwrap()
    }
}

/// One case, in its turn.
pub(crate) struct Case {
    pub(crate) endpoints: Endpoints,
    agent: Agent,
    bystander: ScriptedWorker,
    /// What the honest worker had done when the case began.
    bystander_batch: TestBatch,
    stop: CancellationToken,
    _turn: OwnedMutexGuard<()>,
    /// Last: a pool that stops waits for its clients.
    pub(crate) fixture: Arc<Fixture>,
}

/// Asks, and reads along for as long as the case lasts.
struct Agent {
    client: AgentClient,
    reading: Mutex<JoinSet<()>>,
}

impl Case {
    /// A case on the pool that most cases share.
    pub(crate) async fn start() -> Self {
        let fixture = tokio::task::spawn_blocking(Fixture::shared).await.unwrap();
        Self::on(fixture).await
    }

    /// A case on the shared pool, with a worker that is given the cheats' tasks.
    pub(crate) async fn with_worker() -> (Self, ScriptedWorker) {
        let case = Self::start().await;
        let worker = case.worker().await;
        (case, worker)
    }

    /// The same, and the worker has registered an honest batch of one task.
    pub(crate) async fn with_batch() -> (Self, ScriptedWorker, TestBatch) {
        let (case, mut worker) = Self::with_worker().await;
        let batch = case.batch(&mut worker).await;
        (case, worker, batch)
    }

    /// A case on a pool of its own.
    pub(crate) async fn on_new_pool(options: Options) -> Self {
        let start = move || Fixture::start(&options);
        Self::on(tokio::task::spawn_blocking(start).await.unwrap()).await
    }

    /// A case on this pool.
    pub(crate) async fn on(fixture: Arc<Fixture>) -> Self {
        let turn = Arc::clone(&fixture.turns).lock_owned().await;
        let stop = CancellationToken::new();
        let (endpoints, client) = fixture.doors(&stop).await;
        let agent = Agent {
            client,
            reading: Mutex::default(),
        };
        left_alone(&agent.client, fixture.models.asked.id()).await;
        let model = &fixture.bystander_model;
        let mut bystander = ScriptedWorker::new(&endpoints, model.id()).await;
        let bystander_batch = finished(&agent, model, &mut bystander).await;
        Self {
            endpoints,
            agent,
            bystander,
            bystander_batch,
            stop,
            _turn: turn,
            fixture,
        }
    }

    pub(crate) fn models(&self) -> &Models {
        &self.fixture.models
    }

    /// A worker that is given the cheats' tasks.
    pub(crate) async fn worker(&self) -> ScriptedWorker {
        ScriptedWorker::new(&self.endpoints, self.models().asked.id()).await
    }

    /// The same worker on another connection, which takes no tasks.
    pub(crate) async fn again(&self, keys: &WorkerKeys) -> ScriptedWorker {
        ScriptedWorker::with_keys(&self.endpoints, keys.clone(), self.models().asked.id(), 0).await
    }

    /// The same worker on a new connection, which takes tasks.
    pub(crate) async fn renewed(&self, worker: ScriptedWorker) -> ScriptedWorker {
        let keys = worker.keys.clone();
        drop(worker);
        ScriptedWorker::with_keys(&self.endpoints, keys, self.models().asked.id(), 4).await
    }

    /// Stops the pool and starts it again, and does more before anybody else looks.
    pub(crate) async fn restart_pool(&self, then: impl FnOnce(&mut Scenario) + Send + 'static) {
        let fixture = Arc::clone(&self.fixture);
        let restart = move || {
            let mut scenario = fixture.scenario();
            scenario.restart_pool().unwrap();
            then(&mut scenario);
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
    }

    /// Keeps a statement's locks on the ledger until the value is dropped.
    pub(crate) fn hold(&self, sql: &str) -> Held {
        self.fixture.scenario().hold(sql).unwrap()
    }

    /// The hash of the chain's last block.
    pub(crate) fn tip(&self) -> [u8; 32] {
        self.endpoints.templates.current().unwrap().prev_hash()
    }

    /// Waits for a tip.
    pub(crate) async fn wait_for_tip(&self, wanted: impl Fn([u8; 32]) -> bool) {
        let mut work = self.endpoints.templates.subscribe();
        let seen = work.wait_for(|work| work.as_ref().is_some_and(|work| wanted(work.prev_hash())));
        let seen = tokio::time::timeout(crate::scripted_worker::TIME_MAX, seen).await;
        drop(seen.unwrap().unwrap());
    }

    /// A connection that says it is this worker, and proves nothing.
    pub(crate) async fn unregistered(&self, keys: &WorkerKeys) -> ScriptedWorker {
        ScriptedWorker::unregistered(&self.endpoints, keys.clone()).await
    }

    /// Has an agent ask the cheats' model and read along to the end; its tokens, or the word that the task
    /// ended with.
    pub(crate) fn ask(&self) -> JoinHandle<Result<Vec<u32>, String>> {
        let question = question(&self.models().asked, StopSequences::default());
        let client = self.agent.client.clone();
        tokio::spawn(async move {
            let mut answer = client.ask(question).await.unwrap();
            loop {
                match answer.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Ok(answer.tokens().to_vec()),
                    Err(AgentError::TaskEnded { code, .. }) => return Err(code),
                    Err(other) => panic!("{other}"),
                }
            }
        })
    }

    /// An answer of the cheats' model, from the moment on when its agent follows it.
    pub(crate) async fn answer(&self) -> Answer {
        let question = question(&self.models().asked, StopSequences::default());
        self.agent.client.ask(question).await.unwrap()
    }

    /// An agent on a connection of its own.
    pub(crate) async fn client(&self) -> AgentClient {
        let url = self.agent.client.url();
        AgentClient::connect(url).await.unwrap()
    }

    /// Has an agent order a task of the cheats' model that it does not read; the word if that is refused.
    pub(crate) async fn order(&self, client: &AgentClient) -> Result<(), String> {
        let question = question(&self.models().asked, StopSequences::default());
        match client.ask(question).await {
            Ok(_) => Ok(()),
            Err(AgentError::Refused { code, .. }) => Err(code),
            Err(other) => panic!("{other}"),
        }
    }

    /// A task for this worker, which must be the only one that takes any.
    pub(crate) async fn task(&self, worker: &mut ScriptedWorker) -> AssignTask {
        self.task_until(worker, StopSequences::default()).await
    }

    /// A task of so many tokens at most.
    pub(crate) async fn task_of_tokens(
        &self,
        worker: &mut ScriptedWorker,
        tokens: u32,
    ) -> AssignTask {
        let mut question = question(&self.models().asked, StopSequences::default());
        question.sampling.max_tokens = tokens;
        asked(&self.agent, question, worker).await
    }

    /// The code with which a question of so many tokens at most is refused.
    pub(crate) async fn refusal(&self, tokens: u32) -> String {
        refusal(&self.agent.client, self.fixture.model(), tokens).await
    }

    /// Has the agent cancel a task.
    pub(crate) fn cancel(&self, task: TaskId) -> JoinHandle<()> {
        let client = self.agent.client.clone();
        tokio::spawn(async move {
            client.cancel(task).await.unwrap();
        })
    }

    /// A task whose output ends with one of these.
    pub(crate) async fn task_until(
        &self,
        worker: &mut ScriptedWorker,
        stop: StopSequences,
    ) -> AssignTask {
        let question = question(&self.models().asked, stop);
        asked(&self.agent, question, worker).await
    }

    /// A task whose output must have this form.
    pub(crate) async fn task_of_form(&self, worker: &mut ScriptedWorker, form: Form) -> AssignTask {
        let question = Question {
            constraint: Some(Constraint::new(form).unwrap()),
            ..question(&self.models().asked, StopSequences::default())
        };
        asked(&self.agent, question, worker).await
    }

    /// An honest transcript of a new task, delivered.
    pub(crate) async fn transcript(&self, worker: &mut ScriptedWorker) -> Transcript {
        worked(&self.agent, &self.models().asked, worker).await
    }

    /// An honest batch of one new task, registered.
    pub(crate) async fn batch(&self, worker: &mut ScriptedWorker) -> TestBatch {
        finished(&self.agent, &self.models().asked, worker).await
    }

    /// A task of the honest worker's, which is finished and in its batch.
    pub(crate) fn bystander_batch(&self) -> &TestBatch {
        &self.bystander_batch
    }

    /// The honest worker's key.
    pub(crate) fn bystander_key(&self) -> WorkerKey {
        self.bystander.keys.name
    }

    /// Lets the honest worker work on a connection of now, as after a restart of the pool.
    pub(crate) async fn reconnect_bystander(&mut self) {
        let (keys, model) = (self.bystander.keys.clone(), &self.fixture.bystander_model);
        self.bystander = ScriptedWorker::with_keys(&self.endpoints, keys, model.id(), 4).await;
    }

    /// The worker has earned nothing by inference, however it tried.
    pub(crate) fn earned_nothing(&self, worker: &ScriptedWorker) {
        assert_eq!(self.fixture.inference_msat(&worker.keys.name), 0);
        assert_eq!(self.fixture.inference_shares(&worker.keys.name), 0);
    }

    /// The worker has earned this many batches of one task, and no more.
    pub(crate) fn earned_batches(&self, worker: &ScriptedWorker, batches: i64) {
        self.earned_batches_of(worker, batches, 1);
    }

    /// As [`Case::earned_batches`], of so many tasks each.
    pub(crate) fn earned_batches_of(&self, worker: &ScriptedWorker, batches: i64, tasks: i64) {
        let earned = self.fixture.inference_msat(&worker.keys.name);
        assert_eq!(earned, batches * tasks * BATCH_MSAT);
        assert_eq!(self.fixture.inference_shares(&worker.keys.name), batches);
    }

    /// The honest worker was not disturbed: what it had begun is credited, and so is what comes next.
    pub(crate) async fn end(mut self) {
        self.claim_of_bystander().await;
        self.end_afresh().await;
    }

    /// The honest worker is credited with what it had begun. Nobody pays for more.
    pub(crate) async fn end_without_money(mut self) {
        self.claim_of_bystander().await;
        assert!(!self.fixture.scenario().pool.log().contains("panicked"));
    }

    async fn claim_of_bystander(&mut self) {
        let root = self.bystander_batch.root;
        self.bystander.claim(&root).await.credited();
        self.earned_batches(&self.bystander, 1);
    }

    /// The honest worker goes on, whatever became of what it had begun.
    pub(crate) async fn end_afresh(mut self) {
        let before = self.fixture.inference_shares(&self.bystander.keys.name);
        let model = Arc::clone(&self.fixture.bystander_model);
        let next = finished(&self.agent, &model, &mut self.bystander).await;
        self.bystander.claim(&next.root).await.credited();
        self.earned_batches(&self.bystander, before + 1);
        let scenario = self.fixture.scenario();
        assert!(!scenario.pool.log().contains("panicked"));
        assert!(!scenario.declarator.log().contains("panicked"));
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until the pool knows no worker of the case before: what that one has not finished would be given to the next.
async fn left_alone(client: &AgentClient, model: ModelId) {
    let end = Instant::now() + TIME_MAX;
    loop {
        let models = client.models().await.unwrap();
        let mut asked = models.iter().filter(|of| of.model_id == model.as_bytes());
        if asked.all(|of| of.workers == 0) {
            return;
        }
        assert!(Instant::now() < end, "a worker of another case stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The chain's templates, as a miner's own node would give them.
fn source(network: &Network) -> SourceConfig {
    match network.bitcoin_core() {
        Some(core) => SourceConfig::bitcoin_core(core.socket()),
        None => SourceConfig::template_provider(network.template_provider().unwrap(), None),
    }
}

fn question(model: &Model, stop: StopSequences) -> Question {
    let sampling = SamplingParams {
        temperature_milli: 800,
        top_k: 40,
        top_p_milli: 950,
        max_tokens: TOKENS,
    };
    Question {
        stop,
        ..Question::new(model.id(), b"what was asked".to_vec(), sampling)
    }
}

/// The code with which a question of so many tokens at most is refused.
pub(crate) async fn refusal(client: &AgentClient, model: &Model, tokens: u32) -> String {
    let mut question = question(model, StopSequences::default());
    question.sampling.max_tokens = tokens;
    match client.ask(question).await {
        Err(AgentError::Refused { code, .. }) => code,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// Has an agent ask for a completion, which it does not wait for; the task as the worker gets it.
async fn asked(agent: &Agent, question: Question, worker: &mut ScriptedWorker) -> AssignTask {
    let client = agent.client.clone();
    agent.reading.lock().unwrap().spawn(async move {
        let mut answer = client.ask(question).await.unwrap();
        while let Ok(Some(_)) = answer.next().await {}
    });
    worker.task().await
}

async fn worked(agent: &Agent, model: &Arc<Model>, worker: &mut ScriptedWorker) -> Transcript {
    let task = asked(agent, question(model, StopSequences::default()), worker).await;
    let output = honest(model, &task);
    assert_eq!(output.finish_reason, FinishReason::Length);
    worker.deliver_output(&task, &output).await.unwrap()
}

async fn finished(agent: &Agent, model: &Arc<Model>, worker: &mut ScriptedWorker) -> TestBatch {
    let batch = batch_of(&[worked(agent, model, worker).await]);
    worker.register_batch(&batch).await.unwrap();
    batch
}
