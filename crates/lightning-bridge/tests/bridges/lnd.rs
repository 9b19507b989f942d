//! A played node of LND: REST over TLS, with a certificate as LND makes them, streams in chunks, numbers as text.

use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use dovetail_lightning::{Hash32, Preimage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::door::{Door, node_id};
use crate::network::{FEE_MSAT, Fault, Network, Refusal, Standing};

const CERTIFICATE: &[u8] = include_bytes!("tls.cert");
const KEY: &[u8] = include_bytes!("tls.key");
/// As binary as a real one.
const MACAROON: &[u8] = b"\x02\x01\x03lnd\x02\xff\xfe";

pub(crate) struct Lnd {
    pub(crate) address: String,
    pub(crate) certificate: PathBuf,
    pub(crate) macaroon: PathBuf,
}

impl Door for Lnd {
    const KNOWS_OFFERS: bool = false;

    async fn open(network: &Network, node: usize, dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self {
            address: listener.local_addr().unwrap().to_string(),
            certificate: dir.join(format!("tls-{node}.cert")),
            macaroon: dir.join(format!("pool-{node}.macaroon")),
        };
        std::fs::write(&door.certificate, CERTIFICATE).unwrap();
        std::fs::write(&door.macaroon, MACAROON).unwrap();
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&door.macaroon, mode).unwrap();
        let node = Node {
            network: network.clone(),
            index: node,
            tls: acceptor(),
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(node.clone().answer(stream));
            }
        });
        door
    }

    fn bridge(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail-lightning-lnd"));
        command.args(["run", "--rest", &self.address]);
        command.arg("--tls-cert").arg(&self.certificate);
        command.arg("--macaroon").arg(&self.macaroon);
        command
    }
}

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(KEY).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[derive(Clone)]
struct Node {
    network: Network,
    index: usize,
    tls: TlsAcceptor,
}

/// An answer's HTTP status and what it says.
type Answer = (u16, Value);

struct Question {
    method: String,
    path: String,
    macaroon: String,
    body: Value,
}

impl Node {
    async fn answer(self, stream: TcpStream) {
        let Ok(mut stream) = self.tls.accept(stream).await else {
            return;
        };
        let Some(question) = read(&mut stream).await else {
            return;
        };
        let is_pay = question.path == "/v2/router/send";
        let fault = match is_pay {
            true => self.network.take_fault(),
            false => None,
        };
        match fault {
            Some(Fault::NotHeard) => return,
            Some(Fault::Silent) => pending().await,
            Some(Fault::Junk) => {
                let _ = stream.write_all(&written((200, json!("{]")))).await;
                return;
            }
            Some(Fault::PaidLater(after)) => tokio::time::sleep(after).await,
            Some(Fault::WrongProof) => {
                let hash = self.hash_of(&question.body["payment_request"]);
                let lie = Standing::Complete(Preimage([7; 32]));
                let payment = json!({ "result": self.listed(hash, lie) });
                let _ = stream.write_all(&written((200, payment))).await;
                return;
            }
            Some(Fault::PaidAndSilent | Fault::PaidAndCut) | None => {}
        }
        if question.path.starts_with("/v2/router/track/")
            && let Some(lie) = self.network.lie()
        {
            let _ = stream.write_all(lie.as_bytes()).await;
            return;
        }
        let answer = match question.macaroon == hex::encode(MACAROON) {
            true => self.result(&question).await,
            false => error(500, 2, "verification failed: signature mismatch"),
        };
        let answer = written(answer);
        let answer = match fault {
            Some(Fault::PaidAndSilent) => pending().await,
            Some(Fault::PaidAndCut) => &answer[..answer.len() / 2],
            _ => &answer,
        };
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }

    fn hash_of(&self, invoice: &Value) -> Hash32 {
        self.network.decode(invoice.as_str().unwrap()).unwrap().0
    }

    async fn result(&self, question: &Question) -> Answer {
        let network = &self.network;
        let body = &question.body;
        let path = question.path.split('?').next().unwrap();
        match (question.method.as_str(), path) {
            ("GET", "/v1/getinfo") => good(json!({
                "identity_pubkey": node_id(self.index), "block_height": 101, "synced_to_chain": true,
                "chains": [{ "chain": "bitcoin", "network": "regtest" }], "uris": [],
            })),
            ("POST", "/v1/invoices") => {
                let number = |name: &str| body[name].as_str().unwrap().parse::<u64>().unwrap();
                assert_eq!(body["private"], true);
                let (text, hash) =
                    network.invoice(self.index, number("value_msat"), number("expiry"));
                good(json!({ "r_hash": STANDARD.encode(hash.0), "payment_request": text }))
            }
            ("POST", "/v2/router/send") => self.send(body).await,
            ("GET", track) if track.starts_with("/v2/router/track/") => {
                let hash = track.rsplit_once("track/").unwrap().1;
                let hash = Hash32(URL_SAFE.decode(hash).unwrap().try_into().unwrap());
                match network.standing(self.index, hash) {
                    Some(standing) => good(json!({ "result": self.listed(hash, standing) })),
                    None => stream_error(404, 5, "payment isn't initiated"),
                }
            }
            ("GET", invoice) if invoice.starts_with("/v1/invoice/") => {
                let mut hash = [0; 32];
                hex::decode_to_slice(invoice.rsplit_once('/').unwrap().1, &mut hash).unwrap();
                let is_paid = network.is_paid(Hash32(hash));
                good(json!({ "state": if is_paid { "SETTLED" } else { "OPEN" } }))
            }
            ("GET", "/v1/channels") => good(json!({ "channels": [self.channel()] })),
            ("GET", "/v1/fees") => good(json!({ "channel_fees": [{
                "channel_point": self.channel()["channel_point"],
                "base_fee_msat": "1000", "fee_per_mil": "1",
            }] })),
            ("GET", "/v1/balance/blockchain") => good(json!({
                "total_balance": "6000", "confirmed_balance": "5000",
                "reserved_balance_anchor_chan": "1000",
            })),
            ("GET", "/v1/channels/pending") => good(json!({ "total_limbo_balance": "0" })),
            ("GET", "/v1/newaddress") => good(json!({ "address": "bcrt1qexample" })),
            ("GET", "/v1/channels/backup") => good(json!({
                "multi_chan_backup": { "multi_chan_backup": STANDARD.encode([0, 255]) },
            })),
            ("POST", "/v1/chanpolicy") => good(json!({ "failed_updates": [] })),
            ("DELETE", close) if close.starts_with("/v1/channels/") => {
                good(json!({ "result": { "close_pending": { "txid": "" } } }))
            }
            _ => error(404, 5, "Not Found"),
        }
    }

    async fn send(&self, body: &Value) -> Answer {
        let max_fee = body["fee_limit_msat"].as_str().unwrap().parse().unwrap();
        assert!(body["cltv_limit"].as_u64().unwrap() > 0);
        assert!(body["timeout_seconds"].as_u64().unwrap() > 0);
        let text = body["payment_request"].as_str().unwrap();
        let begun = self.network.pay(self.index, text, max_fee);
        let hash = match begun {
            Ok(hash) => hash,
            Err(Refusal::InFlight) => return stream_error(409, 6, "payment is in transition"),
            Err(Refusal::AlreadyPaid) => return stream_error(409, 6, "invoice is already paid"),
            Err(Refusal::Expired) => {
                return stream_error(500, 2, "invoice expired. Valid until ..");
            }
            Err(Refusal::NoInvoice) => return stream_error(500, 2, "invalid invoice"),
            Err(Refusal::FeeTooLow) => self.hash_of(&body["payment_request"]),
        };
        let standing = self.network.end(self.index, hash).await;
        good(json!({ "result": self.listed(hash, standing) }))
    }

    fn listed(&self, hash: Hash32, standing: Standing) -> Value {
        let (status, preimage, reason) = match standing {
            Standing::Pending => ("IN_FLIGHT", [0; 32], "FAILURE_REASON_NONE"),
            Standing::Failed => ("FAILED", [0; 32], "FAILURE_REASON_NO_ROUTE"),
            Standing::Complete(preimage) => ("SUCCEEDED", preimage.0, "FAILURE_REASON_NONE"),
        };
        json!({
            "payment_hash": hash, "status": status, "payment_preimage": hex::encode(preimage),
            "fee_msat": FEE_MSAT.to_string(), "failure_reason": reason, "htlcs": [],
        })
    }

    fn channel(&self) -> Value {
        let ours = self.network.balance(self.index) / 1_000;
        let reserve = json!({ "chan_reserve_sat": "0" });
        json!({
            "active": true, "remote_pubkey": node_id(1 - self.index),
            "channel_point": format!("{}:1", "0b".repeat(32)), "capacity": "2000000",
            "local_balance": ours.to_string(), "remote_balance": (2_000_000 - ours).to_string(),
            "initiator": true, "local_constraints": reserve, "remote_constraints": reserve,
        })
    }
}

fn good(value: Value) -> Answer {
    (200, value)
}

fn error(status: u16, code: u32, message: &str) -> Answer {
    let error = json!({ "code": code, "message": message, "details": [] });
    (status, error)
}

/// As the gateway puts it where a stream was asked for.
fn stream_error(status: u16, code: u32, message: &str) -> Answer {
    let (_, inner) = error(status, code, message);
    (status, json!({ "error": inner }))
}

/// HTTP/1.1 in two chunks, as a Go server cuts them where it likes.
fn written((status, value): Answer) -> Vec<u8> {
    let text = match value {
        Value::String(junk) => junk,
        value => value.to_string(),
    } + "\n";
    let (one, other) = text.split_at(text.len() / 2);
    format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\n\r\n",
        one.len(),
        other.len()
    )
    .into_bytes()
}

async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Question> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_ends].to_vec()).unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or(String::new(), |(_, value)| value.to_owned())
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while bytes.len() < head_ends + length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    let mut words = head.split(' ');
    Some(Question {
        method: words.next()?.to_owned(),
        path: words.next()?.to_owned(),
        macaroon: header("grpc-metadata-macaroon"),
        body: serde_json::from_slice(&bytes[head_ends..]).unwrap_or(Value::Null),
    })
}
