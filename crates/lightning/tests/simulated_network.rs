//! The simulated network through its sockets, as a pool and a worker use it.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bitcoin::Network;
use dovetail_lightning::{
    Client, ClientError, CreatedInvoice, FailureClass, Hash32, InvoiceError, InvoicePayment,
    PaymentStatus, parse_invoice, server, simulator,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

fn attempt(n: u8, invoice: &CreatedInvoice) -> InvoicePayment {
    InvoicePayment {
        attempt: Hash32([n; 32]),
        payment_hash: invoice.payment_hash,
        bolt11: invoice.bolt11.clone(),
        max_fee_msat: 0,
        cltv_max: 432,
    }
}

struct Fixture {
    pool: Client,
    worker: Client,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
}

fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let mut clients = simulator::wallets(2, 1_000_000)
        .into_iter()
        .enumerate()
        .map(|(n, wallet)| {
            let path = dir.path().join(format!("{n}.sock"));
            let listener = server::bind(&path).unwrap();
            tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()));
            Client::new(path)
        });
    let (pool, worker) = (clients.next().unwrap(), clients.next().unwrap());
    drop(clients);
    Fixture {
        pool,
        worker,
        dir,
        shutdown,
    }
}

#[tokio::test]
async fn a_payment_arrives_once_however_often_it_is_sent() {
    let fixture = start();
    let (pool, worker) = (&fixture.pool, &fixture.worker);
    let invoice = worker.create_invoice(250_000, "payout", 600).await.unwrap();
    let hash = invoice.payment_hash.0;
    let unheard = pool.payment([1; 32]).await.unwrap();
    assert_eq!(unheard, PaymentStatus::Unknown);
    for _ in 0..3 {
        let status = pool.pay(attempt(1, &invoice)).await.unwrap();
        assert!(matches!(
            status,
            PaymentStatus::Succeeded { fee_msat: 0, .. }
        ));
    }
    assert_eq!(pool.balance().await.unwrap(), 750_000);
    assert_eq!(worker.balance().await.unwrap(), 1_250_000);
    assert!(worker.invoice_paid(hash).await.unwrap());
    assert!(!pool.invoice_paid(hash).await.unwrap());
    fixture.shutdown.cancel();
}

#[tokio::test]
async fn a_payment_that_cannot_be_made_fails_and_says_why() {
    let fixture = start();
    let (pool, worker) = (&fixture.pool, &fixture.worker);
    let dear = worker
        .create_invoice(1_000_001, "too much", 600)
        .await
        .unwrap();
    let nobodys = CreatedInvoice {
        payment_hash: Hash32([7; 32]),
        ..dear.clone()
    };
    let held_too_long = InvoicePayment {
        cltv_max: 17,
        ..attempt(3, &worker.create_invoice(1, "far", 600).await.unwrap())
    };
    let expected = [
        (attempt(1, &dear), FailureClass::NoLiquidity),
        (attempt(2, &nobodys), FailureClass::NoRoute),
        (held_too_long, FailureClass::NoRoute),
    ];
    for (payment, reason) in expected {
        let status = pool.pay(payment).await.unwrap();
        assert_eq!(status, PaymentStatus::failed(reason));
    }
    assert_eq!(pool.balance().await.unwrap(), 1_000_000);
}

#[tokio::test]
async fn an_invoice_is_checked_before_money_is_set_aside() {
    let fixture = start();
    let worker = &fixture.worker;
    let invoice = worker
        .create_invoice(5_000, "payout", 600)
        .await
        .unwrap()
        .bolt11;
    assert_eq!(
        parse_invoice(&invoice, Network::Regtest, 5_000)
            .unwrap()
            .amount_msat,
        5_000
    );
    assert_eq!(
        parse_invoice(&invoice, Network::Regtest, 5_001),
        Err(InvoiceError::Amount)
    );
    assert_eq!(
        parse_invoice(&invoice, Network::Bitcoin, 5_000),
        Err(InvoiceError::Network)
    );
    let expired = worker
        .create_invoice(5_000, "payout", 0)
        .await
        .unwrap()
        .bolt11;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(
        parse_invoice(&expired, Network::Regtest, 5_000),
        Err(InvoiceError::Expired)
    );
}

#[tokio::test]
async fn junk_on_the_socket_gets_a_refusal_and_harms_nobody() {
    let fixture = start();
    let (pool, dir) = (&fixture.pool, &fixture.dir);
    for junk in [b"{}\n".to_vec(), b"\xff\xfe\n".to_vec(), vec![b'a'; 20_000]] {
        let mut stream = UnixStream::connect(dir.path().join("0.sock"))
            .await
            .unwrap();
        // The server may stop reading a line that is too long.
        let _ = stream.write_all(&junk).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
    }
    assert_eq!(pool.get_info().await.unwrap().rail, "simulated");
    let away = Client::new(dir.path().join("none.sock"));
    assert!(matches!(away.balance().await, Err(ClientError::Io(_))));
}
