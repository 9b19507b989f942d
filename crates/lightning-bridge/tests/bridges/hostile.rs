//! Nodes that break off, lie, or are not the ones that they say they are; and what an operator asks.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dovetail_lightning::{ClientError, FailureClass, Hash32, PaymentStatus, Request};

use crate::TIME_MAX;
use crate::contract::Pair;
use crate::core_lightning::CoreLightning;
use crate::crashes::payment;
use crate::door::Door;
use crate::lnd::Lnd;
use crate::network::{FEE_MSAT, Fault, Network};
use crate::pair::Bridges;

async fn broken_answers<D: Door + Sync + 'static>() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<D>::start_with(dir.path(), 1).await;
    let network = &pair.network;
    // The node had paid: its list tells.
    let paid = payment(network, 1);
    network.set_fault(Fault::PaidAndCut);
    pair.payer().pay(paid.clone()).await.unwrap();
    let status = pair.end(paid.attempt, TIME_MAX).await;
    assert!(
        matches!(status, PaymentStatus::Succeeded { .. }),
        "{status:?}"
    );
    // It had not: that is proven only once the command is over.
    for (n, fault) in [(2, Fault::Junk), (3, Fault::NotHeard)] {
        let unpaid = payment(network, n);
        network.set_fault(fault);
        let status = pair.payer().pay(unpaid.clone()).await.unwrap();
        assert_eq!(status, PaymentStatus::Pending, "{fault:?}");
        let status = pair.end(unpaid.attempt, TIME_MAX).await;
        assert!(matches!(status, PaymentStatus::Failed { .. }), "{status:?}");
        assert_eq!(network.times_moved(unpaid.payment_hash), 0);
    }
    // A success without a proof is nobody's word to pay again on.
    let lied = payment(network, 4);
    network.set_fault(Fault::WrongProof);
    let status = pair.payer().pay(lied).await.unwrap();
    assert_eq!(status, PaymentStatus::Review);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_of_core_lightning_prove_nothing() {
    broken_answers::<CoreLightning>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_of_lnd_prove_nothing() {
    broken_answers::<Lnd>().await;
}

/// Whatever the list says that is no clear word, the attempt stays on its way.
async fn lies<D: Door + Sync + 'static>(lies: &[&'static str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Bridges::<D>::start_with(dir.path(), 1).await;
    let held = payment(&pair.network, 1);
    pair.network.hold();
    pair.payer().pay(held.clone()).await.unwrap();
    pair.payer.kill();
    pair.payer.start_again();
    // Long enough that a clear word would decide.
    tokio::time::sleep(Duration::from_secs(13)).await;
    for lie in lies {
        pair.network.set_lie(Some(lie));
        let status = pair.payer().payment(held.attempt.0).await.unwrap();
        assert_eq!(status, PaymentStatus::Pending, "{lie}");
    }
    // Without the list no other payment begins, and nothing of it is noted.
    let other = payment(&pair.network, 2);
    let refused = pair.payer().pay(other.clone()).await;
    assert!(
        matches!(refused, Err(ClientError::Refused(_))),
        "{refused:?}"
    );
    let status = pair.payer().payment(other.attempt.0).await.unwrap();
    assert_eq!(status, PaymentStatus::Unknown);
    pair.network.set_lie(None);
    pair.network.release();
    let status = pair.end(held.attempt, TIME_MAX).await;
    assert!(
        matches!(status, PaymentStatus::Succeeded { .. }),
        "{status:?}"
    );
    assert_eq!(pair.network.times_moved(held.payment_hash), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unclear_list_of_core_lightning_decides_nothing() {
    lies::<CoreLightning>(&[
        "",
        "{\"pays\":[]}\n\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"another\",\"result\":{\"pays\":[]}}\n\n",
        "{\"jsonrpc\":\"2.0\",\"id\":\"dovetail:3\",\"result\":{\"pa",
        "[[[[[[[[\n\n",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unclear_list_of_lnd_decides_nothing() {
    lies::<Lnd>(&[
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{\"result\":{\"status\":\"FAILED\"",
        "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 No\r\nContent-Length: 45\r\n\r\n{\"code\":5,\"message\":\"Not Found\",\"details\":[]}",
        "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"error\":{\"code\":14,\"a\":1}}",
    ])
    .await;
}

/// A route costs more than this.
async fn dear_route<D: Door + Sync + 'static>() -> PaymentStatus {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<D>::start_with(dir.path(), 1).await;
    let mut dear = payment(&pair.network, 1);
    dear.max_fee_msat = FEE_MSAT - 1;
    let status = pair.payer().pay(dear.clone()).await.unwrap();
    assert_eq!(pair.network.times_moved(dear.payment_hash), 0);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn no_route_costs_more_than_its_limit() {
    let status = dear_route::<CoreLightning>().await;
    assert_eq!(status, PaymentStatus::failed(FailureClass::FeeOverLimit));
    // LND does not tell one from the other.
    let status = dear_route::<Lnd>().await;
    assert_eq!(status, PaymentStatus::failed(FailureClass::NoRoute));
}

/// What a bridge says that does not start.
fn refusal_to_start(mut command: Command, dir: &Path, name: &str) -> String {
    command.arg("--storage").arg(dir.join(name));
    command
        .arg("--socket")
        .arg(dir.join(format!("{name}.sock")));
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_certificate_and_an_exposed_macaroon_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let lnd = Lnd::open(&Network::new(), 0, dir.path()).await;
    std::fs::write(&lnd.certificate, include_bytes!("another.cert")).unwrap();
    let said = refusal_to_start(lnd.bridge(), dir.path(), "one");
    assert!(said.contains("UnknownIssuer"), "{said}");
    std::fs::write(&lnd.certificate, include_bytes!("tls.cert")).unwrap();
    let everybody = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&lnd.macaroon, everybody).unwrap();
    let said = refusal_to_start(lnd.bridge(), dir.path(), "two");
    assert!(said.contains("chmod 600"), "{said}");
    let only_us = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&lnd.macaroon, only_us).unwrap();
    std::fs::write(&lnd.macaroon, "no rights").unwrap();
    let said = refusal_to_start(lnd.bridge(), dir.path(), "three");
    assert!(said.contains("verification failed"), "{said}");
    assert!(!said.contains(&hex::encode("no rights")), "{said}");
}

async fn operated<D: Door + Sync + 'static>() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Bridges::<D>::start(dir.path()).await;
    let payment = payment(&pair.network, 1);
    pair.payer().pay(payment.clone()).await.unwrap();
    pair.end(payment.attempt, TIME_MAX).await;
    let ask = async |request: Request| pair.payer().raw(&request).await;
    let channels = ask(Request::ListChannels).await.unwrap();
    let channel = channels[0]["channel"].as_str().unwrap().to_owned();
    assert_eq!(channels[0]["is_usable"], true);
    let state = ask(Request::NodeState).await.unwrap();
    assert_eq!(state["can_send_msat"], channels[0]["can_send_msat"]);
    assert_eq!(
        (&state["channels"], &state["attempts_pending"]),
        (&1.into(), &0.into())
    );
    assert_eq!(ask(Request::UsableChannels).await.unwrap(), 1);
    assert!(ask(Request::NewAddress).await.unwrap().is_string());
    let fees = |channel: &str| Request::SetFees {
        channel: channel.to_owned(),
        base_msat: 1,
        parts_per_million: 2,
    };
    ask(fees(&channel)).await.unwrap();
    ask(fees("../../v1/getinfo")).await.unwrap_err();
    let folder = dir.path().join("backup");
    let backup = Request::Backup {
        folder: folder.clone(),
    };
    let made = ask(backup.clone()).await.unwrap();
    assert_eq!(
        (&made["attempts"], &made["channels"]),
        (&1.into(), &1.into())
    );
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    for entry in std::fs::read_dir(folder.join("attempts")).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    ask(backup).await.unwrap_err();
    let force = false;
    ask(Request::CloseChannel { channel, force }).await.unwrap();
    assert!(pair.payer().payment(Hash32([9; 32]).0).await.unwrap() == PaymentStatus::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_core_lightning() {
    operated::<CoreLightning>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_asks_lnd() {
    operated::<Lnd>().await;
}
