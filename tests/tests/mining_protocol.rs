//! What the specification leaves to a pool, and what is easily forgotten of it: flags that depend on the client's, custom
//! jobs for a group, whose jobs a client is sent, names that nobody can be paid by, devices that shares name, and clients
//! that do not take the pool's certificate. docs/sv2-conformance.md is the whole list.

#![allow(clippy::unwrap_used)]

mod declaration;

use std::sync::Arc;
use std::time::{Duration, Instant};

use declaration::{DeclaratorClient, Job, Mining, Peer, TIME_MAX};
use dovetail_sv2::extension::EXTENSION_TYPE;
use dovetail_sv2::messages::{
    NewExtendedMiningJob, OpenExtendedMiningChannel, OpenMiningChannelError,
    OpenStandardMiningChannel, OpenStandardMiningChannelSuccess, SetCustomMiningJob,
    SetNewPrevHash, Str0255Owned, U256Owned,
};
use dovetail_sv2::setup::{SetupProtocol, mining_flags};
use dovetail_sv2::{
    AuthorityKeys, AuthorityPublicKey, ConnectionError, Doubt, Frame, Message, Tlv, connect, setup,
    worker_tracking,
};
use dovetail_templates::{SourceConfig, TemplateHandle, WorkSnapshot};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A pool, and its templates as a miner's own node would give them.
struct Fixture {
    scenario: Scenario,
    templates: TemplateHandle,
    _templates: DropGuard,
    _dir: tempfile::TempDir,
}

impl Fixture {
    /// A share is a block here with this target: about one in 65,536 hashes.
    const EASY_BLOCKS: &str = "1f00ffff";
    /// No share is a block by chance.
    const NO_BLOCKS: &str = "1d00ffff";

    fn start(bits: &'static str) -> Self {
        let options = Options {
            bits,
            worker: false,
            hasher: false,
            ..Options::default()
        };
        let (dir, scenario) = dovetail_tests::scenario(&options).unwrap();
        let stop = CancellationToken::new();
        let provider = scenario.network.template_provider().unwrap();
        let source = SourceConfig::template_provider(provider, None);
        Self {
            templates: dovetail_templates::start(source, stop.clone()).unwrap(),
            _templates: stop.drop_guard(),
            scenario,
            _dir: dir,
        }
    }

    async fn work(&self) -> Arc<WorkSnapshot> {
        let mut work = self.templates.subscribe();
        let work = work.wait_for(Option::is_some).await.unwrap();
        work.clone().unwrap()
    }

    /// A job of this account's that the declarator took, and its message for the pool.
    async fn declared(&self, account: &str, mining: &Mining) -> (Job, SetCustomMiningJob) {
        let mut declarator = DeclaratorClient::full_template(&self.scenario.declaration).await;
        let token = declarator.token(account).await;
        let job = Job::new(
            self.work().await,
            Vec::new(),
            &token,
            &mining.channel,
            |_| (),
        );
        let token = declarator.declare(&token, &job).await.unwrap();
        let message = job.custom(&mining.channel, &token);
        (job, message)
    }
}

fn standard_channel(identity: &str) -> OpenStandardMiningChannel {
    OpenStandardMiningChannel {
        request_id: 7,
        user_identity: Str0255Owned::try_from(identity).unwrap(),
        nominal_hash_rate: 100_000.0,
        max_target: U256Owned::from([0xff; 32]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_selects_work_is_told_at_once_that_standard_channels_are_not_for_it() {
    let fixture = Fixture::start(Fixture::NO_BLOCKS);
    let address = &fixture.scenario.mining;
    let authority: AuthorityPublicKey = AUTHORITY_PUBLIC.parse().unwrap();
    let selects = mining_flags::REQUIRES_WORK_SELECTION;
    let rolls = mining_flags::REQUIRES_VERSION_ROLLING;
    for (flags, expected) in [
        (0, 0),
        (mining_flags::REQUIRES_STANDARD_JOBS | rolls, 0),
        (selects, mining_flags::REQUIRES_EXTENDED_CHANNELS),
        (selects | rolls, mining_flags::REQUIRES_EXTENDED_CHANNELS),
    ] {
        let (mut reader, mut writer) = connect(address, Some(authority)).await.unwrap();
        let protocol = SetupProtocol::MiningProtocol;
        let request = setup::request(protocol, flags, address, "test").unwrap();
        let success = setup::open(&mut reader, &mut writer, &request).await;
        assert_eq!(success.unwrap().flags, expected, "{flags:#b}");
    }
    let mut peer = Peer::open(address, SetupProtocol::MiningProtocol, selects).await;
    peer.send(&standard_channel("alice")).await;
    let refused: OpenMiningChannelError = peer.receive().await;
    assert_eq!(
        refused.error_code.as_utf8_or_hex(),
        "standard-channels-not-supported-for-custom-work"
    );
    let mut plain = Peer::open(address, SetupProtocol::MiningProtocol, 0).await;
    plain.send(&standard_channel("alice")).await;
    let _: OpenStandardMiningChannelSuccess = plain.receive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_job_for_the_group_is_one_job_on_each_of_its_channels() {
    let fixture = Fixture::start(Fixture::NO_BLOCKS);
    let mut mining = Mining::open(&fixture.scenario.mining, "alice.one").await;
    // The channels number their jobs apart from each other: one has had a job before.
    let (_, alone) = fixture.declared("alice", &mining).await;
    let alone = mining.set_custom_job(&alone).await.unwrap();
    let second = mining.another_channel("alice.two").await;
    assert_eq!(second.group_id, mining.channel.group_id);

    let (job, mut message) = fixture.declared("alice", &mining).await;
    message.channel_id = second.group_id;
    let job_id = mining.set_custom_job(&message).await.unwrap();
    assert_ne!(job_id, alone);
    // One number, and header spaces that do not meet: each channel has its own part of the extranonce.
    let first = mining.channel.clone();
    for channel in [&first, &second] {
        let found = job.search_share(channel).await;
        let share = job.share(channel, job_id, &found);
        mining.peer.send(&share).await;
        assert_eq!(mining.answer().await, Ok(()), "channel {}", channel.id);
    }
    let credited = "SELECT count(*) FROM named_shares WHERE account = 'alice'";
    fixture.scenario.query_until(credited, "2").unwrap();

    // A token is one account's, so the group has to be.
    let (_, mut message) = fixture.declared("alice", &mining).await;
    message.channel_id = second.group_id;
    mining.another_channel("bob").await;
    let refused = mining.set_custom_job(&message).await;
    assert_eq!(refused, Err("invalid-mining-job-token".to_owned()));
    // It was not spent by that.
    message.channel_id = first.id;
    mining.set_custom_job(&message).await.unwrap();
}

/// Every share here is a block, whose own tip follows it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_brings_custom_jobs_is_sent_none_of_the_pools_over_new_tips_either() {
    let fixture = Fixture::start(Fixture::EASY_BLOCKS);
    let mut mining = Mining::open(&fixture.scenario.mining, "alice").await;
    let mut plain = Mining::open_plain(&fixture.scenario.mining, "bob", 100_000.0).await;
    let first: SetNewPrevHash = plain.peer.receive().await;

    let (job, message) = fixture.declared("alice", &mining).await;
    let job_id = mining.set_custom_job(&message).await.unwrap();
    let found = job.search(&mining.channel, mining.channel.target).await;
    assert_eq!(mining.submit(job_id, &job, &found).await, Ok(()));
    let next: SetNewPrevHash = plain.peer.receive().await;
    assert_ne!(next.prev_hash, first.prev_hash);
    // The connection knows the new tip too once it says so.
    let moved = async {
        while mining.set_custom_job(&message).await != Err("stale-chain-tip".to_owned()) {}
    };
    tokio::time::timeout(TIME_MAX, moved).await.unwrap();
    let late = job.search(&mining.channel, mining.channel.target).await;
    let late = mining.submit(job_id, &job, &late).await.unwrap_err();
    assert_eq!(late, "stale-share");
    // It goes on with a job on the new tip.
    fixture
        .templates
        .subscribe()
        .wait_for(|work| {
            work.as_ref()
                .is_some_and(|work| work.prev_hash() == *next.prev_hash.as_array())
        })
        .await
        .unwrap();
    let (job, message) = fixture.declared("alice", &mining).await;
    let job_id = mining.set_custom_job(&message).await.unwrap();
    let found = job.search(&mining.channel, mining.channel.target).await;
    assert_eq!(mining.submit(job_id, &job, &found).await, Ok(()));
    for pools in [
        NewExtendedMiningJob::MESSAGE_TYPE,
        SetNewPrevHash::MESSAGE_TYPE,
    ] {
        assert!(!mining.peer.seen.contains(&pools), "{pools:#x}");
        assert!(plain.peer.seen.contains(&pools), "{pools:#x}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_declares_and_speaks_the_inference_extension_is_sent_the_pools_jobs_too() {
    let fixture = Fixture::start(Fixture::NO_BLOCKS);
    let flags = mining_flags::REQUIRES_WORK_SELECTION;
    let protocol = SetupProtocol::MiningProtocol;
    let mut early = Peer::open(&fixture.scenario.mining, protocol, flags).await;
    assert!(early.negotiate(EXTENSION_TYPE).await);
    let mut early = Mining::on(early, "alice", 100_000.0).await;
    let job: NewExtendedMiningJob = early.peer.receive().await;
    let tip: SetNewPrevHash = early.peer.receive().await;
    assert_eq!(tip.job_id, job.job_id);
    // One that asks only after it has opened a channel is given a job as well.
    let late = Peer::open(&fixture.scenario.mining, protocol, flags).await;
    let mut late = Mining::on(late, "alice", 100_000.0).await;
    assert!(late.peer.negotiate(EXTENSION_TYPE).await);
    let job: NewExtendedMiningJob = late.peer.receive().await;
    assert_eq!(job.channel_id, late.channel.id);
    let tip: SetNewPrevHash = late.peer.receive().await;
    assert_eq!(tip.job_id, job.job_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_nobody_can_be_paid_by_are_refused_and_the_log_says_why() {
    let fixture = Fixture::start(Fixture::NO_BLOCKS);
    let mut peer = Peer::open(&fixture.scenario.mining, SetupProtocol::MiningProtocol, 0).await;
    for (identity, reason) in [
        ("", "it names nobody"),
        (
            "sri/solo/bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw/rig",
            "solo mining",
        ),
        ("sri/donate/50/alice/rig", "solo mining or a donation"),
    ] {
        let extended = OpenExtendedMiningChannel {
            request_id: 7,
            user_identity: Str0255Owned::try_from(identity).unwrap(),
            nominal_hash_rate: 100_000.0,
            max_target: U256Owned::from([0xff; 32]),
            min_extranonce_size: 8,
        };
        for frame in [
            Frame::new(&standard_channel(identity)).unwrap(),
            Frame::new(&extended).unwrap(),
        ] {
            peer.send_frame(&frame).await;
            let refused: OpenMiningChannelError = peer.receive().await;
            let code = refused.error_code.as_utf8_or_hex();
            assert_eq!(
                (refused.request_id, code.as_str()),
                (7, "invalid-user-identity")
            );
        }
        assert!(fixture.scenario.pool.log().contains(reason), "{reason}");
    }
    peer.send(&standard_channel("alice")).await;
    let _: OpenStandardMiningChannelSuccess = peer.receive().await;
}

/// Hands in a share of a job with this field behind it; the code if it is refused.
async fn share_with(
    mining: &mut Mining,
    (job_id, job): (u32, &Job),
    field: &Tlv,
) -> Result<(), String> {
    let found = job.search_share(&mining.channel).await;
    let share = job.share(&mining.channel, job_id, &found);
    let frame = Frame::with_tlv(&share, field).unwrap();
    mining.peer.send_frame(&frame).await;
    mining.answer().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_each_device_behind_a_proxy_is_kept_by_the_name_that_comes_with_its_shares() {
    let mut fixture = Fixture::start(Fixture::NO_BLOCKS);
    let protocol = SetupProtocol::MiningProtocol;
    let flags = mining_flags::REQUIRES_WORK_SELECTION;
    let name = |text: &str| worker_tracking::user_identity_tlv(text).unwrap();
    let long = Tlv {
        value: vec![b'x'; 33],
        ..name("x")
    };
    let mut named = Peer::open(&fixture.scenario.mining, protocol, flags).await;
    assert!(named.negotiate(worker_tracking::EXTENSION_TYPE).await);
    let mut named = Mining::on(named, "farm.proxy", 100_000.0).await;
    let (job, message) = fixture.declared("farm", &named).await;
    let job = (named.set_custom_job(&message).await.unwrap(), &job);
    assert_eq!(share_with(&mut named, job, &name("rig1")).await, Ok(()));
    assert_eq!(
        share_with(&mut named, job, &name("farm.rig2")).await,
        Ok(())
    );
    let refused = share_with(&mut named, job, &long).await;
    assert_eq!(refused, Err("invalid-user-identity".to_owned()));
    let other = Tlv {
        extension_type: 0x7777,
        ..name("rig9")
    };
    assert_eq!(share_with(&mut named, job, &other).await, Ok(()));

    // Who has not asked for the extension may send such fields, and they mean nothing.
    let mut plain = Mining::open(&fixture.scenario.mining, "farm.alone").await;
    let (job, message) = fixture.declared("farm", &plain).await;
    let job = (plain.set_custom_job(&message).await.unwrap(), &job);
    for field in [name("rig1"), long] {
        assert_eq!(share_with(&mut plain, job, &field).await, Ok(()));
    }
    // What was counted is written at the latest when the pool stops.
    fixture.scenario.pool.stop();
    let devices = "SELECT string_agg(device || ' ' || shares, ', ' ORDER BY device) FROM devices WHERE account = 'farm'";
    assert_eq!(
        fixture.scenario.query(devices).unwrap(),
        "alone 2, proxy 1, rig1 1, rig2 1"
    );
    let sums = "SELECT (SELECT sum(work) FROM devices) = (SELECT sum(work) FROM shares)";
    assert_eq!(fixture.scenario.query(sums).unwrap(), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_the_certificate_is_told_why_and_so_is_the_pools_operator() {
    let fixture = Fixture::start(Fixture::NO_BLOCKS);
    let other = AuthorityKeys::generate().public();
    let refused = connect(&fixture.scenario.mining, Some(other))
        .await
        .map(drop);
    assert!(matches!(
        refused,
        Err(ConnectionError::Certificate(Doubt::OtherAuthority))
    ));
    let deadline = Instant::now() + TIME_MAX;
    let told = || fixture.scenario.pool.log();
    while !told().contains("hung up as soon as it had our certificate") {
        assert!(Instant::now() < deadline, "{}", told());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(told().contains("its clock is off"));
}
