//! What tasks cost, on a real ledger: exactly the tokens of the transcript, whatever way a task ends, and nothing if it ends
//! without one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dovetail_commitment::{Batch, BatchRoot, FinishReason, HeaderHash, Transcript, WorkerKey};
use dovetail_ledger::{
    Committer, CommitterConfig, DrawnSample, FailedAudit, InferenceSettlement, KeyId, KeyRecord,
    NewKey, Share, SubsidyBudget,
};
use dovetail_units::{Msat, TokenPrices, Work};
use dovetail_vrf::VrfProof;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::life_tests::{FIRST, Fixture, SECOND, given, transcript};
use super::*;
use crate::assignment::Assignment;
use crate::mailboxes::WorkerCommand;
use crate::test_support::BUDGET;

/// No two numbers of tokens cost the same, and a rounding that is done twice shows.
fn prices() -> TokenPrices {
    TokenPrices::new(1_300_001, 7_700_003).unwrap()
}

/// The most tokens that a task of these tests may have.
const TOKENS_MAX: usize = 8;

/// How a task comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The model ends its answer, or a stop sequence does.
    Stop,
    /// `max_tokens` came first.
    Length,
    /// No token could follow in the form that was asked for.
    ConstraintUnmet,
    /// Its agent cancels it while it waits.
    CancelledInTheQueue,
    /// Its agent cancels it while its worker has not given a token.
    CancelledBeforeTheFirstToken,
    /// Its agent cancels it after some tokens.
    Cancelled,
    /// The same, and another token was under way.
    CancelledWithATokenUnderWay,
    /// Its agent cancels it after some tokens, and the worker never says what it has streamed.
    CancelledAndNotHandedIn,
    /// Its agent cancels it after some tokens, and the worker is gone.
    CancelledAndWorkerLost,
    /// Its agent hangs up after some tokens, and stays away.
    HungUp,
    /// Its worker is gone after some tokens, and another one gives the answer.
    TakenOver,
    /// Its worker is gone after some tokens, and no other one is there.
    WorkerLost,
    /// Its worker says after some tokens that it cannot be run.
    WorkerFailed,
    /// Its answer is whole, and its audit finds that it is made up.
    AuditFailed,
    /// Its answer is whole, and no share comes in time.
    ExpiredFinished,
    /// Its time is over while it streams.
    ExpiredRunning,
    /// The pool is restarted while it streams.
    PoolRestarted,
}

const ENDINGS: [Ending; 17] = [
    Ending::Stop,
    Ending::Length,
    Ending::ConstraintUnmet,
    Ending::CancelledInTheQueue,
    Ending::CancelledBeforeTheFirstToken,
    Ending::Cancelled,
    Ending::CancelledWithATokenUnderWay,
    Ending::CancelledAndNotHandedIn,
    Ending::CancelledAndWorkerLost,
    Ending::HungUp,
    Ending::TakenOver,
    Ending::WorkerLost,
    Ending::WorkerFailed,
    Ending::AuditFailed,
    Ending::ExpiredFinished,
    Ending::ExpiredRunning,
    Ending::PoolRestarted,
];

impl Ending {
    /// How many tokens are paid, of a task that has streamed so many; `None`: the task costs nothing.
    fn paid(self, streamed: usize) -> Option<usize> {
        match self {
            Self::Stop
            | Self::Length
            | Self::ConstraintUnmet
            | Self::Cancelled
            | Self::HungUp
            | Self::TakenOver => Some(streamed),
            Self::CancelledWithATokenUnderWay => Some(streamed + 1),
            _ => None,
        }
    }
}

/// What ends tasks of one pool, and settles those that can be.
struct Meter {
    fixture: Fixture,
    committer: Committer,
    stop: CancellationToken,
    key: KeyId,
    tasks: u8,
}

impl Meter {
    async fn start(log: &Path) -> Self {
        let fixture =
            Fixture::start_with(|parts| parts.prices = Prices::of_all(prices(), BUDGET)).await;
        let ledger = fixture.tasks.ledger.clone();
        let new = NewKey {
            name: "alice",
            secret: "sk-alice",
            budget: Msat::new(1 << 40),
            per_day: Some(Msat::new(1 << 40)),
        };
        let key = ledger.add_key(&new).await.unwrap();
        let stop = CancellationToken::new();
        let config = CommitterConfig {
            write_interval: Duration::ZERO,
            settle_interval: Duration::ZERO,
            ..CommitterConfig::new(log.to_owned(), 1 << 20)
        };
        let committer = Committer::start(ledger, config, stop.clone())
            .await
            .unwrap();
        Self {
            fixture,
            committer,
            stop,
            key,
            tasks: 0,
        }
    }

    /// What all tasks have cost the key and the operator, and what is set aside.
    async fn spent(&self) -> (i64, i64, i64) {
        let ledger = &self.fixture.tasks.ledger;
        let keys = ledger.keys().await.unwrap();
        let KeyRecord {
            spent, reserved, ..
        } = &keys[0];
        let subsidy = ledger.subsidy().await.unwrap();
        let held = reserved.get() + subsidy.reserved.get();
        (spent.get(), subsidy.spent.get(), held)
    }

    /// Credit that is held for the worker that handed the tasks in.
    async fn held(&self, worker: WorkerKey) -> i64 {
        let account = worker.to_string();
        let balance = self.fixture.tasks.ledger.balance(&account).await;
        balance.unwrap().held.get()
    }

    fn root_of(transcript: &Transcript) -> BatchRoot {
        Batch::new(vec![transcript.leaf()]).unwrap().root()
    }

    fn sample(&self) -> DrawnSample {
        DrawnSample {
            header_hash: HeaderHash::from_bytes([self.tasks; 32]),
            proof: VrfProof::from_bytes([0; VrfProof::BYTES]),
            stake: Msat::ZERO,
            indices: vec![0],
        }
    }

    async fn register(&self, record: &TaskRecord) -> BatchRecord {
        let transcript = record.transcript.as_ref().unwrap();
        let (root, worker) = (Self::root_of(transcript), transcript.worker_key);
        let ledger = &self.fixture.tasks.ledger;
        ledger
            .register_batch(worker, root, &[record.id])
            .await
            .unwrap();
        ledger.batch(root).await.unwrap().unwrap()
    }

    /// A share of the task's worker settles it.
    async fn settle(&self, record: &TaskRecord) {
        let batch = self.register(record).await;
        let share = Share {
            header_hash: HeaderHash::from_bytes([self.tasks; 32]),
            height: 100,
            account: batch.worker.to_string(),
            work: Work::new(1),
            is_block: false,
            credit: Msat::ZERO.into(),
            weight: dovetail_rewards::Weight::ZERO,
            reward_sat: 0,
            is_coinbase_only: false,
            batch: Some(InferenceSettlement {
                root: batch.root,
                credit: record.price,
                sample: self.sample(),
                receipts: vec![(record.id, "{}".to_owned())],
            }),
            proof: None,
        };
        self.committer.commit(share).await.unwrap();
        self.fixture.tasks.settled(&batch);
    }

    /// An audit finds that its output is made up.
    async fn fail_audit(&self, record: &TaskRecord) {
        let batch = self.register(record).await;
        let sample = self.sample();
        let audit = FailedAudit {
            header_hash: sample.header_hash,
            root: batch.root,
            worker: batch.worker,
            sample: &sample,
            index: 0,
            transcript: record.transcript.as_ref().unwrap(),
            mismatch: "tokens",
            position: Some(0),
            replayed: None,
            engine_version: dovetail_engine::ENGINE_VERSION,
            validators: &[],
        };
        let ledger = &self.fixture.tasks.ledger;
        ledger.fail_audit(&audit).await.unwrap().unwrap();
        self.fixture.tasks.failed(&batch);
    }

    /// Takes a new task to this end, after so many tokens; returns how it stands then.
    async fn end_task(&mut self, ending: Ending, streamed: usize, payer: Payment) -> TaskRecord {
        self.tasks += 1;
        let tasks = self.fixture.tasks.clone();
        let mut worker = self.fixture.connect(FIRST);
        if ending == Ending::CancelledInTheQueue {
            // Another one keeps the only worker busy: a new worker has one task at a time.
            let busy = Order {
                id: None,
                payer,
                ..self.fixture.order(0)
            };
            let busy = self.fixture.admit(busy).await.unwrap();
            given(&mut worker).await;
            let waits = self.admit(payer).await;
            tasks.cancel(waits).await.unwrap();
            tasks.cancel(busy.id).await.unwrap();
            return tasks.task(waits).await.unwrap();
        }
        let id = self.admit(payer).await;
        let task = given(&mut worker).await;
        let tokens: Vec<u32> = (5..).take(TOKENS_MAX).collect();
        if ending != Ending::CancelledBeforeTheFirstToken {
            worker.stream(&id, 0, &tokens[..streamed]).unwrap();
        }
        self.end_running(ending, (worker, &task), &tokens, streamed)
            .await;
        let record = tasks.task(id).await.unwrap();
        if record.state == TaskState::Finished {
            self.settle_or_not(ending, &record).await;
        }
        tasks.task(id).await.unwrap()
    }

    async fn admit(&self, payer: Payment) -> TaskId {
        let order = Order {
            payer,
            ..self.fixture.order(self.tasks)
        };
        self.fixture.admit(order).await.unwrap().id
    }

    async fn settle_or_not(&self, ending: Ending, record: &TaskRecord) {
        match ending {
            Ending::AuditFailed => self.fail_audit(record).await,
            Ending::ExpiredFinished => self.expire(record.id, record.expires_at_unix).await,
            _ => self.settle(record).await,
        }
    }

    /// What is over at this time ends.
    async fn expire(&self, id: TaskId, at_unix: u64) {
        let ended = self.fixture.tasks.ledger.expire_tasks(at_unix).await;
        assert_eq!(ended.unwrap(), [id]);
        self.fixture.tasks.live.finish(&id, Phase::Failed);
    }

    /// Ends a task that has streamed so many of these tokens.
    async fn end_running(
        &self,
        ending: Ending,
        (mut worker, task): (Connected, &Arc<Assignment>),
        tokens: &[u32],
        streamed: usize,
    ) {
        let (tasks, id) = (&self.fixture.tasks, task.id);
        let deliver = async |worker: &Connected, of: WorkerKey, given: &[u32], finish_reason| {
            let whole = Transcript {
                finish_reason,
                ..transcript(task, of, given)
            };
            worker.deliver(id, whole).await.unwrap();
        };
        let so_far = &tokens[..streamed];
        match ending {
            Ending::Stop | Ending::AuditFailed | Ending::ExpiredFinished => {
                deliver(&worker, FIRST, so_far, FinishReason::Stop).await;
            }
            Ending::Length => deliver(&worker, FIRST, so_far, FinishReason::Length).await,
            Ending::ConstraintUnmet => {
                deliver(&worker, FIRST, so_far, FinishReason::ConstraintUnmet).await;
            }
            Ending::CancelledInTheQueue | Ending::CancelledBeforeTheFirstToken => {
                tasks.cancel(id).await.unwrap();
            }
            Ending::Cancelled | Ending::CancelledWithATokenUnderWay => {
                let under_way = usize::from(ending == Ending::CancelledWithATokenUnderWay);
                let stopped = async {
                    told_to_stop(&mut worker).await;
                    let all = &tokens[..streamed + under_way];
                    let first = u32::try_from(streamed).unwrap();
                    worker.stream(&id, first, &all[streamed..]).unwrap();
                    deliver(&worker, FIRST, all, FinishReason::Cancelled).await;
                };
                let (cancelled, ()) = tokio::join!(tasks.cancel(id), stopped);
                cancelled.unwrap();
            }
            Ending::CancelledAndNotHandedIn => {
                assert!(tasks.stop(id).await.unwrap());
                self.expire(id, unix_now() + stopping::PREFIX_TIME_S + 1)
                    .await;
            }
            Ending::CancelledAndWorkerLost => {
                assert!(tasks.stop(id).await.unwrap());
                worker.refuse(id, GivenBack::Lost).await;
            }
            Ending::HungUp => {
                tasks.follow(id, 0).await.unwrap().hang_up();
                let later = std::time::Instant::now() + tasks.limits.agent_absence;
                tasks.stop_abandoned(later).await;
                told_to_stop(&mut worker).await;
                deliver(&worker, FIRST, so_far, FinishReason::Cancelled).await;
            }
            Ending::TakenOver => {
                let mut second = self.fixture.connect(SECOND);
                worker.refuse(id, GivenBack::Unable).await;
                assert_eq!(given(&mut second).await.id, id);
                second.stream(&id, 0, so_far).unwrap();
                deliver(&second, SECOND, so_far, FinishReason::Stop).await;
            }
            Ending::WorkerLost => worker.refuse(id, GivenBack::Unable).await,
            Ending::WorkerFailed => worker.refuse(id, GivenBack::Impossible).await,
            Ending::ExpiredRunning => {
                let record = tasks.task(id).await.unwrap();
                self.expire(id, record.expires_at_unix).await;
            }
            Ending::PoolRestarted => {
                tasks.fail_interrupted().await.unwrap();
                tasks.live.finish(&id, Phase::Failed);
            }
        }
    }

    async fn end(self) {
        self.stop.cancel();
        self.committer.stopped().await;
        drop(self.committer);
        self.fixture.end().await;
    }
}

async fn told_to_stop(worker: &mut Connected) {
    let command = timeout(Duration::from_secs(20), worker.next_command());
    assert!(matches!(command.await, Ok(Some(WorkerCommand::Cancel(_)))));
}

/// Whatever way a task ends, after however many tokens and whoever pays: what is taken from its payer is the price of the
/// tokens of its transcript, its worker is credited with as much, and the record says so. Without a settled transcript all
/// three are nothing, and nothing stays set aside.
#[tokio::test]
async fn what_a_task_costs_is_what_its_transcript_says_for_every_ending() {
    let log = tempfile::tempdir().unwrap();
    let mut meter = Meter::start(log.path()).await;
    let (mut of_key, mut of_operator) = (0, 0);
    for ending in ENDINGS {
        for streamed in [1, 4, TOKENS_MAX - 1] {
            for payer in [Payment::Key(meter.key), Payment::Subsidy] {
                let case = format!("{ending:?} after {streamed} tokens, paid by {payer:?}");
                let before = [meter.held(FIRST).await, meter.held(SECOND).await];
                let record = meter.end_task(ending, streamed, payer).await;
                let paid = ending.paid(streamed);
                assert_eq!(record.state == TaskState::Settled, paid.is_some(), "{case}");
                let cost = paid.map_or(Msat::ZERO, |tokens| {
                    prices().of(record.input_tokens, u32::try_from(tokens).unwrap())
                });
                assert_eq!(record.cost(), cost, "{case}");
                if let Some(tokens) = paid {
                    let transcript = record.transcript.as_ref().unwrap();
                    assert_eq!(transcript.output_tokens as usize, tokens, "{case}");
                    let after = [meter.held(FIRST).await, meter.held(SECOND).await];
                    let index = usize::from(transcript.worker_key == SECOND);
                    assert_eq!(after[index] - before[index], cost.get(), "{case}");
                }
                match payer {
                    Payment::Key(_) => of_key += cost.get(),
                    Payment::Subsidy => of_operator += cost.get(),
                }
                assert_eq!(meter.spent().await, (of_key, of_operator, 0), "{case}");
            }
        }
    }
    let ledger = &meter.fixture.tasks.ledger;
    let found = ledger.check_consistency().await.unwrap();
    assert_eq!(found.differences, []);
    meter.end().await;
}

/// What one address has of the operator's budget counts what its tasks cost, not what they might have cost.
#[tokio::test]
async fn an_address_has_its_part_of_the_operators_budget_and_a_key_pays_beside_it() {
    let fixture = Fixture::start_with(|parts| {
        // Eight tokens at most, of 10 msat each.
        parts.limits.subsidy_per_address = Some(Msat::new(100));
        parts.prices = Prices::of_all(
            crate::test_support::prices(),
            SubsidyBudget {
                per_day: Msat::new(1_000),
                in_all: Msat::new(1_000),
            },
        );
    })
    .await;
    let worker = fixture.connect(FIRST);
    let of = |n: u8, host: u8| Order {
        caller: Caller::new(u64::from(host), [10, 0, 0, host].into()),
        ..fixture.order(n)
    };
    fixture.admit(of(1, 1)).await.unwrap();
    let refused = fixture.admit(of(2, 1)).await;
    assert!(matches!(
        refused,
        Err(AdmissionError::BalanceReserved { .. })
    ));
    // The same order again takes nothing more.
    fixture.admit(of(1, 1)).await.unwrap();
    fixture.admit(of(3, 2)).await.unwrap();
    let new = NewKey {
        name: "alice",
        secret: "sk-alice",
        budget: Msat::new(100),
        per_day: None,
    };
    let key = fixture.tasks.ledger.add_key(&new).await.unwrap();
    let by_key = Order {
        payer: Payment::Key(key),
        ..of(4, 1)
    };
    fixture.admit(by_key).await.unwrap();
    // What is not spent comes back.
    fixture
        .tasks
        .cancel(TaskId::from_bytes([1; 32]))
        .await
        .unwrap();
    fixture.admit(of(5, 1)).await.unwrap();
    let subsidy = fixture.tasks.ledger.subsidy().await.unwrap();
    assert_eq!(subsidy.reserved, Msat::new(160));
    assert!(fixture.tasks.ledger.revoke_key("alice").await.unwrap());
    assert_eq!(fixture.tasks.key("sk-alice").await.unwrap(), None);
    let by_key = Order {
        payer: Payment::Key(key),
        ..of(6, 1)
    };
    let refused = fixture.admit(by_key).await;
    assert!(matches!(refused, Err(AdmissionError::KeyInvalid)));
    drop(worker);
    fixture.end().await;
}
