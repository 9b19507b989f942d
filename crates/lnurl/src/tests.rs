//! A real HTTPS host that lies in each way.

use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{SECP256K1, SecretKey};
use dovetail_lightning::InvoiceError;
use dovetail_lightning::simulator::{self, SimulatedWallet};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};

use super::*;
use crate::test_host::{Page, TestHost};

const METADATA: &str =
    r#"[["text/plain","alice's \"wallet\""],["text/identifier","alice@wallet.example"]]"#;
const CALLBACK: &str = "https://pay.wallet.example/callback?id=7";
const NAMES: [&str; 3] = ["wallet.example", "www.wallet.example", "pay.wallet.example"];
const AMOUNT: u64 = 21_000;

fn wallet() -> SimulatedWallet {
    simulator::wallets(1, 0).remove(0)
}

fn alice() -> LightningAddress {
    LightningAddress::parse("alice@wallet.example").unwrap()
}

fn metadata_hash() -> [u8; 32] {
    sha256::Hash::hash(METADATA.as_bytes()).to_byte_array()
}

/// A host whose callback gives this invoice, made for the amount that is asked for.
async fn host_with(invoice: impl Fn(u64) -> String + Send + Sync + 'static) -> TestHost {
    TestHost::start(move |asked| match asked.amount_msat() {
        None if asked.path == "/.well-known/lnurlp/alice" => {
            Page::pay_request(CALLBACK, METADATA, 100_000)
        }
        Some(amount) if asked.path.starts_with("/callback?id=7&amount=") => {
            Page::invoice(&invoice(amount))
        }
        _ => Page {
            status: 404,
            ..Page::of("")
        },
    })
    .await
    .unwrap()
}

fn honest(amount_msat: u64) -> String {
    let made = wallet().create_invoice_for_hash(amount_msat, metadata_hash(), 3_600);
    made.unwrap().bolt11
}

/// An invoice of another network, or made a while ago.
fn invoice(currency: Currency, amount_msat: u64, age: Duration) -> String {
    let key = SecretKey::from_slice(&[9; 32]).unwrap();
    let made = std::time::SystemTime::now() - age;
    InvoiceBuilder::new(currency)
        .description_hash(sha256::Hash::from_byte_array(metadata_hash()))
        .payment_hash(sha256::Hash::hash(&[1]))
        .payment_secret(PaymentSecret([2; 32]))
        .timestamp(made)
        .expiry_time(Duration::from_secs(60))
        .min_final_cltv_expiry_delta(18)
        .amount_milli_satoshis(amount_msat)
        .build_signed(|message| SECP256K1.sign_ecdsa_recoverable(message, &key))
        .unwrap()
        .to_string()
}

async fn fetch_with(options: LnurlOptions) -> Result<FetchedInvoice, LnurlError> {
    let lnurl = Lnurl::new(options).unwrap();
    lnurl.invoice(&alice(), AMOUNT, Network::Regtest).await
}

async fn fetch(host: &TestHost) -> Result<FetchedInvoice, LnurlError> {
    fetch_with(host.options(&NAMES)).await
}

#[tokio::test]
async fn an_honest_host_gives_an_invoice_for_what_it_says() {
    let host = host_with(honest).await;
    let fetched = fetch(&host).await.unwrap();
    assert_eq!(fetched.invoice.amount_msat, AMOUNT);
    assert_eq!(fetched.invoice.description_hash, Some(metadata_hash()));
    assert_eq!(host.asked(), 2);
}

#[tokio::test]
async fn an_invoice_that_is_not_the_one_that_was_asked_for_is_refused() {
    let host = host_with(honest).await;
    let answers = async |made: fn(u64) -> String| {
        host.answer(move |asked| match asked.amount_msat() {
            None => Page::pay_request(CALLBACK, METADATA, 100_000),
            Some(amount) => Page::invoice(&made(amount)),
        });
        fetch(&host).await.unwrap_err()
    };
    let other_hash = |amount| {
        let made = wallet().create_invoice_for_hash(amount, [1; 32], 3_600);
        made.unwrap().bolt11
    };
    assert_eq!(answers(other_hash).await, LnurlError::Description);
    let refused = |error| LnurlError::Invoice(error);
    assert_eq!(
        answers(|amount| honest(amount + 1_000)).await,
        refused(InvoiceError::Amount)
    );
    let of_bitcoin = |amount| invoice(Currency::Bitcoin, amount, Duration::ZERO);
    assert_eq!(answers(of_bitcoin).await, refused(InvoiceError::Network));
    let old = |amount| invoice(Currency::Regtest, amount, Duration::from_secs(61));
    assert_eq!(answers(old).await, refused(InvoiceError::Expired));
    let young = |amount| invoice(Currency::Regtest, amount, Duration::ZERO);
    host.answer(move |asked| match asked.amount_msat() {
        None => Page::pay_request(CALLBACK, METADATA, 100_000),
        Some(amount) => Page::invoice(&young(amount)),
    });
    assert!(fetch(&host).await.is_ok(), "the test's own invoice is good");
    assert_eq!(
        answers(|_| "lnbcrt1".to_owned()).await,
        refused(InvoiceError::Malformed)
    );
}

#[tokio::test]
async fn a_host_that_takes_less_is_asked_for_less_and_one_that_refuses_is_heard() {
    let host = host_with(honest).await;
    host.answer(|asked| match asked.amount_msat() {
        None => Page::pay_request(CALLBACK, METADATA, 7_999),
        Some(amount) => Page::invoice(&honest(amount)),
    });
    assert_eq!(fetch(&host).await.unwrap().invoice.amount_msat, 7_000);
    host.answer(|_| Page::of(r#"{"status":"ERROR","reason":"no such user"}"#));
    assert_eq!(fetch(&host).await, Err(LnurlError::Refused));
    host.answer(|_| Page {
        status: 500,
        ..Page::of("{}")
    });
    assert_eq!(fetch(&host).await, Err(HttpError::Status(500).into()));
}

#[tokio::test]
async fn an_answer_that_is_huge_or_slow_is_cut_off() {
    let host = host_with(honest).await;
    host.answer(|_| Page::of(vec![b' '; 10 << 20]));
    assert_eq!(fetch(&host).await, Err(HttpError::Long.into()));
    host.answer(|_| Page {
        after: Duration::from_secs(60),
        ..Page::of("{}")
    });
    let options = LnurlOptions {
        time_max: Duration::from_millis(300),
        ..host.options(&NAMES)
    };
    let start = Instant::now();
    assert_eq!(fetch_with(options).await, Err(HttpError::Late.into()));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn redirects_are_followed_a_few_times_and_only_over_https() {
    let host = host_with(honest).await;
    host.answer(|asked| match (asked.amount_msat(), &*asked.host) {
        (Some(amount), _) => Page::invoice(&honest(amount)),
        (None, "wallet.example") => {
            Page::elsewhere("https://www.wallet.example/.well-known/lnurlp/alice")
        }
        (None, _) => Page::pay_request(CALLBACK, METADATA, 100_000),
    });
    assert!(fetch(&host).await.is_ok());
    host.answer(|_| Page::elsewhere("/again"));
    assert_eq!(fetch(&host).await, Err(HttpError::Redirects.into()));
    for location in [
        "http://wallet.example/",
        "file:///etc/passwd",
        "https://user:secret@wallet.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://2130706433/",
    ] {
        host.answer(move |_| Page::elsewhere(location));
        let asked = host.asked();
        assert_eq!(fetch(&host).await, Err(HttpError::Url.into()), "{location}");
        assert_eq!(host.asked(), asked + 1);
    }
}

/// The host itself is at 127.0.0.1, under every name: without the switch for tests nobody asks it, wherever it is named.
#[tokio::test]
async fn hosts_of_private_networks_are_not_asked() {
    let host = host_with(honest).await;
    let options = LnurlOptions {
        allow_private_hosts: false,
        ..host.options(&NAMES)
    };
    assert_eq!(fetch_with(options).await, Err(HttpError::Host.into()));
    assert_eq!(host.asked(), 0);
    // Nor by a callback or a redirect: the name is looked at each time.
    let only_first = host.options(&NAMES[..1]);
    assert_eq!(
        fetch_with(only_first.clone()).await,
        Err(HttpError::Host.into())
    );
    assert_eq!(host.asked(), 1);
    host.answer(|_| Page::elsewhere("https://www.wallet.example/"));
    assert_eq!(fetch_with(only_first).await, Err(HttpError::Host.into()));
    assert_eq!(host.asked(), 2);
    host.answer(|_| Page::pay_request("https://127.0.0.1/callback", METADATA, 100_000));
    assert_eq!(fetch(&host).await, Err(HttpError::Url.into()));
}

#[tokio::test]
async fn a_host_without_a_trusted_certificate_of_its_name_is_not_believed() {
    let host = host_with(honest).await;
    let untrusted = LnurlOptions {
        extra_roots: None,
        ..host.options(&NAMES)
    };
    assert_eq!(
        fetch_with(untrusted).await,
        Err(HttpError::Connection.into())
    );
    let lnurl = Lnurl::new(host.options(&["other.example"])).unwrap();
    let other = LightningAddress::parse("alice@other.example").unwrap();
    let refused = lnurl.invoice(&other, AMOUNT, Network::Regtest).await;
    assert_eq!(refused, Err(HttpError::Connection.into()));
    assert_eq!(host.asked(), 0);
}

#[tokio::test]
async fn a_host_that_keeps_its_callers_waiting_keeps_no_others_waiting() {
    let host = host_with(honest).await;
    host.answer(|asked| match (asked.amount_msat(), &*asked.host) {
        (_, "slow.wallet.example") => Page {
            after: Duration::from_secs(30),
            ..Page::of("{}")
        },
        (None, _) => Page::pay_request(CALLBACK, METADATA, 100_000),
        (Some(amount), _) => Page::invoice(&honest(amount)),
    });
    let names = [&NAMES[..], &["slow.wallet.example"]].concat();
    let lnurl = Lnurl::new(LnurlOptions {
        time_max: Duration::from_secs(3),
        ..host.options(&names)
    })
    .unwrap();
    let slow = LightningAddress::parse("alice@slow.wallet.example").unwrap();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (lnurl, slow) = (lnurl.clone(), slow.clone());
            tokio::spawn(async move { lnurl.invoice(&slow, AMOUNT, Network::Regtest).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    lnurl
        .invoice(&alice(), AMOUNT, Network::Regtest)
        .await
        .unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    let mut busy = 0;
    for waiting in waiting {
        match waiting.await.unwrap() {
            Err(LnurlError::Http(HttpError::Busy)) => busy += 1,
            other => assert_eq!(other, Err(HttpError::Late.into())),
        }
    }
    assert!(busy >= 80, "{busy}");
}

#[test]
fn a_file_of_extra_certificates_has_to_have_some() {
    let file = |path: &str| {
        Lnurl::new(LnurlOptions {
            extra_roots: Some(path.into()),
            ..LnurlOptions::default()
        })
    };
    for path in [
        "/nowhere.pem",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ] {
        let error = file(path).err().unwrap().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}
