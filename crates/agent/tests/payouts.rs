//! `dovetail payout` against a stand-in for a pool, over real gRPC on loopback: what is signed is what was asked for.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::consensus::serialize;
use bitcoin::key::CompressedPublicKey;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use bitcoin::{Address, KnownHrp, Network, NetworkKind, PrivateKey};
use dovetail_api::payouts_v1::{
    self as v1,
    payouts_server::{Payouts, PayoutsServer},
};
use dovetail_payee::{PayTo, PayToKind, Statement};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const POOL: [u8; 32] = [7; 32];

/// A pool that takes what is signed for it, and keeps what it took.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<v1::SetDestinationRequest>>>);

#[tonic::async_trait]
impl Payouts for Pool {
    async fn get_destination(
        &self,
        _request: Request<v1::GetDestinationRequest>,
    ) -> Result<Response<v1::GetDestinationResponse>, Status> {
        let terms = |destination: &str| v1::Terms {
            kind: v1::DestinationKind::LightningAddress.into(),
            destination: destination.to_owned(),
            schedule: "as-earned".to_owned(),
            made_unix: 1,
            active_from_unix: u64::MAX,
            ..Default::default()
        };
        Ok(Response::new(v1::GetDestinationResponse {
            pool_key: POOL.to_vec(),
            network: "regtest".to_owned(),
            hold_s: 86_400,
            threshold_min_msat: 10_000,
            active: Some(terms("y...@wallet.com")),
            pending: Some(terms("\u{1b}[2Jt...@thief.com")),
            tries: 2,
            failure_class: "no_invoice\u{7}".to_owned(),
            next_try_unix: 0,
            can_be_set: true,
        }))
    }

    async fn set_destination(
        &self,
        request: Request<v1::SetDestinationRequest>,
    ) -> Result<Response<v1::SetDestinationResponse>, Status> {
        let asked = request.into_inner();
        let network = Network::Regtest;
        let statement = Statement {
            pool: POOL,
            network,
            account: asked.account.clone(),
            pay_to: PayTo::parse(PayToKind::LightningAddress, &asked.destination, network).unwrap(),
            fallback: None,
            threshold_msat: u64::try_from(asked.threshold_msat)
                .ok()
                .filter(|msat| *msat > 0),
            schedule: asked.schedule.parse().unwrap(),
            made_unix: asked.made_unix,
        };
        statement.verify(&asked.proof).unwrap();
        let terms = v1::Terms {
            kind: asked.kind,
            destination: asked.destination.clone(),
            schedule: asked.schedule.clone(),
            made_unix: asked.made_unix,
            active_from_unix: asked.made_unix + 86_400,
            ..Default::default()
        };
        self.0.lock().unwrap().push(asked);
        Ok(Response::new(v1::SetDestinationResponse {
            terms: Some(terms),
        }))
    }
}

async fn start(pool: Pool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = tonic::transport::Server::builder().add_service(PayoutsServer::new(pool));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    url
}

/// Runs `dovetail payout destination` beside the pool; its exit code, and what it printed on either side.
async fn run(url: &str, line: &str) -> (Option<i32>, String, String) {
    let (url, line) = (url.to_owned(), line.to_owned());
    let running = tokio::task::spawn_blocking(move || {
        Command::new(env!("CARGO_BIN_EXE_dovetail"))
            .args(["payout", "destination"])
            .args(line.split(' '))
            .env("DOVETAIL_POOL", url)
            .env_remove("DOVETAIL_POOL_KEY")
            .output()
            .unwrap()
    });
    let output = running.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn keys() -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[1; 32]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_signs_with_its_key_file_for_the_pool_that_it_means() {
    let pool = Pool::default();
    let url = start(pool.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.key");
    std::fs::write(&file, "01".repeat(32)).unwrap();
    let set = format!(
        "set --kind lightning-address --to You@Wallet.com --schedule daily@6 --threshold-msat 20000 --worker-key-file {}",
        file.display()
    );
    let other = format!("{set} --pool-key {}", "08".repeat(32));
    let (code, _, stderr) = run(&url, &other).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("nothing was signed"), "{stderr}");
    assert!(pool.0.lock().unwrap().is_empty());
    let ours = format!("{set} --pool-key {}", "07".repeat(32));
    let (code, stdout, stderr) = run(&url, &ours).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("you@wallet.com"), "{stdout}");
    let taken = pool.0.lock().unwrap().remove(0);
    assert_eq!(taken.account, keys().x_only_public_key().0.to_string());
    assert_eq!(
        (&*taken.schedule, taken.threshold_msat),
        ("daily@06", 20_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_told_what_to_sign_and_its_wallets_signature_is_taken() {
    let pool = Pool::default();
    let url = start(pool.clone()).await;
    let address = Address::p2wpkh(&CompressedPublicKey(keys().public_key()), KnownHrp::Regtest);
    let set = format!("set --kind lightning-address --to you@wallet.com --account {address}");
    let (code, message, note) = run(&url, &set).await;
    assert_eq!(code, Some(0), "{note}");
    let made = message.trim().rsplit(' ').next().unwrap();
    assert!(
        note.contains(&format!("--made {made} --signature")),
        "{note}"
    );
    assert!(pool.0.lock().unwrap().is_empty());
    let key = PrivateKey::new(keys().secret_key(), NetworkKind::Test);
    let sign = |message: &str| {
        let witness = bip322::sign_simple(&address, message, &[key], None);
        STANDARD.encode(serialize(&witness.unwrap()))
    };
    let signed = |signature: &str| format!("{set} --made {made} --signature {signature}");
    // What is not signed is not even sent.
    let (code, _, stderr) = run(&url, &signed(&sign("another line"))).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("the signature is not the account's"),
        "{stderr}"
    );
    assert!(pool.0.lock().unwrap().is_empty());
    let (code, stdout, stderr) = run(&url, &signed(&sign(message.trim()))).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("you@wallet.com"), "{stdout}");
    assert_eq!(pool.0.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_shown_with_a_warning_and_a_pools_words_are_harmless() {
    let url = start(Pool::default()).await;
    let (code, stdout, stderr) = run(&url, "get alice").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("y...@wallet.com") && stdout.contains("CHANGE"),
        "{stdout}"
    );
    assert!(stderr.contains("somebody has your key"), "{stderr}");
    assert!(!stdout.contains(['\u{1b}', '\u{7}']), "{stdout}");
    let (_, json, _) = run(&url, "get alice --json").await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["pending"]["kind"], "lightning_address");
    assert_eq!(json["tries"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_can_sign_nothing_are_told_so() {
    let url = start(Pool::default()).await;
    for (account, words) in [
        ("alice", "proves nothing"),
        ("you@wallet.com", "Lightning address"),
        (
            &*keys().x_only_public_key().0.to_string(),
            "--worker-key-file",
        ),
    ] {
        let set = format!("set --kind lightning-address --to you@wallet.com --account {account}");
        let (code, _, stderr) = run(&url, &set).await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains(words), "{stderr}");
    }
}
