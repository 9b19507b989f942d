//! Many miners, slow nodes and hostile frames: what one of them does is nobody else's trouble.

#![allow(clippy::unwrap_used)]

mod test_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dovetail_jd::config::Limits;
use dovetail_jd::node::{Answer, Node};
use dovetail_sv2::messages::{DeclareMiningJob, DeclareMiningJobError};
use dovetail_sv2::{Frame, Message};
use dovetail_templates::{TemplateHandle, WorkSnapshot};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use test_support::{Fixture, Job, Setting, TIME_MAX};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A node that thinks forever about blocks with [`SLOW_VERSION`].
struct SlowNode {
    chain: TemplateHandle,
    thinking: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

const SLOW_VERSION: u32 = 0x2000_0010;

impl Node for SlowNode {
    fn work(&self) -> watch::Receiver<Option<Arc<WorkSnapshot>>> {
        self.chain.subscribe()
    }

    fn is_stale(&self) -> bool {
        self.chain.is_stale()
    }

    fn check_block(&self, block: Vec<u8>) -> Answer<'_> {
        Box::pin(async move {
            if block[..4] == SLOW_VERSION.to_le_bytes() {
                let now = self.thinking.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                let _over = Leaving(&self.thinking);
                std::future::pending::<()>().await;
            }
            self.chain.check_block(block).await
        })
    }
}

struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct SlowFixture {
    fixture: Fixture,
    thinking: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn slow_fixture(limits: Limits) -> SlowFixture {
    let (thinking, most) = (Arc::default(), Arc::default());
    let setting = Setting {
        limits,
        ..Setting::default()
    };
    let fixture = Fixture::start_with(setting, |chain| {
        Arc::new(SlowNode {
            chain: chain.clone(),
            thinking: Arc::clone(&thinking),
            most: Arc::clone(&most),
        })
    })
    .await;
    SlowFixture {
        fixture,
        thinking,
        most,
    }
}

fn slow_job(fixture: &Fixture) -> Job {
    let mut job = Job::of(fixture.work());
    job.version = SLOW_VERSION;
    job
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(TIME_MAX, waiting).await.is_ok(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_declaration_delays_neither_its_own_miner_nor_another() {
    let slow = slow_fixture(Limits::default()).await;
    let mut miner = slow.fixture.miner().await;
    let token = miner.token("alice").await;
    let request_id = miner.request_id();
    let message = slow_job(&slow.fixture).message(request_id, &token);
    miner.send(&message).await;
    until("the check has begun", || {
        slow.thinking.load(Ordering::SeqCst) == 1
    })
    .await;
    // The same connection is still answered, and another one's job is taken.
    miner.token("alice").await;
    let mut other = slow.fixture.miner().await;
    let job = Job::of(slow.fixture.work());
    other.declare("bob", &job).await.unwrap();
    assert_eq!(slow.thinking.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_miner_has_one_turn_at_the_node_and_its_end_ends_the_check() {
    let slow = slow_fixture(Limits::default()).await;
    let mut miner = slow.fixture.miner().await;
    let mut tokens = Vec::new();
    for _ in 0..18 {
        tokens.push(miner.token("alice").await);
    }
    for token in tokens {
        let request_id = miner.request_id();
        let message = slow_job(&slow.fixture).message(request_id, &token);
        miner.send(&message).await;
    }
    until("a check has begun", || {
        slow.thinking.load(Ordering::SeqCst) > 0
    })
    .await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(slow.most.load(Ordering::SeqCst), 1);
    // Four are worked on and twelve wait; the rest is refused, and the miner is still heard.
    for _ in 0..2 {
        let refused: DeclareMiningJobError = miner.receive().await;
        assert_eq!(refused.error_code.as_utf8_or_hex(), "too-many-declarations");
    }
    miner.token("alice").await;
    let job = Job::of(slow.fixture.work());
    let mut other = slow.fixture.miner().await;
    other.declare("bob", &job).await.unwrap();

    drop(miner);
    until("the check ends with its connection", || {
        slow.thinking.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_does_not_answer_in_time_is_an_error_of_ours() {
    let slow = slow_fixture(Limits {
        check_time_max_s: 1,
        ..Limits::default()
    })
    .await;
    let mut miner = slow.fixture.miner().await;
    let outcome = miner.declare("alice", &slow_job(&slow.fixture)).await;
    assert_eq!(outcome, Err("internal-error".to_owned()));
    assert_eq!(slow.thinking.load(Ordering::SeqCst), 0);
}

/// What a hostile miner may send: any frame at all, or a real message that was cut, padded or
/// damaged, which also makes its inner lengths lie.
fn hostile(real: Vec<Frame>) -> impl Strategy<Value = Frame> {
    let junk = (
        prop_oneof![Just(0_u16), Just(1), any::<u16>()],
        any::<bool>(),
        prop_oneof![0x50..=0x60_u8, any::<u8>()],
        proptest::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(
            |(extension_type, channel_msg, message_type, payload)| Frame {
                extension_type: extension_type & 0x7fff,
                channel_msg,
                message_type,
                payload,
            },
        );
    let damaged = (
        proptest::sample::select(real),
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        any::<prop::sample::Index>(),
        0..3_u8,
    )
        .prop_map(|(mut frame, changes, cut, how)| {
            for (at, byte) in changes {
                let at = at.index(frame.payload.len());
                frame.payload[at] = byte;
            }
            match how {
                0 => frame.payload.truncate(cut.index(frame.payload.len())),
                1 => frame
                    .payload
                    .extend(std::iter::repeat_n(0xff, cut.index(64))),
                _ => {}
            }
            frame
        });
    prop_oneof![junk, damaged]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_end_at_most_the_connection_that_sent_them() {
    let fixture = Fixture::start(Setting {
        limits: Limits {
            tokens_per_minute: 100_000,
            tokens_per_minute_total: 1_000_000,
            ..Limits::default()
        },
        ..Setting::default()
    })
    .await;
    let job = Job::of(fixture.work());
    let mut bystander = fixture.miner().await;
    let mut template = fixture.miner().await;
    let token = template.token("alice").await;
    let mut with_transactions = job.clone();
    with_transactions.transactions = vec![test_support::spend(0), test_support::spend(1)];
    let real = vec![
        Frame::new(&job.message(1, &token)).unwrap(),
        Frame::new(&with_transactions.message(2, &token)).unwrap(),
        Frame::new(&job.solve()).unwrap(),
        Frame::new(&dovetail_sv2::messages::AllocateMiningJobToken {
            user_identifier: "mallory".try_into().unwrap(),
            request_id: 1,
        })
        .unwrap(),
        Frame::new(&dovetail_sv2::messages::ProvideMissingTransactionsSuccess {
            request_id: 2,
            transaction_list: dovetail_sv2::messages::Seq064KOwned::new(vec![
                test_support::spend(0).try_into().unwrap(),
                vec![0xff; 40].try_into().unwrap(),
            ])
            .unwrap(),
        })
        .unwrap(),
    ];
    let frames = proptest::collection::vec(hostile(real), 1..12);
    let mut runner = TestRunner::new(Config::default());
    for round in 0..60 {
        let sequence = frames.new_tree(&mut runner).unwrap().current();
        let mut hostile = fixture.miner().await;
        // A token of its own, so that what it damages gets beyond the first check.
        let own = hostile.token("mallory").await;
        for mut frame in sequence.clone() {
            if frame.message_type == DeclareMiningJob::MESSAGE_TYPE
                && let Some(place) = frame.payload.get_mut(5..5 + own.len())
            {
                place.copy_from_slice(&own);
            }
            if hostile.writer.write(&frame).await.is_err() {
                break;
            }
        }
        // Every answer up to its end is a message of the protocol.
        let answers = async {
            while let Ok(frame) = hostile.reader.read().await {
                assert!(frame.extension_type == 0, "{frame:?}");
                assert!((0x51..=0x5f).contains(&frame.message_type), "{frame:?}");
            }
        };
        let _ = timeout(Duration::from_millis(20), answers).await;
        let outcome = bystander.declare("bob", &job).await;
        assert!(
            outcome.is_ok(),
            "round {round}: {outcome:?} after {sequence:#?}"
        );
    }
}
