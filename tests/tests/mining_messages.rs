//! The messages of the mining protocol at the pool, one by one: what comes first on a channel, what a channel is refused
//! for, what a share is, and what closing does. docs/sv2-conformance.md is the whole list.

#![allow(clippy::unwrap_used)]

mod declaration;

use declaration::{Mining, Peer, TIME_MAX};
use dovetail_miner::search::{Search, SearchJob};
use dovetail_sv2::messages::{
    CloseChannel, NewExtendedMiningJob, NewMiningJob, OpenExtendedMiningChannel,
    OpenMiningChannelError, OpenStandardMiningChannel, OpenStandardMiningChannelSuccess,
    SetCustomMiningJob, SetCustomMiningJobError, SetNewPrevHash, Str0255Owned,
    SubmitSharesExtended, SubmitSharesSuccess, U256Owned, UpdateChannel, UpdateChannelError,
};
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_tests::scenario::{Options, Scenario};
use tokio::time::timeout;

fn pool() -> (tempfile::TempDir, Scenario) {
    let options = Options {
        // No share is a block by chance.
        bits: "1d00ffff",
        worker: false,
        hasher: false,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

async fn connect(scenario: &Scenario, flags: u32) -> Peer {
    Peer::open(&scenario.mining, SetupProtocol::MiningProtocol, flags).await
}

fn extended() -> OpenExtendedMiningChannel {
    OpenExtendedMiningChannel {
        request_id: 3,
        user_identity: Str0255Owned::try_from("alice").unwrap(),
        nominal_hash_rate: 10_000.0,
        max_target: U256Owned::from([0xff; 32]),
        min_extranonce_size: 8,
    }
}

fn standard() -> OpenStandardMiningChannel {
    OpenStandardMiningChannel {
        request_id: 4,
        user_identity: Str0255Owned::try_from("alice").unwrap(),
        nominal_hash_rate: 10_000.0,
        max_target: U256Owned::from([0xff; 32]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_messages_on_a_channel_are_a_future_job_and_the_tip_that_activates_it() {
    let (_dir, scenario) = pool();
    let flags = mining_flags::REQUIRES_VERSION_ROLLING;
    let mut mining = Mining::on(connect(&scenario, flags).await, "alice", 10_000.0).await;
    let job = mining.peer.frame().await;
    let job = job.decode::<NewExtendedMiningJob>().unwrap().0;
    let tip = mining.peer.frame().await;
    let tip = tip.decode::<SetNewPrevHash>().unwrap().0;
    assert_eq!(
        (job.channel_id, tip.channel_id),
        (mining.channel.id, mining.channel.id)
    );
    assert_eq!(tip.job_id, job.job_id);
    assert!(job.min_ntime.as_ref().is_none());
    assert!(job.version_rolling_allowed);
    // Without the fields of BIP 141: the input count follows the version.
    assert_eq!(job.coinbase_tx_prefix.as_bytes()[4], 1);

    let mut peer = connect(&scenario, flags | mining_flags::REQUIRES_STANDARD_JOBS).await;
    peer.send(&standard()).await;
    let success: OpenStandardMiningChannelSuccess = peer.receive().await;
    let job = peer.frame().await.decode::<NewMiningJob>().unwrap().0;
    let tip = peer.frame().await.decode::<SetNewPrevHash>().unwrap().0;
    assert_eq!(
        (job.channel_id, tip.channel_id),
        (success.channel_id, success.channel_id)
    );
    assert_eq!(tip.job_id, job.job_id);
    assert!(job.min_ntime.as_ref().is_none());
    assert_ne!(success.group_channel_id, success.channel_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_cannot_be_is_refused_with_its_reason_and_the_next_is_opened() {
    let (_dir, scenario) = pool();
    let mut peer = connect(&scenario, 0).await;
    for (message, code) in [
        (
            OpenExtendedMiningChannel {
                max_target: U256Owned::from([0; 32]),
                ..extended()
            },
            "max-target-out-of-range",
        ),
        (
            OpenExtendedMiningChannel {
                min_extranonce_size: 32,
                ..extended()
            },
            "min-extranonce-size-too-large",
        ),
        (
            OpenExtendedMiningChannel {
                nominal_hash_rate: f32::NAN,
                ..extended()
            },
            "invalid-nominal-hashrate",
        ),
    ] {
        peer.send(&message).await;
        let refused: OpenMiningChannelError = peer.receive().await;
        let given = (refused.request_id, refused.error_code.as_utf8_or_hex());
        assert_eq!(given, (message.request_id, code.to_owned()));
    }
    peer.send(&standard()).await;
    let _: OpenStandardMiningChannelSuccess = peer.receive().await;

    let mut firmware = connect(&scenario, mining_flags::REQUIRES_STANDARD_JOBS).await;
    firmware.send(&extended()).await;
    let refused: OpenMiningChannelError = firmware.receive().await;
    assert_eq!(
        refused.error_code.as_utf8_or_hex(),
        "extended-channels-not-supported-for-standard-jobs"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_job_of_whoever_did_not_say_that_it_selects_work_is_refused() {
    let (_dir, scenario) = pool();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 10_000.0).await;
    let job = SetCustomMiningJob {
        channel_id: mining.channel.id,
        request_id: 9,
        token: vec![1; 8].try_into().unwrap(),
        version: 0x2000_0000,
        prev_hash: U256Owned::from([0; 32]),
        min_ntime: 0,
        nbits: 0,
        coinbase_tx_version: 2,
        coinbase_prefix: vec![].try_into().unwrap(),
        coinbase_tx_input_n_sequence: 0,
        coinbase_tx_outputs: vec![].try_into().unwrap(),
        coinbase_tx_locktime: 0,
        merkle_path: Vec::new().try_into().unwrap(),
    };
    mining.peer.send(&job).await;
    let refused: SetCustomMiningJobError = mining.peer.receive().await;
    assert_eq!(refused.request_id, 9);
    assert_eq!(refused.error_code.as_utf8_or_hex(), "jd-not-supported");
}

/// A share of this job that meets the channel's target.
async fn good_share(
    mining: &Mining,
    job: &NewExtendedMiningJob,
    tip: &SetNewPrevHash,
) -> SubmitSharesExtended {
    let channel = &mining.channel;
    let path = job.merkle_path.as_slice().iter();
    let search = SearchJob {
        version: job.version,
        prev_hash: tip.prev_hash.to_array(),
        min_ntime: tip.min_ntime,
        nbits: tip.nbits,
        coinbase_prefix: [
            job.coinbase_tx_prefix.as_bytes(),
            &channel.extranonce_prefix,
        ]
        .concat(),
        coinbase_suffix: job.coinbase_tx_suffix.to_owned_bytes(),
        extranonce_size: channel.extranonce_size,
        merkle_path: path.map(|node| *node.as_array()).collect(),
        target: channel.target,
    };
    let mut search = Search::start(search);
    let found = timeout(TIME_MAX, search.found()).await.unwrap().unwrap();
    SubmitSharesExtended {
        channel_id: channel.id,
        sequence_number: 5,
        job_id: job.job_id,
        nonce: found.nonce,
        ntime: found.ntime,
        version: job.version,
        extranonce: found.extranonce.try_into().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_breaks_a_rule_is_refused_at_once_with_its_code_and_a_good_one_counts_once() {
    let (_dir, scenario) = pool();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 10_000.0).await;
    let job: NewExtendedMiningJob = mining.peer.receive().await;
    let tip: SetNewPrevHash = mining.peer.receive().await;
    let good = good_share(&mining, &job, &tip).await;
    let channel = &mining.channel;
    let wrong = [
        (
            SubmitSharesExtended {
                extranonce: vec![0; channel.extranonce_size - 1].try_into().unwrap(),
                ..good.clone()
            },
            "bad-extranonce-size",
        ),
        (
            SubmitSharesExtended {
                version: good.version ^ 1,
                ..good.clone()
            },
            "invalid-non-rollable-version-bit",
        ),
        (
            SubmitSharesExtended {
                ntime: tip.min_ntime - 1,
                ..good.clone()
            },
            "invalid-share",
        ),
        (
            // Another header: it meets the target once in a hundred thousand times.
            SubmitSharesExtended {
                ntime: good.ntime + 1,
                ..good.clone()
            },
            "difficulty-too-low",
        ),
    ];
    for (share, code) in wrong {
        mining.peer.send(&share).await;
        assert_eq!(mining.answer().await, Err(code.to_owned()));
    }
    mining.peer.send(&good).await;
    let success: SubmitSharesSuccess = mining.peer.receive().await;
    assert_eq!(success.last_sequence_number, good.sequence_number);
    assert_eq!(success.new_submits_accepted_count, 1);
    mining.peer.send(&good).await;
    assert_eq!(mining.answer().await, Err("duplicate-share".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_group_closes_its_channels_and_closing_one_closes_no_other() {
    let (_dir, scenario) = pool();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 10_000.0).await;
    let first = mining.channel.clone();
    let second = mining.another_channel("alice").await;
    let third = mining.another_channel("alice").await;
    let close = |channel_id| CloseChannel {
        channel_id,
        reason_code: Str0255Owned::try_from("done").unwrap(),
    };
    mining.peer.send(&close(first.id)).await;
    assert!(!is_open(&mut mining, first.id).await);
    assert!(is_open(&mut mining, second.id).await);
    mining.peer.send(&close(second.group_id)).await;
    for channel in [second, third] {
        assert!(!is_open(&mut mining, channel.id).await);
    }
}

/// Whether the pool knows the channel: it is asked by a share of a job that never was.
async fn is_open(mining: &mut Mining, channel_id: u32) -> bool {
    let share = SubmitSharesExtended {
        channel_id,
        sequence_number: 1,
        job_id: u32::MAX,
        nonce: 0,
        ntime: 0,
        version: 0,
        extranonce: vec![0; mining.channel.extranonce_size].try_into().unwrap(),
    };
    mining.peer.send(&share).await;
    match mining.answer().await.unwrap_err().as_str() {
        "invalid-job-id" => true,
        "invalid-channel-id" => false,
        code => panic!("{code}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_a_channel_that_cannot_be_is_refused() {
    let (_dir, scenario) = pool();
    let mut mining = Mining::open_plain(&scenario.mining, "alice", 10_000.0).await;
    let good = UpdateChannel {
        channel_id: mining.channel.id,
        nominal_hash_rate: 10_000.0,
        maximum_target: U256Owned::from([0xff; 32]),
    };
    for (message, code) in [
        (
            UpdateChannel {
                channel_id: 9_999,
                ..good.clone()
            },
            "invalid-channel-id",
        ),
        (
            UpdateChannel {
                nominal_hash_rate: -1.0,
                ..good.clone()
            },
            "invalid-nominal-hashrate",
        ),
        (
            UpdateChannel {
                maximum_target: U256Owned::from([0; 32]),
                ..good
            },
            "max-target-out-of-range",
        ),
    ] {
        mining.peer.send(&message).await;
        let refused: UpdateChannelError = mining.peer.receive().await;
        let given = (refused.channel_id, refused.error_code.as_utf8_or_hex());
        assert_eq!(given, (message.channel_id, code.to_owned()));
    }
}
