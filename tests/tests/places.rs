//! Nobody takes a port: who may hold how many places of it, and for how long, at a pool that runs.

#![allow(clippy::unwrap_used)]

mod played;

use std::net::Ipv4Addr;
use std::time::Duration;

use dovetail_agent::AgentClient;
use dovetail_sv2::{AuthorityPublicKey, connect};
use dovetail_tests::scenario::{AUTHORITY_PUBLIC, Options, Scenario};
use played::miner::{Job, Miner};
use played::{LOCALHOST, TIME_MAX};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Addresses of this machine in three networks.
const NETWORKS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(127, 0, 1, 1),
    Ipv4Addr::new(127, 0, 2, 1),
    Ipv4Addr::new(127, 0, 3, 1),
];

fn pool(pool_settings: &'static [(&'static str, &'static str)]) -> (TempDir, Scenario) {
    let options = Options {
        worker: false,
        hasher: false,
        min_hashrate: 100,
        embedded_declarator: true,
        pool_settings,
        ..Options::default()
    };
    dovetail_tests::scenario(&options).unwrap()
}

async fn miner(scenario: &Scenario, account: &str, from: Ipv4Addr) -> Result<Miner, String> {
    Miner::open_as(account, from, &scenario.mining, 0.0).await
}

/// Proves work.
async fn prove(miner: &mut Miner) {
    let job: Job = miner.job(0, |_| true).await;
    assert_eq!(miner.share(&job, job.parts.min_ntime).await, Ok(()));
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    // Closed with or without a reset.
    timeout(TIME_MAX, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_opens_more_channels_as_its_channels_prove_work() {
    let (_dir, scenario) = pool(&[("MINING__CHANNELS_UNPROVEN_MAX", "2")]);
    let mut miner = miner(&scenario, "alice", LOCALHOST).await.unwrap();
    let full = Err("channel-capacity-exhausted".to_owned());
    assert_eq!(miner.open_another().await, Ok(()));
    assert_eq!(miner.open_another().await, full);
    prove(&mut miner).await;
    for _ in 0..3 {
        assert_eq!(miner.open_another().await, Ok(()));
    }
    assert_eq!(miner.open_another().await, full);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_and_one_network_have_more_connections_as_they_prove_work() {
    let (_dir, scenario) = pool(&[
        ("MINING__CONNECTIONS_PER_ADDRESS_MAX", "2"),
        ("MINING__CONNECTIONS_PER_NETWORK_MAX", "3"),
    ]);
    let neighbour = Ipv4Addr::new(127, 0, 0, 9);
    let mut inside = Vec::new();
    for _ in 0..2 {
        inside.push(miner(&scenario, "alice", LOCALHOST).await.unwrap());
    }
    assert!(miner(&scenario, "alice", LOCALHOST).await.is_err());
    inside.push(miner(&scenario, "alice", neighbour).await.unwrap());
    assert!(
        miner(&scenario, "alice", neighbour).await.is_err(),
        "its network is full"
    );
    inside.push(miner(&scenario, "alice", NETWORKS[0]).await.unwrap());
    // One of the address proves work: it makes room itself, and lets another one in.
    prove(&mut inside[0]).await;
    for _ in 0..2 {
        inside.push(miner(&scenario, "alice", LOCALHOST).await.unwrap());
    }
    assert!(miner(&scenario, "alice", LOCALHOST).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_good_share_is_closed_and_one_that_mines_is_not() {
    let (_dir, scenario) = pool(&[("MINING__FIRST_SHARE_S", "10")]);
    let mut mining = miner(&scenario, "alice", LOCALHOST).await.unwrap();
    let mut idle = miner(&scenario, "alice", LOCALHOST).await.unwrap();
    let idle = tokio::spawn(async move { idle.hung_up().await });
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    while !idle.is_finished() {
        pace.tick().await;
        prove(&mut mining).await;
    }
    prove(&mut mining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_account_has_a_place_where_a_stranger_has_none() {
    let (_dir, scenario) = pool(&[
        ("MINING__CONNECTIONS_MAX", "3"),
        ("MINING__CONNECTIONS_RESERVED", "2"),
    ]);
    let mut before = miner(&scenario, "alice", LOCALHOST).await.unwrap();
    prove(&mut before).await;
    drop(before);
    let [open, stranger, known] = NETWORKS;
    let _idle = miner(&scenario, "mallory", open).await.unwrap();
    let mut stranger = miner(&scenario, "mallory", stranger).await.unwrap();
    let mut known = miner(&scenario, "alice", known).await.unwrap();
    // Long before its time for the first share is over.
    stranger.hung_up().await;
    prove(&mut known).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_declarator_and_the_grpc_port_have_limits_of_their_own() {
    let (_dir, scenario) = pool(&[
        ("JOB_DECLARATOR__LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "1"),
        ("API__CONNECTIONS_PER_ADDRESS_MAX", "1"),
    ]);
    let authority: AuthorityPublicKey = AUTHORITY_PUBLIC.parse().unwrap();
    let declarator = || connect(&scenario.declaration, Some(authority));
    let first = declarator().await.unwrap();
    assert!(declarator().await.is_err());
    drop(first);
    let again = async { while declarator().await.is_err() {} };
    timeout(TIME_MAX, again).await.unwrap();

    let address = scenario.grpc.trim_start_matches("http://");
    let first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert!(is_closed(&mut second).await);
    drop(first);
    let again = async {
        loop {
            let client = AgentClient::connect(&scenario.grpc).await;
            if let Ok(client) = client
                && client.models().await.is_ok()
            {
                return;
            }
        }
    };
    timeout(TIME_MAX, again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_says_nothing_on_the_grpc_port_is_closed() {
    let (_dir, scenario) = pool(&[]);
    let address = scenario.grpc.trim_start_matches("http://");
    let mut silent = TcpStream::connect(address).await.unwrap();
    assert!(is_closed(&mut silent).await);
}
