//! A pool or a declarator that has no work, or a node of another network, lets nobody in and says why: on standard output,
//! in its health, and to the service manager.

#![allow(clippy::unwrap_used)]

mod played;
mod service;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Command;

use dovetail_tests::process::Daemon;
use dovetail_tests::scenario::AUTHORITY_PUBLIC;
use dovetail_tests::{clerk_model, free_port, program};
use played::provider::Provider;
use service::{Service, TIME_MAX, notify_socket, provider_values};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

#[test]
fn a_pool_without_work_says_which_thing_is_missing_and_refuses_devices_until_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("node.sock");
    let place = socket.to_string_lossy().into_owned();
    let values = [
        ("TEMPLATES__KIND", "bitcoin-core"),
        ("TEMPLATES__SOCKET", place.as_str()),
    ];
    let mut pool = Service::pool("socket", dir, &values);
    pool.says_not_ready("there is no ");
    // A node that has died leaves its socket behind.
    drop(UnixListener::bind(&socket).unwrap());
    pool.says_not_ready("refuses connections");
    let log = pool.daemon.log();
    assert!(log.contains("cannot reach the template source"), "{log}");
    drop(pool);

    let dir = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let values = [
        ("TEMPLATES__KIND", "template-provider"),
        ("TEMPLATES__ADDRESS", address.as_str()),
    ];
    let mut pool = Service::pool("provider", dir, &values);
    pool.says_not_ready("refuses connections");
    let mut command = Command::new(program("dovetail-regtest"));
    command.args(["--listen", &address]);
    let logs = pool.dir.path().join("logs");
    let mut source = Daemon::spawn("templates", command, &logs).unwrap();
    source.ready(TIME_MAX).unwrap();
    let ready = pool.daemon.ready(TIME_MAX).unwrap();
    assert_eq!(ready["mining"], pool.port.to_string());
    TcpStream::connect(pool.port).unwrap();
    // It cannot be known better, and that is said.
    let log = pool.daemon.log();
    assert!(log.contains("does not say which network it is on"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_and_declarator_wait_for_a_source_that_has_no_template_yet() {
    let mut provider = Provider::start_silent().await;
    let dir = tempfile::tempdir().unwrap();
    let (notify, place) = notify_socket(dir.path());
    let values = provider_values(&provider);
    let values: Vec<_> = values
        .iter()
        .map(|(key, value)| (*key, &value[..]))
        .collect();
    let mut services = [
        Service::pool("silent", tempfile::tempdir().unwrap(), &values),
        Service::declarator("silent", tempfile::tempdir().unwrap(), &values, |command| {
            command.env("NOTIFY_SOCKET", &place);
        }),
    ];
    for service in &mut services {
        service.says_not_ready(
            "has given no template yet: its node is probably in initial block download",
        );
    }
    notify.until("STATUS=not ready: the template source is connected to");
    provider.tip(|_| {});
    notify.until("STATUS=ready");
    for service in &mut services {
        service.daemon.ready(TIME_MAX).unwrap();
        TcpStream::connect(service.port).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_ready_line_and_service_manager_follow_the_template_source() {
    let mut provider = Provider::start().await;
    provider.leave();
    let values = provider_values(&provider);
    let mut values: Vec<_> = values
        .iter()
        .map(|(key, value)| (*key, &value[..]))
        .collect();
    let grpc = format!("127.0.0.1:{}", free_port().unwrap());
    values.push(("API__LISTEN", &grpc));
    let dir = tempfile::tempdir().unwrap();
    let (notify, place) = notify_socket(dir.path());
    let mut pool = Service::pool_with("health", dir, &values, |command| {
        command
            .env("NOTIFY_SOCKET", &place)
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID");
    });
    pool.says_not_ready("refuses connections");
    let said = notify.until("STATUS=not ready: ");
    assert!(
        said.iter().all(|word| !word.contains("READY=1")),
        "{said:?}"
    );
    notify.until("WATCHDOG=1");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{grpc}")).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let service = String::new();
    let watched = health.watch(HealthCheckRequest { service }).await;
    let mut watched = watched.unwrap().into_inner();
    let mut health_becomes = async |wanted: ServingStatus| {
        let told = async {
            // One status may be told twice.
            while watched.message().await.unwrap().unwrap().status() != wanted {}
        };
        let told = tokio::time::timeout(TIME_MAX, told).await;
        told.unwrap_or_else(|_| panic!("the health is never {wanted:?}"));
    };
    health_becomes(ServingStatus::NotServing).await;

    provider.come_back().await;
    for round in 0..2 {
        let ready = pool.daemon.ready(TIME_MAX).unwrap();
        assert_eq!(ready["mining"], pool.port.to_string());
        let said = notify.until("STATUS=ready");
        assert!(said.iter().any(|word| word == "READY=1"), "{said:?}");
        health_becomes(ServingStatus::Serving).await;
        if round == 0 {
            provider.leave();
            // How the session ended is said first.
            let is_said = |line: &serde_json::Value| {
                let reason = line["reason"].as_str().unwrap_or_default();
                line["ready"] == false && reason.contains("refuses connections")
            };
            pool.daemon
                .wait_for(TIME_MAX, "not ready", is_said)
                .unwrap();
            notify.until("STATUS=not ready: ");
            health_becomes(ServingStatus::NotServing).await;
            provider.come_back().await;
        }
    }
    pool.daemon.signal("TERM");
    notify.until("STOPPING=1");
}

#[test]
fn a_worker_tells_the_service_manager_whether_its_devices_have_somebody_to_work_for() {
    let dir = tempfile::tempdir().unwrap();
    let (notify, place) = notify_socket(dir.path());
    let start = |name: &str, more: &str| {
        let (at, model) = (dir.path().display(), clerk_model());
        let config = dir.path().join(format!("{name}.toml"));
        let text = format!(
            "[worker]\nkey_file = \"{at}/{name}.key\"\nmodels = [\"{}\"]\n\
             [pool]\naddress = \"127.0.0.1:{}\"\nauthority_public_key = \"{AUTHORITY_PUBLIC}\"\n{more}",
            model.display(),
            free_port().unwrap()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(program("dovetail-worker"));
        command.args(["run", "--config"]).arg(config);
        command.env("NOTIFY_SOCKET", &place);
        Daemon::spawn(name, command, dir.path()).unwrap()
    };
    let mut worker = start("alone", "");
    let said = notify.until("STATUS=not ready: no session with any pool");
    assert!(said.iter().all(|word| word != "READY=1"), "{said:?}");
    let is_said = |line: &serde_json::Value| line["ready"] == false;
    worker.wait_for(TIME_MAX, "not ready", is_said).unwrap();
    worker.signal("TERM");
    notify.until("STOPPING=1");
    drop(worker);

    let solo = "[solo]\nnetwork = \"regtest\"\n\
        payout_address = \"addr(bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw)\"\n\
        [templates]\nkind = \"embedded\"\n";
    let mut worker = start("solo", solo);
    let said = notify.until("STATUS=ready");
    assert!(said.iter().any(|word| word == "READY=1"), "{said:?}");
    worker.ready(TIME_MAX).unwrap();
}

#[test]
fn a_pool_does_not_start_on_the_node_of_another_network() {
    let values = [
        ("MINING__NETWORK", "signet"),
        (
            "MINING__PAYOUT_ADDRESS",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ),
        ("TEMPLATES__KIND", "embedded"),
    ];
    let mut pool = Service::pool("network", tempfile::tempdir().unwrap(), &values);
    let ended = pool.daemon.ready(TIME_MAX).unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
    let log = pool.daemon.log();
    assert!(
        log.contains("network = \"signet\" is configured, but the node is on regtest"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_comes_back_on_another_network_gives_no_work_and_the_pool_says_why() {
    let mut provider = Provider::start().await;
    let values = provider_values(&provider);
    let values: Vec<_> = values
        .iter()
        .map(|(key, value)| (*key, &value[..]))
        .collect();
    let mut pool = Service::pool("moved", tempfile::tempdir().unwrap(), &values);
    pool.daemon.ready(TIME_MAX).unwrap();
    provider.leave();
    // As hard as a block of mainnet, which no block of a regtest is.
    let before = provider.tip_now().n_bits;
    provider.tip(|tip| tip.n_bits = 0x1900_ffff);
    provider.come_back().await;
    let words = "network = \"regtest\" is configured, but the template source's blocks have the target 1900ffff";
    let is_said = |line: &serde_json::Value| {
        assert_ne!(line["ready"], true, "{line}");
        line["reason"]
            .as_str()
            .is_some_and(|reason| reason == words)
    };
    pool.daemon.wait_for(TIME_MAX, words, is_said).unwrap();
    let log = pool.daemon.log();
    assert!(
        log.contains("ALARM: the template source is on another network"),
        "{log}"
    );
    provider.tip(|tip| tip.n_bits = before);
    pool.daemon.ready(TIME_MAX).unwrap();
}

#[test]
fn a_port_that_is_taken_is_named_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let values = [
        ("TEMPLATES__KIND", "embedded"),
        ("API__LISTEN", address.as_str()),
    ];
    let mut pool = Service::pool("port", tempfile::tempdir().unwrap(), &values);
    pool.daemon.ready(TIME_MAX).unwrap_err();
    let log = pool.daemon.log();
    assert!(
        log.contains(&format!("cannot listen on {address}")),
        "{log}"
    );
}
