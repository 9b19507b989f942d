//! Batches that are none: wrong tasks, odd trees, second preimages. The root must be that of the named
//! transcripts in the one shape that the specification gives, so that a root has one list of leaves.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use dovetail_commitment::{Batch, BatchRoot, LeafHash, TaskId, Transcript, tagged_hash};
use dovetail_sv2::Frame;
use dovetail_sv2::extension::RegisterBatch;

use crate::fixture::Case;
use crate::scripted_worker::{assert_refused, batch_of};

type Node = [u8; 32];

fn branch(left: &Node, right: &Node) -> Node {
    tagged_hash("dovetail/branch", &[left, right])
}

fn root(count: u32, top: &Node) -> BatchRoot {
    BatchRoot::from_bytes(tagged_hash("dovetail/batch", &[&count.to_le_bytes(), top]))
}

/// Three leaves in every shape but theirs.
fn odd_shapes(leaves: &[Node; 3]) -> Vec<(&'static str, BatchRoot)> {
    let [a, b, c] = leaves;
    let ab = branch(a, b);
    let top = branch(&ab, c);
    let mut engine = sha256::Hash::engine();
    engine.input(a);
    engine.input(b);
    let untagged = sha256::Hash::from_engine(engine).to_byte_array();
    vec![
        ("the odd leaf doubled", root(3, &branch(&ab, &branch(c, c)))),
        (
            "the odd leaf doubled and counted",
            root(4, &branch(&ab, &branch(c, c))),
        ),
        (
            "the odd leaf promoted at the front",
            root(3, &branch(a, &branch(b, c))),
        ),
        ("a branch passed off as a leaf", root(2, &top)),
        ("one leaf more for the same tree", root(4, &top)),
        ("the whole tree as one leaf", root(1, &top)),
        ("no leaf at all", root(0, &top)),
        ("the tree without its count", BatchRoot::from_bytes(top)),
        (
            "branches the other way round",
            root(3, &branch(c, &branch(b, a))),
        ),
        ("branches without their tag", root(3, &branch(&untagged, c))),
        ("the first two leaves alone", root(2, &ab)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_trees_and_second_preimages() {
    let (case, mut cheat) = Case::with_worker().await;
    let mut transcripts = Vec::new();
    for _ in 0..3 {
        transcripts.push(case.transcript(&mut cheat).await);
    }
    let good = batch_of(&transcripts);
    let leaves: Vec<Node> = transcripts.iter().map(|t| t.leaf().to_bytes()).collect();
    let leaves: [Node; 3] = leaves.try_into().unwrap();
    for (shape, odd) in odd_shapes(&leaves) {
        // With all tasks, and with as many as the root would count.
        for tasks in [
            &good.tasks[..],
            &good.tasks[..2],
            &good.tasks[1..],
            &good.tasks[..1],
        ] {
            let refused = cheat.register(odd, tasks).await;
            let taken = shape == "the first two leaves alone" && tasks == &good.tasks[..2];
            assert_eq!(refused.is_ok(), taken, "{shape}");
            if !taken {
                assert_eq!(refused, Err("batch-root-mismatch".to_owned()), "{shape}");
            }
        }
        // A job cannot commit to it either.
        if shape != "the first two leaves alone" {
            let refused = cheat.declare(Some(&odd)).await.err();
            assert_eq!(
                refused.as_deref(),
                Some("invalid-batch-commitment"),
                "{shape}"
            );
        }
    }
    let swapped = [good.tasks[1], good.tasks[0], good.tasks[2]];
    assert_refused(
        cheat.register(good.root, &swapped).await,
        "batch-root-mismatch",
    );

    cheat.register_batch(&good).await.unwrap();
    cheat.claim(&good.root).await.credited();
    case.earned_batches_of(&cheat, 1, 3);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_leaves_or_the_same_leaf_twice() {
    let (case, mut cheat) = Case::with_worker().await;
    let transcript = case.transcript(&mut cheat).await;
    let good = batch_of(std::slice::from_ref(&transcript));
    let leaf = transcript.leaf().to_bytes();
    let task = transcript.task_id;

    let nothing = root(0, &[0; 32]);
    assert_refused(cheat.register(nothing, &[]).await, "batch-malformed");
    for (tasks, doubled) in [
        (vec![task; 2], root(2, &branch(&leaf, &leaf))),
        (vec![task; 64], good.root),
    ] {
        assert_refused(cheat.register(doubled, &tasks).await, "batch-malformed");
    }
    case.earned_nothing(&cheat);
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_five_leaves() {
    let (case, mut cheat) = Case::with_worker().await;
    let leaves = |count: u8| -> Vec<LeafHash> {
        (0..count).map(|n| LeafHash::from_bytes([n; 32])).collect()
    };
    assert!(Batch::new(leaves(65)).is_err());
    let message = RegisterBatch {
        request_id: 1,
        root: Batch::new(leaves(64)).unwrap().root(),
        task_ids: vec![TaskId::from_bytes([7; 32]); 64],
    };
    // One more than any sequence of the extension may have: the message is malformed.
    let mut frame = Frame::new(&message).unwrap();
    let count_at = 4 + 32;
    assert_eq!(frame.payload[count_at], 64);
    frame.payload[count_at] = 65;
    frame.payload.extend([7; 32]);
    cheat.wire.send_frame(&frame).await;
    cheat.wire.hung_up().await;
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_are_unfinished_unknown_or_anothers() {
    let (case, mut cheat) = Case::with_worker().await;
    let finished = case.transcript(&mut cheat).await;
    let unfinished = case.task(&mut cheat).await;
    let any = BatchRoot::from_bytes([5; 32]);
    let cases = [
        (unfinished.task_id, "task-unfinished"),
        (TaskId::from_bytes([9; 32]), "task-unknown"),
        (case.bystander_batch().tasks[0], "task-not-yours"),
    ];
    for (task, code) in cases {
        for tasks in [vec![task], vec![finished.task_id, task]] {
            assert_refused(cheat.register(any, &tasks).await, code);
        }
    }
    // Their root, which is on the record, as if it were its own.
    let theirs = case.bystander_batch().clone();
    assert_refused(cheat.register_batch(&theirs).await, "task-not-yours");
    assert_refused(
        cheat.declare(Some(&theirs.root)).await,
        "invalid-batch-commitment",
    );
    case.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transcript_in_two_batches() {
    let (case, mut cheat) = Case::with_worker().await;
    let transcripts: [Transcript; 2] = [
        case.transcript(&mut cheat).await,
        case.transcript(&mut cheat).await,
    ];
    let (alone, both) = (batch_of(&transcripts[..1]), batch_of(&transcripts));
    cheat.register_batch(&alone).await.unwrap();
    cheat.register_batch(&both).await.unwrap();
    let prepared = cheat.job(Some(&both.root)).await;
    cheat.claim(&alone.root).await.credited();

    let verdict = cheat.submit_new(&prepared, Some(&both.root)).await;
    assert_eq!(verdict.refusal(), "batch-spent");
    assert_refused(cheat.register_batch(&both).await, "batch-spent");
    case.earned_batches(&cheat, 1);
    case.end().await;
}
