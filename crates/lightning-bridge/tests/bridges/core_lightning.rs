//! A played node of Core Lightning: its JSON-RPC over a Unix socket, each answer ended by an empty line.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::Command;

use dovetail_lightning::{Hash32, Preimage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::door::{Door, node_id};
use crate::network::{FEE_MSAT, Fault, Network, Refusal, Standing};

pub(crate) struct CoreLightning {
    socket: PathBuf,
}

impl Door for CoreLightning {
    const KNOWS_OFFERS: bool = true;

    async fn open(network: &Network, node: usize, dir: &Path) -> Self {
        let socket = dir.join(format!("lightning-rpc-{node}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let node = Node {
            network: network.clone(),
            index: node,
        };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(node.clone().answer(stream));
            }
        });
        Self { socket }
    }

    fn bridge(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dovetail-lightning-cln"));
        command.args(["run", "--rpc"]).arg(&self.socket);
        command
    }
}

#[derive(Clone)]
struct Node {
    network: Network,
    index: usize,
}

type Answer = Result<Value, (i64, &'static str)>;

impl Node {
    async fn answer(self, mut stream: UnixStream) {
        let mut bytes = Vec::new();
        let question: Value = loop {
            if let Ok(question) = serde_json::from_slice(&bytes) {
                break question;
            }
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return;
            }
        };
        let (method, params) = (question["method"].as_str().unwrap(), &question["params"]);
        let fault = match method {
            "xpay" => self.network.take_fault(),
            _ => None,
        };
        match fault {
            Some(Fault::NotHeard) => return,
            Some(Fault::Silent) => pending().await,
            Some(Fault::Junk) => {
                let _ = stream.write_all(b"{]\n\n").await;
                return;
            }
            Some(Fault::PaidLater(after)) => tokio::time::sleep(after).await,
            Some(Fault::WrongProof) => {
                let result = paid(Preimage([7; 32]), 0);
                let _ = stream.write_all(&written(&question, Ok(result))).await;
                return;
            }
            Some(Fault::PaidAndSilent | Fault::PaidAndCut) | None => {}
        }
        if method == "listpays"
            && let Some(lie) = self.network.lie()
        {
            let _ = stream.write_all(lie.as_bytes()).await;
            return;
        }
        let answer = written(&question, self.result(method, params).await);
        let answer = match fault {
            Some(Fault::PaidAndSilent) => pending().await,
            Some(Fault::PaidAndCut) => &answer[..answer.len() / 2],
            _ => &answer,
        };
        let _ = stream.write_all(answer).await;
    }

    async fn result(&self, method: &str, params: &Value) -> Answer {
        let network = &self.network;
        let text = |name: &str| params[name].as_str().unwrap_or_default();
        let number = |name: &str| params[name].as_u64().unwrap_or_default();
        let invalid = (-32602, "invalid token");
        match method {
            "getinfo" => Ok(json!({
                "id": node_id(self.index), "alias": "played", "network": "regtest", "blockheight": 101,
                "address": [], "binding": [], "version": "v26.06.6",
            })),
            "invoice" => {
                let (bolt11, hash) =
                    network.invoice(self.index, number("amount_msat"), number("expiry"));
                Ok(json!({ "bolt11": bolt11, "payment_hash": hash, "expires_at": 1 }))
            }
            "offer" => Ok(json!({ "bolt12": network.offer(self.index), "active": true })),
            "fetchinvoice" => network
                .bolt12(text("offer"), number("amount_msat"))
                .map(|invoice| json!({ "invoice": invoice, "changes": {} }))
                .ok_or((-32602, "offer: should be a valid offer")),
            "decode" => {
                let (hash, amount_msat) = network.decode(text("string")).ok_or(invalid)?;
                Ok(json!({
                    "type": "bolt12 invoice", "valid": true,
                    "invoice_amount_msat": amount_msat, "invoice_payment_hash": hash,
                }))
            }
            "xpay" => {
                assert!(number("maxdelay") > 0 && number("retry_for") > 0);
                self.pay(text("invstring"), number("maxfee")).await
            }
            "listpays" => {
                let hash: Hash32 = serde_json::from_value(params["payment_hash"].clone()).unwrap();
                let pays = network.standing(self.index, hash);
                let pays: Vec<Value> = pays.map(|it| self.listed(hash, it)).into_iter().collect();
                Ok(json!({ "pays": pays }))
            }
            "listinvoices" => {
                let hash: Hash32 = serde_json::from_value(params["payment_hash"].clone()).unwrap();
                let status = if network.is_paid(hash) {
                    "paid"
                } else {
                    "unpaid"
                };
                Ok(
                    json!({ "invoices": [{ "label": "x", "payment_hash": hash, "status": status }] }),
                )
            }
            "listpeerchannels" => Ok(json!({ "channels": [self.channel()] })),
            "listfunds" => Ok(json!({
                "outputs": [{ "amount_msat": 5_000_000, "status": "confirmed", "reserved": false }],
                "channels": [],
            })),
            "newaddr" => Ok(json!({ "bech32": "bcrt1qexample" })),
            "staticbackup" => Ok(json!({ "scb": ["00ff"] })),
            "setchannel" => Ok(json!({ "channels": [] })),
            "close" => Ok(json!({ "type": "mutual" })),
            _ => Err((-32601, "Unknown command")),
        }
    }

    async fn pay(&self, invoice: &str, max_fee_msat: u64) -> Answer {
        let begun = self.network.pay(self.index, invoice, max_fee_msat);
        let hash = begun.map_err(|refusal| match refusal {
            Refusal::NoInvoice => (-32602, "Invalid bolt11 invoice"),
            Refusal::Expired => (207, "Invoice expired 1 seconds ago"),
            Refusal::InFlight => (-3, "Unexpected injectpaymentonion error 200"),
            Refusal::AlreadyPaid => (219, "Already paid this invoice successfully"),
            Refusal::FeeTooLow => (206, "Failed: Could not find route without excessive cost"),
        })?;
        match self.network.end(self.index, hash).await {
            Standing::Complete(preimage) => Ok(paid(preimage, self.amount(hash))),
            _ => Err((203, "Destination said it doesn't know invoice")),
        }
    }

    fn amount(&self, hash: Hash32) -> u64 {
        self.network.amount(hash)
    }

    fn listed(&self, hash: Hash32, standing: Standing) -> Value {
        let sent = self.amount(hash) + FEE_MSAT;
        let mut listed = json!({
            "payment_hash": hash, "created_at": 1, "created_index": 1, "amount_sent_msat": sent,
        });
        let status = match standing {
            Standing::Pending => "pending",
            Standing::Failed => "failed",
            Standing::Complete(preimage) => {
                listed["preimage"] = json!(preimage);
                "complete"
            }
        };
        listed["status"] = status.into();
        if standing != Standing::Failed {
            listed["amount_msat"] = self.amount(hash).into();
        }
        listed
    }

    fn channel(&self) -> Value {
        let ours = self.network.balance(self.index);
        json!({
            "peer_id": node_id(1 - self.index), "peer_connected": true, "state": "CHANNELD_NORMAL",
            "channel_id": "0a".repeat(32), "funding_txid": "0b".repeat(32), "funding_outnum": 1,
            "opener": "local", "total_msat": 2_000_000_000_u64, "to_us_msat": ours,
            "spendable_msat": ours, "receivable_msat": 2_000_000_000 - ours,
            "fee_base_msat": 1, "fee_proportional_millionths": 10,
        })
    }
}

fn paid(preimage: Preimage, amount_msat: u64) -> Value {
    json!({
        "payment_preimage": preimage, "failed_parts": 0, "successful_parts": 1,
        "amount_msat": amount_msat, "amount_sent_msat": amount_msat + FEE_MSAT,
    })
}

fn written(question: &Value, answer: Answer) -> Vec<u8> {
    let mut whole = json!({ "jsonrpc": "2.0", "id": question["id"] });
    match answer {
        Ok(result) => whole["result"] = result,
        Err((code, message)) => whole["error"] = json!({ "code": code, "message": message }),
    }
    format!("{whole}\n\n").into_bytes()
}
