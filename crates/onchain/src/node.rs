//! What a Bitcoin node is asked, over its JSON-RPC. None of it needs the node's own wallet, and a node built without one does.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::{
    Amount, Block, BlockHash, FeeRate, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid,
    consensus,
};
use dovetail_bitcoin_rpc::{CallBounds, RpcClient, RpcError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::fees::fee_rate_from_btc_per_kvb;
use crate::keys::WalletKeys;
use crate::transaction::Coin;

/// What is answered from memory.
const QUICK: CallBounds = CallBounds {
    time_max: Duration::from_secs(30),
    answer_bytes_max: 1 << 20,
};
/// A block's txids: at most 16,666 transactions of 60 bytes fit into one, with 67 bytes of answer for each.
const BLOCK: CallBounds = CallBounds {
    time_max: Duration::from_secs(60),
    answer_bytes_max: 4 << 20,
};
/// A block has at most 4,000,000 bytes, in hexadecimal.
const WHOLE_BLOCK: CallBounds = CallBounds {
    time_max: Duration::from_secs(60),
    answer_bytes_max: 9 << 20,
};
/// Looking through all unspent outputs takes a node some minutes on mainnet; each coin found is about 500 bytes of answer.
const SCAN: CallBounds = CallBounds {
    time_max: Duration::from_secs(900),
    answer_bytes_max: 32 << 20,
};
/// A coinbase may be spent after as many blocks.
const COINBASE_MATURITY: u32 = 100;
/// `RPC_INVALID_PARAMETER`, `RPC_INVALID_ADDRESS_OR_KEY`: there is no such block or transaction; and the two ways of
/// `sendrawtransaction` to say that it has it already or never will.
const INVALID_PARAMETER: i64 = -8;
const NOT_FOUND: i64 = -5;
const VERIFY_ERROR: i64 = -25;
const VERIFY_REJECTED: i64 = -26;
const IN_CHAIN: i64 = -27;

/// A node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Node(RpcClient);

/// Why the node was of no help.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// It cannot be asked, or refuses. Worth a retry.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// It answers something else than Bitcoin Core does.
    #[error("the node's answer to {0} is not understood")]
    Answer(&'static str),
}

/// The end of the node's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainTip {
    /// The newest block.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// The network.
    pub network: Network,
    /// Whether the node is still fetching its chain: then it knows nothing yet.
    pub is_syncing: bool,
}

/// A block's transactions by their names, and the block before it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FoundBlock {
    /// The block that it builds on; the first block has none.
    #[serde(rename = "previousblockhash")]
    pub previous: Option<BlockHash>,
    /// Its transactions, in their order.
    #[serde(rename = "tx")]
    pub txids: Vec<Txid>,
}

/// A coin, and what keeps it from being spent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCoin {
    /// The coin.
    pub coin: Coin,
    /// How deep in the chain it is; 1: in the newest block.
    pub confirmations: u32,
    /// Whether it is a block's reward that cannot be spent yet.
    pub is_immature: bool,
}

/// What the node's memory pool asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayFees {
    /// The lowest rate that it takes now.
    pub least: FeeRate,
    /// What a replacement pays besides.
    pub incremental: FeeRate,
}

/// What became of a transaction that was handed to the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// The node has it: in memory, or in its chain.
    Yes,
    /// The node does not want it now: what it says. It may take it later.
    No(String),
}

impl Node {
    /// The node behind this RPC.
    pub fn new(rpc: RpcClient) -> Self {
        Self(rpc)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        bounds: CallBounds,
    ) -> Result<T, NodeError> {
        let answer = self.0.call(method, params, bounds).await?;
        serde_json::from_value(answer).map_err(|_| NodeError::Answer(method))
    }

    /// The end of its chain.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn tip(&self) -> Result<ChainTip, NodeError> {
        const METHOD: &str = "getblockchaininfo";
        #[derive(Deserialize)]
        struct Info {
            chain: String,
            blocks: u32,
            bestblockhash: BlockHash,
            initialblockdownload: bool,
        }
        let info: Info = self.ask(METHOD, json!([]), QUICK).await?;
        Ok(ChainTip {
            hash: info.bestblockhash,
            height: info.blocks,
            network: Network::from_core_arg(&info.chain).map_err(|_| NodeError::Answer(METHOD))?,
            is_syncing: info.initialblockdownload,
        })
    }

    /// The block of this height; `None` if the chain is not as long.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn block_at(&self, height: u32) -> Result<Option<BlockHash>, NodeError> {
        match self.ask("getblockhash", json!([height]), QUICK).await {
            Ok(hash) => Ok(Some(hash)),
            Err(NodeError::Rpc(RpcError::Refused {
                code: INVALID_PARAMETER,
                ..
            })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a block has.
    ///
    /// # Errors
    /// [`NodeError`]; a node that prunes may no longer have it.
    pub async fn block(&self, block: BlockHash) -> Result<FoundBlock, NodeError> {
        self.ask("getblock", json!([block, 1]), BLOCK).await
    }

    /// A block, all of it.
    ///
    /// # Errors
    /// [`NodeError`]; a node that prunes may no longer have it.
    pub async fn whole_block(&self, block: BlockHash) -> Result<Block, NodeError> {
        const METHOD: &str = "getblock";
        let raw: String = self.ask(METHOD, json!([block, 0]), WHOLE_BLOCK).await?;
        consensus::encode::deserialize_hex(&raw).map_err(|_| NodeError::Answer(METHOD))
    }

    /// The wallet's coins in the chain, also those that a transaction in memory spends.
    ///
    /// # Errors
    /// [`NodeError`]; a node looks for one at a time.
    pub async fn coins(&self, keys: &WalletKeys) -> Result<Vec<FoundCoin>, NodeError> {
        const METHOD: &str = "scantxoutset";
        #[derive(Deserialize)]
        struct Scan {
            success: bool,
            unspents: Vec<Unspent>,
        }
        #[derive(Deserialize)]
        struct Unspent {
            txid: Txid,
            vout: u32,
            #[serde(rename = "scriptPubKey")]
            script: ScriptBuf,
            amount: f64,
            coinbase: bool,
            confirmations: u32,
        }
        let mut wanted = json!({ "desc": keys.public() });
        if keys.range() > 1 {
            wanted["range"] = json!([0, keys.range() - 1]);
        }
        let scan: Scan = self.ask(METHOD, json!(["start", [wanted]]), SCAN).await?;
        if !scan.success {
            return Err(NodeError::Answer(METHOD));
        }
        let unspents = scan.unspents.into_iter();
        let found = unspents.map(|unspent| {
            let value = Amount::from_btc(unspent.amount).map_err(|_| NodeError::Answer(METHOD))?;
            Ok(FoundCoin {
                coin: Coin {
                    outpoint: OutPoint::new(unspent.txid, unspent.vout),
                    output: TxOut {
                        value,
                        script_pubkey: unspent.script,
                    },
                },
                confirmations: unspent.confirmations,
                is_immature: unspent.coinbase && unspent.confirmations < COINBASE_MATURITY,
            })
        });
        found.collect()
    }

    /// Whether the chain has this output and nothing in the chain spends it; with `memory`, nothing in the node's memory
    /// either.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn is_unspent(&self, output: OutPoint, memory: bool) -> Result<bool, NodeError> {
        let params = json!([output.txid, output.vout, memory]);
        let found: Value = self.ask("gettxout", params, QUICK).await?;
        Ok(!found.is_null())
    }

    /// What a transaction has to pay to be in one of the next `blocks`; `None` if the node has seen too few to say.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn fee_rate(&self, blocks: u16) -> Result<Option<FeeRate>, NodeError> {
        const METHOD: &str = "estimatesmartfee";
        #[derive(Deserialize)]
        struct Estimate {
            feerate: Option<f64>,
        }
        let estimate: Estimate = self.ask(METHOD, json!([blocks]), QUICK).await?;
        let read = |btc| fee_rate_from_btc_per_kvb(btc).ok_or(NodeError::Answer(METHOD));
        estimate.feerate.map(read).transpose()
    }

    /// What its memory pool asks.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn relay_fees(&self) -> Result<RelayFees, NodeError> {
        const METHOD: &str = "getmempoolinfo";
        #[derive(Deserialize)]
        struct Info {
            mempoolminfee: f64,
            minrelaytxfee: f64,
            incrementalrelayfee: f64,
        }
        let info: Info = self.ask(METHOD, json!([]), QUICK).await?;
        let read = |btc| fee_rate_from_btc_per_kvb(btc).ok_or(NodeError::Answer(METHOD));
        Ok(RelayFees {
            least: read(info.mempoolminfee)?.max(read(info.minrelaytxfee)?),
            incremental: read(info.incrementalrelayfee)?,
        })
    }

    /// Whether the node holds the transaction for a block to come.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn is_in_memory(&self, txid: Txid) -> Result<bool, NodeError> {
        match self
            .ask::<Value>("getmempoolentry", json!([txid]), QUICK)
            .await
        {
            Ok(_) => Ok(true),
            Err(NodeError::Rpc(RpcError::Refused {
                code: NOT_FOUND, ..
            })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the node would take the transaction, without handing it out.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn would_take(&self, transaction: &Transaction) -> Result<Taken, NodeError> {
        const METHOD: &str = "testmempoolaccept";
        #[derive(Deserialize)]
        struct Verdict {
            allowed: Option<bool>,
            #[serde(rename = "reject-reason")]
            reason: Option<String>,
        }
        let raw = consensus::encode::serialize_hex(transaction);
        let verdicts: Vec<Verdict> = self.ask(METHOD, json!([[raw]]), QUICK).await?;
        let verdict = verdicts.first().ok_or(NodeError::Answer(METHOD))?;
        Ok(match (&verdict.reason, verdict.allowed) {
            (_, Some(true)) => Taken::Yes,
            (Some(reason), _) => Taken::No(reason.clone()),
            (None, _) => Taken::No("no reason given".to_owned()),
        })
    }

    /// Hands the node a transaction, as often as one likes: what it has, it has.
    ///
    /// # Errors
    /// [`NodeError`] if it cannot be told: it may have it all the same.
    pub async fn broadcast(&self, raw: &[u8]) -> Result<Taken, NodeError> {
        const METHOD: &str = "sendrawtransaction";
        // Our own bounds hold for what it costs: 0 takes away the node's.
        let raw = hex::encode(raw);
        match self.ask::<String>(METHOD, json!([raw, 0]), QUICK).await {
            Ok(txid) => Txid::from_str(&txid)
                .map(|_| Taken::Yes)
                .map_err(|_| NodeError::Answer(METHOD)),
            Err(NodeError::Rpc(RpcError::Refused { code: IN_CHAIN, .. })) => Ok(Taken::Yes),
            Err(NodeError::Rpc(RpcError::Refused {
                code: VERIFY_ERROR | VERIFY_REJECTED,
                message,
            })) => Ok(Taken::No(message)),
            Err(error) => Err(error),
        }
    }
}
