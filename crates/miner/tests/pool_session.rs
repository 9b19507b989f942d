//! Sessions of the worker and of the hasher with a pool that this test plays.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dovetail_commitment::{
    BatchRoot, EncodedPrompt, ModelId, PROMPT_TOKENS_MAX, SamplingParams, StopSequences, TaskId,
};
use dovetail_miner::hasher::{self, HasherOptions, HasherStats};
use dovetail_miner::job::FoundShare;
use dovetail_miner::keys::WorkerKeys;
use dovetail_miner::pool_session::{PoolEvent, PoolOptions, PoolSession, SessionError};
use dovetail_miner::search::{header_bytes, header_hash, meets};
use dovetail_sv2::AuthorityKeys;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{AssignTask, RegisterWorker, RegisterWorkerError, find_claim};
use dovetail_sv2::messages::{
    B032Owned, NewMiningJob, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess,
    SetNewPrevHash, SetTarget, SubmitSharesExtended, SubmitSharesStandard, SubmitSharesSuccess,
    Sv2OptionOwned, U256Owned,
};
use dovetail_sv2::setup::SetupProtocol;
use dovetail_units::KeptCredit;
use support::{Played, easy_target, listen, vrf_key};
use tokio_util::sync::CancellationToken;

fn options(address: String, keys: &AuthorityKeys) -> PoolOptions {
    PoolOptions {
        address,
        authority: keys.public(),
        models: vec![ModelId::from_bytes([2; 32])],
        max_tasks: 3,
        keep: KeptCredit::new(77).unwrap(),
        nominal_hash_rate: 1e6,
        declares_jobs: true,
    }
}

/// With the longest prompt.
fn task() -> AssignTask {
    AssignTask {
        task_id: TaskId::from_bytes([1; 32]),
        model_id: ModelId::from_bytes([2; 32]),
        prompt: EncodedPrompt::new(b"hello", vec![104; PROMPT_TOKENS_MAX]).unwrap(),
        salt: [3; 32],
        sampling: SamplingParams {
            temperature_milli: 0,
            top_k: 0,
            top_p_milli: 1000,
            max_tokens: 4,
        },
        stop: StopSequences::default(),
        constraint: None,
        seed: [4; 32],
        deadline_ms: 1000,
    }
}

#[tokio::test]
async fn a_session_proves_its_key_opens_a_channel_and_claims_with_its_shares() {
    let (listener, address, authority) = listen().await;
    let keys = WorkerKeys::generate();
    let pool = async {
        let mut pool = Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
        let (register, open) = pool.register(vrf_key()).await;
        assert_eq!((register.models.len(), register.max_tasks), (1, 3));
        assert_eq!(register.keep_msat, KeptCredit::new(77).unwrap());
        assert_eq!(
            open.user_identity.as_utf8_or_hex(),
            register.worker_key.to_string()
        );
        pool.open_channel(&open, 5, [0xff; 32], 8).await;
        pool.send(&task()).await;
        pool.send(&SetTarget {
            channel_id: 5,
            maximum_target: U256Owned::from([9; 32]),
        })
        .await;
        let frame = pool.reader.read().await.unwrap();
        frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap()
    };
    let worker = async {
        let mut session = PoolSession::open(&options(address, &authority), &keys)
            .await
            .unwrap();
        assert_eq!(session.vrf_key(), vrf_key());
        assert_eq!(session.channel().full_extranonce_size(), 11);
        let event = session.next().await.unwrap();
        assert!(matches!(event, PoolEvent::Task(given) if given == task()));
        let event = session.next().await.unwrap();
        assert!(matches!(event, PoolEvent::ChannelChanged));
        assert_eq!(session.channel().target, [9; 32]);
        let found = FoundShare {
            job_id: 3,
            upstream_job_id: None,
            extranonce: vec![0; 8],
            nonce: 1,
            ntime: 2,
            version: 0x2000_0000,
            hash: [0; 32],
            target: [9; 32],
            block: false,
        };
        let share = session.channel().share(1, 77, &found);
        let root = BatchRoot::from_bytes([6; 32]);
        session.submit(&share, Some(&root)).unwrap();
        session
    };
    let ((share, fields), _session) = tokio::join!(pool, worker);
    assert_eq!((share.channel_id, share.job_id), (5, 77));
    assert_eq!(
        find_claim(&fields),
        Ok(Some(BatchRoot::from_bytes([6; 32])))
    );
}

#[tokio::test]
async fn an_extranonce_that_no_share_can_carry_ends_the_session_and_nothing_else() {
    for size in [7, 33, u16::MAX] {
        let (listener, address, authority) = listen().await;
        let keys = WorkerKeys::generate();
        let pool = async {
            let mut pool =
                Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
            let (_, open) = pool.register(vrf_key()).await;
            pool.open_channel(&open, 5, [0xff; 32], size).await;
        };
        let options = options(address, &authority);
        let (opened, ()) = tokio::join!(PoolSession::open(&options, &keys), pool);
        let refused = opened.unwrap_err();
        assert!(
            matches!(refused, SessionError::Extranonce(bytes) if bytes == usize::from(size)),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_target_of_0_ends_the_session_at_its_opening_and_later() {
    for first in [[0; 32], easy_target()] {
        let (listener, address, authority) = listen().await;
        let keys = WorkerKeys::generate();
        let pool = async {
            let mut pool =
                Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
            let (_, open) = pool.register(vrf_key()).await;
            pool.open_channel(&open, 5, first, 8).await;
            let maximum_target = U256Owned::from([0; 32]);
            pool.send(&SetTarget {
                channel_id: 5,
                maximum_target,
            })
            .await;
            pool
        };
        let options = options(address, &authority);
        let session = async {
            let mut session = PoolSession::open(&options, &keys).await?;
            session.next().await
        };
        let (ended, _pool) = tokio::join!(session, pool);
        assert!(matches!(ended, Err(SessionError::TargetZero)), "{ended:?}");
    }
}

#[tokio::test]
async fn a_refused_registration_says_why() {
    let (listener, address, authority) = listen().await;
    let keys = WorkerKeys::generate();
    let pool = async {
        let mut pool = Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
        pool.grant_extension().await;
        let _: RegisterWorker = pool.expect().await;
        pool.send(&RegisterWorkerError {
            code: Code::ModelUnknown.to_string(),
        })
        .await;
        pool
    };
    let options = options(address, &authority);
    let worker = PoolSession::open(&options, &keys);
    let (_pool, opened) = tokio::join!(pool, worker);
    assert!(matches!(opened, Err(SessionError::NotRegistered(code)) if code == Code::ModelUnknown));
}

/// Else whoever can redirect its connections is given its registration.
#[tokio::test]
async fn a_worker_says_nothing_to_a_pool_of_another_authority() {
    let (listener, address, authority) = listen().await;
    let (_, _, another) = listen().await;
    let keys = WorkerKeys::generate();
    let options = options(address, &another);
    let pool = async {
        let mut pool = Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
        pool.grant_extension().await;
        let _: RegisterWorker = pool.expect().await;
    };
    tokio::select! {
        opened = PoolSession::open(&options, &keys) => assert!(opened.is_err()),
        () = pool => panic!("it registers with a pool that it was not told of"),
    }
}

#[tokio::test]
async fn the_hasher_submits_shares_that_meet_the_target_and_comes_back_after_a_disconnect() {
    let (listener, address, authority) = listen().await;
    let stats = Arc::new(HasherStats::default());
    let stop = CancellationToken::new();
    let options = HasherOptions {
        address,
        authority: Some(authority.public()),
        user: "somebody".to_owned(),
        threads: 1,
    };
    let hashing = tokio::spawn(hasher::run(options, stats.clone(), stop.clone()));
    for _connection in 0..2 {
        let mut pool = Played::accept(&listener, &authority, SetupProtocol::MiningProtocol).await;
        let open: OpenStandardMiningChannel = pool.expect().await;
        pool.send(&OpenStandardMiningChannelSuccess {
            request_id: open.request_id,
            channel_id: 3,
            target: U256Owned::from(easy_target()),
            extranonce_prefix: B032Owned::new(vec![0; 4]).unwrap(),
            group_channel_id: 0,
        })
        .await;
        pool.send(&NewMiningJob {
            channel_id: 3,
            job_id: 11,
            min_ntime: Sv2OptionOwned::new(None),
            version: 0x2000_0000,
            merkle_root: U256Owned::from([5; 32]),
        })
        .await;
        pool.send(&SetNewPrevHash {
            channel_id: 3,
            job_id: 11,
            prev_hash: U256Owned::from([6; 32]),
            min_ntime: 1_700_000_000,
            nbits: 0x207f_ffff,
        })
        .await;
        let share: SubmitSharesStandard = pool.expect().await;
        let header = header_bytes(
            share.version,
            &[6; 32],
            &[5; 32],
            share.ntime,
            0x207f_ffff,
            share.nonce,
        );
        assert!(meets(&header_hash(&header), &easy_target()));
        assert_eq!((share.channel_id, share.job_id), (3, 11));
        pool.send(&SubmitSharesSuccess {
            channel_id: 3,
            last_sequence_number: share.sequence_number,
            new_submits_accepted_count: 1,
            new_shares_sum: 1,
        })
        .await;
        let before = stats.accepted.load(Ordering::Relaxed);
        while stats.accepted.load(Ordering::Relaxed) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.cancel();
    hashing.await.unwrap();
    assert!(stats.accepted.load(Ordering::Relaxed) >= 2);
}
