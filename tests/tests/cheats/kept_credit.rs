//! Credit that a worker leaves held: whoever has its key says how much.

use std::time::{Duration, Instant};

use dovetail_miner::keys::WorkerKeys;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    KeptCredit, RegisterWorker, RegisterWorkerChallenge, RegisterWorkerError, RegisterWorkerProof,
};

use crate::fixture::Case;
use crate::scripted_worker::TIME_MAX;

/// From its first batch on, and what it says last; only whoever has the key can say it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_as_much_held_as_it_said_when_it_registered() {
    let case = Case::start().await;
    let keys = WorkerKeys::generate();
    let registered = async |msat: u64| {
        let mut worker = case.unregistered(&keys).await;
        let registration = RegisterWorker {
            worker_key: keys.name,
            models: vec![case.models().asked.id()],
            max_tasks: 4,
            keep_msat: KeptCredit::new(msat).unwrap(),
        };
        worker.register_as(&registration).await;
        worker
    };
    let wanted = async |msat: u64| {
        let kept = format!(
            "SELECT count(*) FROM audit_records WHERE kept_msat = {msat} AND worker = '\\x{}'",
            keys.name
        );
        let deadline = Instant::now() + TIME_MAX;
        while case.fixture.number(&kept) != 1 {
            assert!(Instant::now() < deadline, "{msat} msat are not kept");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut worker = registered(5_000_000).await;
    let earned = case.batch(&mut worker).await;
    worker.claim(&earned.root).await.credited();
    wanted(5_000_000).await;
    drop(worker);
    let worker = registered(7).await;
    wanted(7).await;
    drop(worker);
    // Nobody proves the key on this connection.
    let mut stranger = case.unregistered(&WorkerKeys::generate()).await;
    let registration = RegisterWorker {
        worker_key: keys.name,
        models: Vec::new(),
        max_tasks: 4,
        keep_msat: KeptCredit::new(KeptCredit::MAX).unwrap(),
    };
    stranger.wire.send(&registration).await;
    let _: RegisterWorkerChallenge = stranger.wire.receive().await;
    let forged = RegisterWorkerProof { signature: [7; 64] };
    stranger.wire.send(&forged).await;
    let refused: RegisterWorkerError = stranger.wire.receive().await;
    assert_eq!(refused.code, Code::BadProof.to_string());
    wanted(7).await;
    drop(registered(0).await);
    wanted(0).await;
    case.end().await;
}
