//! What the socket and the simulated network do with junk, strangers and repetition.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::{
    Client, CreatedInvoice, FailureClass, Hash32, InvoiceError, InvoicePayment, PaymentStatus,
    Request, parse_invoice, server, simulator,
};
use dovetail_units::time::unix_now;
use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const BALANCE_MSAT: u64 = 1_000_000;

fn attempt(n: u8, invoice: &CreatedInvoice) -> InvoicePayment {
    InvoicePayment {
        attempt: Hash32([n; 32]),
        payment_hash: invoice.payment_hash,
        bolt11: invoice.bolt11.clone(),
        max_fee_msat: 0,
        cltv_max: 432,
    }
}

struct Network3 {
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    serving: Vec<JoinHandle<()>>,
}

impl Network3 {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let serving = simulator::wallets(3, BALANCE_MSAT)
            .into_iter()
            .enumerate()
            .map(|(n, wallet)| {
                let listener = server::bind(&dir.path().join(format!("{n}.sock"))).unwrap();
                tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()))
            })
            .collect();
        Self {
            dir,
            shutdown,
            serving,
        }
    }

    fn path(&self, n: usize) -> PathBuf {
        self.dir.path().join(format!("{n}.sock"))
    }

    fn client(&self, n: usize) -> Client {
        Client::new(self.path(n))
    }
}

#[tokio::test]
async fn only_a_dead_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("w.sock");
    let listener = server::bind(&socket).unwrap();
    let mode = socket.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let taken = server::bind(&socket).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    drop(listener);
    server::bind(&socket).unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "kept").unwrap();
    assert!(server::bind(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert_eq!(dir.path().read_dir().unwrap().count(), 2);
}

#[tokio::test]
async fn one_attempt_asked_for_at_the_same_time_moves_money_once() {
    let network = Network3::start();
    let (payer, payee) = (network.client(0), network.client(1));
    let invoice = payee.create_invoice(100_000, "payout", 600).await.unwrap();
    let hash = invoice.payment_hash.0;
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (payer, payment) = (payer.clone(), attempt(1, &invoice));
            tokio::spawn(async move { payer.pay(payment).await.unwrap() })
        })
        .collect();
    for task in tasks {
        let PaymentStatus::Succeeded { preimage, .. } = task.await.unwrap() else {
            panic!("a payment that can be made did not succeed");
        };
        assert_eq!(sha256::Hash::hash(&preimage.0).to_byte_array(), hash);
        assert!(!format!("{preimage:?}").contains(&hex::encode(preimage.0)));
    }
    assert_eq!(payer.balance().await.unwrap(), BALANCE_MSAT - 100_000);
    assert_eq!(payee.balance().await.unwrap(), BALANCE_MSAT + 100_000);
}

#[tokio::test]
async fn a_failed_attempt_stays_failed_when_the_money_comes_later_and_another_one_succeeds() {
    let network = Network3::start();
    let (poor, rich, payee) = (network.client(0), network.client(1), network.client(2));
    let dear = payee
        .create_invoice(BALANCE_MSAT + 1, "payout", 600)
        .await
        .unwrap();
    let failed = PaymentStatus::failed(FailureClass::NoLiquidity);
    assert_eq!(poor.pay(attempt(1, &dear)).await.unwrap(), failed);
    let gift = poor.create_invoice(500_000, "gift", 600).await.unwrap();
    let gave = rich.pay(attempt(1, &gift)).await.unwrap();
    assert!(matches!(gave, PaymentStatus::Succeeded { .. }));
    assert_eq!(poor.pay(attempt(1, &dear)).await.unwrap(), failed);
    assert_eq!(payee.balance().await.unwrap(), BALANCE_MSAT);
    let second = poor.pay(attempt(2, &dear)).await.unwrap();
    assert!(matches!(second, PaymentStatus::Succeeded { .. }));
    assert_eq!(poor.payment([1; 32]).await.unwrap(), failed);
    assert_eq!(payee.balance().await.unwrap(), 2 * BALANCE_MSAT + 1);
}

#[tokio::test]
async fn an_expired_invoice_and_an_invoice_of_ones_own_are_not_paid() {
    let network = Network3::start();
    let (payer, payee) = (network.client(0), network.client(1));
    let late = payee.create_invoice(1_000, "payout", 0).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let own = payer.create_invoice(1_000, "own", 600).await.unwrap();
    let expected = [FailureClass::Expired, FailureClass::Invalid];
    for (n, (invoice, reason)) in (1..).zip([late, own].into_iter().zip(expected)) {
        let status = payer.pay(attempt(n, &invoice)).await.unwrap();
        assert_eq!(status, PaymentStatus::failed(reason));
    }
    assert_eq!(payer.balance().await.unwrap(), BALANCE_MSAT);
}

#[tokio::test]
async fn a_parsed_invoice_says_when_it_expires_and_one_with_a_changed_byte_is_refused() {
    let network = Network3::start();
    let made = network.client(0).create_invoice(5_000, "payout", 600).await;
    let bolt11 = made.unwrap().bolt11;
    let parsed = parse_invoice(&bolt11, Network::Regtest, 5_000).unwrap();
    let now = unix_now();
    assert!((now + 590..=now + 610).contains(&parsed.expires_at_unix));
    let middle = bolt11.len() / 2;
    let other = if bolt11.as_bytes()[middle] == b'q' {
        "p"
    } else {
        "q"
    };
    let mut forged = bolt11;
    forged.replace_range(middle..=middle, other);
    assert_eq!(
        parse_invoice(&forged, Network::Regtest, 5_000),
        Err(InvoiceError::Malformed)
    );
}

#[tokio::test]
async fn the_socket_is_its_users_alone_and_serving_ends_at_shutdown() {
    let network = Network3::start();
    let mode = std::fs::metadata(network.path(0)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    network.shutdown.cancel();
    for task in network.serving {
        timeout(Duration::from_secs(5), task)
            .await
            .expect("serving ends at shutdown")
            .unwrap();
    }
}

proptest! {
    #[test]
    fn junk_lines_never_panic_the_parser(line in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let _ = serde_json::from_slice::<Request>(&line);
    }

    #[test]
    fn lines_that_look_like_requests_never_panic_the_parser(
        method in "(pay|pay_offer|payment|balance|get_info|create_invoice|[a-z_]{0,12})",
        key in "(attempt|payment_hash|bolt11|offer|amount_msat|[a-z_]{0,12})",
        value in "(-?[0-9]{0,25}|\"[0-9a-fA-F]{0,70}\"|null|\\[\\]|\\{\\})",
    ) {
        let line = format!("{{\"method\":\"{method}\",\"params\":{{\"{key}\":{value}}}}}");
        let _ = serde_json::from_str::<Request>(&line);
    }
}
