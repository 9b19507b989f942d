//! A Bitcoin node in memory, behind the JSON-RPC that the service speaks: blocks, a memory of transactions with its rules
//! of replacement, reorganisations, and connections that break before or after what was asked is done.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Transaction, TxIn, TxMerkleNode,
    TxOut, Txid, absolute, block, consensus, transaction,
};
use dovetail_onchain::WalletKeys;
use dovetail_units::SplitMix64;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Every how many calls one breaks, before or after it is done.
const BROKEN_CALLS: u64 = 25;
const NOT_FOUND: i64 = -5;
const INVALID_PARAMETER: i64 = -8;
const MISSING_INPUTS: i64 = -25;
const REJECTED: i64 = -26;
const IN_CHAIN: i64 = -27;

pub(super) struct State {
    /// The best chain, from the first block up.
    chain: Vec<BlockHash>,
    blocks: HashMap<BlockHash, Block>,
    memory: Vec<Transaction>,
    scripts: HashSet<ScriptBuf>,
    random: SplitMix64,
    pub(super) breaks: bool,
    made: u32,
}

#[derive(Clone)]
pub(super) struct ScriptedNode {
    state: Arc<Mutex<State>>,
    pub(super) address: String,
    _serving: Arc<AbortOnDropHandle<()>>,
}

impl ScriptedNode {
    /// A node whose chain gives the wallet these coins.
    pub(super) async fn start(keys: &WalletKeys, coins: &[u64], seed: u64) -> Self {
        let mut state = State {
            chain: Vec::new(),
            blocks: HashMap::new(),
            memory: Vec::new(),
            scripts: (0..u64::from(keys.range()))
                .map(|height| keys.change_script(height))
                .chain([keys.address().script_pubkey()])
                .collect(),
            random: SplitMix64::new(seed),
            breaks: false,
            made: 0,
        };
        let deposit = state.transaction(
            Vec::new(),
            coins
                .iter()
                .map(|&sat| (sat, keys.address().script_pubkey()))
                .collect(),
        );
        state.mine(vec![deposit]);
        for _ in 0..5 {
            state.mine(Vec::new());
        }
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self {
            state,
            address,
            _serving: Arc::new(AbortOnDropHandle::new(serving)),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut request = Vec::new();
    let body = loop {
        let mut part = [0; 16_384];
        match stream.read(&mut part).await {
            Ok(read) if read > 0 => request.extend_from_slice(&part[..read]),
            _ => return,
        }
        let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        if let Ok(body) = serde_json::from_slice::<Value>(&request[head + 4..]) {
            break body;
        }
    };
    let answer = {
        let mut state = state.lock().unwrap();
        let broken = state.breaks && state.random.below(BROKEN_CALLS) == 0;
        if broken && state.random.below(2) == 0 {
            return;
        }
        let answer = state.answer(body["method"].as_str().unwrap(), &body["params"]);
        if broken {
            return;
        }
        answer
    };
    let answer = match answer {
        Ok(result) => json!({ "result": result, "error": null, "id": 1 }),
        Err((code, message)) => {
            json!({ "result": null, "error": { "code": code, "message": message }, "id": 1 })
        }
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        answer.len()
    );
    let _ = stream.write_all((head + &answer).as_bytes()).await;
}

type Answer = Result<Value, (i64, &'static str)>;

impl State {
    fn answer(&mut self, method: &str, params: &Value) -> Answer {
        match method {
            "getblockchaininfo" => Ok(json!({
                "chain": "regtest",
                "blocks": self.chain.len() - 1,
                "bestblockhash": self.chain.last(),
                "initialblockdownload": false,
            })),
            "getblockhash" => {
                let height = usize::try_from(params[0].as_u64().unwrap()).unwrap();
                let hash = self.chain.get(height);
                hash.map(|hash| json!(hash))
                    .ok_or((INVALID_PARAMETER, "Block height out of range"))
            }
            "getblock" => {
                let hash: BlockHash = serde_json::from_value(params[0].clone()).unwrap();
                let block = self.blocks.get(&hash).ok_or((NOT_FOUND, "not found"))?;
                Ok(match params[1].as_u64() {
                    Some(0) => json!(consensus::encode::serialize_hex(block)),
                    _ => json!({
                        "previousblockhash": block.header.prev_blockhash,
                        "tx": txids(&block.txdata),
                    }),
                })
            }
            "scantxoutset" => Ok(self.scan()),
            "gettxout" => {
                let txid: Txid = serde_json::from_value(params[0].clone()).unwrap();
                let vout = u32::try_from(params[1].as_u64().unwrap()).unwrap();
                let outpoint = OutPoint::new(txid, vout);
                let is_spent = params[2].as_bool().unwrap()
                    && self.memory.iter().any(|other| spends(other, outpoint));
                let is_there = self.unspent().contains_key(&outpoint) && !is_spent;
                Ok(if is_there { json!({}) } else { Value::Null })
            }
            "estimatesmartfee" => Ok(match self.random.below(2) {
                0 => json!({ "errors": ["Insufficient data"] }),
                _ => json!({ "feerate": 0.000_01 * (1.0 + self.random.below(8) as f64) }),
            }),
            "getmempoolinfo" => Ok(json!({
                "mempoolminfee": 0.000_001, "minrelaytxfee": 0.000_001, "incrementalrelayfee": 0.000_001,
            })),
            "getmempoolentry" => {
                let txid: Txid = serde_json::from_value(params[0].clone()).unwrap();
                match txids(&self.memory).contains(&txid) {
                    true => Ok(json!({})),
                    false => Err((NOT_FOUND, "Transaction not in mempool")),
                }
            }
            "testmempoolaccept" => Ok(match self.judge(&decoded(&params[0][0])) {
                Ok(()) => json!([{ "allowed": true }]),
                Err((_, reason)) => json!([{ "allowed": false, "reject-reason": reason }]),
            }),
            "sendrawtransaction" => {
                let sent = decoded(&params[0]);
                let txid = sent.compute_txid();
                if txids(&self.memory).contains(&txid) {
                    return Ok(json!(txid));
                }
                self.judge(&sent)?;
                self.memory.retain(|other| !conflict(other, &sent));
                self.memory.push(sent);
                Ok(json!(txid))
            }
            _ => panic!("{method} is not scripted"),
        }
    }

    fn scan(&self) -> Value {
        let height = self.chain.len();
        let mine = self
            .unspent()
            .into_iter()
            .filter(|(_, (output, _))| self.scripts.contains(&output.script_pubkey));
        let unspents: Vec<Value> = mine
            .map(|(outpoint, (output, at))| {
                json!({
                    "txid": outpoint.txid,
                    "vout": outpoint.vout,
                    "scriptPubKey": output.script_pubkey,
                    "amount": output.value.to_btc(),
                    "coinbase": false,
                    "confirmations": height - at,
                })
            })
            .collect();
        json!({ "success": true, "unspents": unspents })
    }

    /// What the chain has and does not spend, and where each was made.
    fn unspent(&self) -> HashMap<OutPoint, (TxOut, usize)> {
        let mut unspent = HashMap::new();
        for (height, hash) in self.chain.iter().enumerate() {
            for transaction in &self.blocks[hash].txdata {
                for input in &transaction.input {
                    unspent.remove(&input.previous_output);
                }
                let txid = transaction.compute_txid();
                for (vout, output) in (0..).zip(&transaction.output) {
                    unspent.insert(OutPoint::new(txid, vout), (output.clone(), height));
                }
            }
        }
        unspent
    }

    /// Whether a node would have it in memory: BIP 125 in short.
    fn judge(&self, transaction: &Transaction) -> Result<(), (i64, &'static str)> {
        let txid = transaction.compute_txid();
        if self.of_chain().any(|other| other.compute_txid() == txid) {
            return Err((IN_CHAIN, "Transaction outputs already in utxo set"));
        }
        let unspent = self.unspent();
        let fee =
            fee(transaction, &unspent).ok_or((MISSING_INPUTS, "bad-txns-inputs-missingorspent"))?;
        for other in self
            .memory
            .iter()
            .filter(|other| conflict(other, transaction))
        {
            if self::fee(other, &unspent).is_some_and(|before| fee <= before) {
                return Err((REJECTED, "insufficient fee, rejecting replacement"));
            }
        }
        Ok(())
    }

    fn of_chain(&self) -> impl Iterator<Item = &Transaction> {
        let blocks = self.chain.iter().map(|hash| &self.blocks[hash]);
        blocks.flat_map(|block| &block.txdata)
    }

    /// What the chain pays this script.
    pub(super) fn paid(&self, script: &ScriptBuf) -> u64 {
        self.of_chain()
            .flat_map(|transaction| &transaction.output)
            .filter(|output| output.script_pubkey == *script)
            .map(|output| output.value.to_sat())
            .sum()
    }

    fn mine(&mut self, mut transactions: Vec<Transaction>) {
        self.made += 1;
        let coinbase = self.transaction(Vec::new(), vec![(5_000_000_000, ScriptBuf::new())]);
        transactions.insert(0, coinbase);
        let header = block::Header {
            version: block::Version::TWO,
            prev_blockhash: self.chain.last().copied().unwrap_or(BlockHash::all_zeros()),
            merkle_root: TxMerkleNode::all_zeros(),
            time: self.made,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let block = Block {
            header,
            txdata: transactions,
        };
        let hash = block.block_hash();
        self.chain.push(hash);
        self.blocks.insert(hash, block);
    }

    /// A block with all of the memory, or with nothing.
    pub(super) fn mine_block(&mut self, all: bool) {
        let taken = match all {
            true => std::mem::take(&mut self.memory),
            false => Vec::new(),
        };
        self.mine(taken);
        self.forget_impossible();
    }

    fn forget_impossible(&mut self) {
        let unspent = self.unspent();
        self.memory
            .retain(|transaction| fee(transaction, &unspent).is_some());
    }

    /// The newest blocks are gone, and as many empty ones and one more are there. Their transactions are in memory
    /// again, if `keeps`.
    pub(super) fn reorganise(&mut self, depth: usize, keeps: bool) {
        let kept = self.chain.len().saturating_sub(depth).max(1);
        let gone = self.chain.split_off(kept);
        let back: Vec<Transaction> = gone
            .iter()
            .flat_map(|hash| self.blocks[hash].txdata.iter().skip(1).cloned())
            .collect();
        if keeps {
            for transaction in back {
                self.memory.retain(|other| !conflict(other, &transaction));
                self.memory.push(transaction);
            }
        }
        self.forget_impossible();
        (0..=gone.len()).for_each(|_| self.mine(Vec::new()));
    }

    pub(super) fn lose_memory(&mut self) {
        self.memory.clear();
    }

    /// Somebody else spends a coin that a transaction in memory spends, in a block.
    pub(super) fn steal(&mut self, elsewhere: ScriptBuf) {
        let input = self
            .memory
            .first()
            .and_then(|transaction| transaction.input.first());
        let Some(outpoint) = input.map(|input| input.previous_output) else {
            return;
        };
        let thief = self.transaction(vec![outpoint], vec![(1_000, elsewhere)]);
        self.memory.retain(|other| !spends(other, outpoint));
        self.mine(vec![thief]);
    }

    fn transaction(&mut self, spent: Vec<OutPoint>, paid: Vec<(u64, ScriptBuf)>) -> Transaction {
        self.made += 1;
        let input = spent.into_iter().map(|previous_output| TxIn {
            previous_output,
            ..TxIn::default()
        });
        Transaction {
            version: transaction::Version::TWO,
            // No two are the same.
            lock_time: absolute::LockTime::from_consensus(self.made),
            input: input.collect(),
            output: paid
                .into_iter()
                .map(|(sat, script_pubkey)| TxOut {
                    value: Amount::from_sat(sat),
                    script_pubkey,
                })
                .collect(),
        }
    }
}

fn decoded(hex: &Value) -> Transaction {
    consensus::encode::deserialize_hex(hex.as_str().unwrap()).unwrap()
}

fn txids(transactions: &[Transaction]) -> Vec<Txid> {
    transactions.iter().map(Transaction::compute_txid).collect()
}

fn spends(transaction: &Transaction, outpoint: OutPoint) -> bool {
    let mut inputs = transaction.input.iter();
    inputs.any(|input| input.previous_output == outpoint)
}

fn conflict(one: &Transaction, other: &Transaction) -> bool {
    let mut inputs = other.input.iter();
    inputs.any(|input| spends(one, input.previous_output))
}

/// What it costs; `None` if it spends what is not there.
fn fee(transaction: &Transaction, unspent: &HashMap<OutPoint, (TxOut, usize)>) -> Option<Amount> {
    let has: Option<Vec<Amount>> = transaction
        .input
        .iter()
        .map(|input| {
            let (output, _) = unspent.get(&input.previous_output)?;
            Some(output.value)
        })
        .collect();
    let has: Amount = has?.into_iter().sum();
    let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
    has.checked_sub(paid)
}
