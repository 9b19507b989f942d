//! One miner's connection: a task that owns its tokens and its one declaration under way, so that
//! a slow declaration delays nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};
use dovetail_ledger::{BatchState, DeclaredJob, Ledger};
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B064KOwned, B0255Owned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, ProvideMissingTransactions,
    ProvideMissingTransactionsSuccess, PushSolution, Seq064KOwned, Str0255Owned,
};
use dovetail_sv2::{DecodeError, Frame, FrameReader, Message, Outbox};
use dovetail_templates::TemplateHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::check::{CheckedCoinbase, Refusal, check_coinbase};
use crate::config::DeclarationConfig;
use crate::solution::assemble;
use crate::tokens::TokenBook;

/// A block's transactions have at most this many bytes together.
const TRANSACTIONS_BYTES_MAX: usize = 4_000_000;
/// A block of the smallest transactions has fewer than this.
const TRANSACTIONS_MAX: usize = 16_384;
/// A connection that says nothing for this long is closed; miners declare every few minutes.
const SILENCE_MAX: Duration = Duration::from_secs(3_600);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: DeclarationConfig,
    pub(crate) ledger: Ledger,
    pub(crate) templates: Option<TemplateHandle>,
}

/// Why a connection ended, where it did not simply close.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the connection closed")]
    Closed,
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// A declaration that waits for transactions.
struct Pending {
    request_id: u32,
    identity: String,
    message: DeclareMiningJob,
    coinbase: CheckedCoinbase,
    missing: Vec<u16>,
}

/// The transactions behind a block's coinbase, in order, with their ids.
struct BlockTransactions {
    transactions: Vec<Vec<u8>>,
    txids: Vec<[u8; 32]>,
}

/// The connection's state. Nobody else holds any of it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    outbox: Outbox,
    tokens: TokenBook,
    pending: Option<Pending>,
    /// Transactions of the last declaration, so that the next one need not send them again.
    known: HashMap<[u8; 32], Vec<u8>>,
    last: Option<DeclaredJob>,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, outbox: Outbox) -> Self {
        let tokens = TokenBook::new(
            Duration::from_secs(shared.config.token_lifetime_s),
            shared.config.tokens_per_minute,
        );
        Self {
            shared,
            outbox,
            tokens,
            pending: None,
            known: HashMap::new(),
            last: None,
        }
    }

    pub(crate) async fn run(
        &mut self,
        mut reader: FrameReader,
        token: &CancellationToken,
    ) -> Ended {
        loop {
            let frame = tokio::select! {
                () = token.cancelled() => return Ended::Closed,
                frame = timeout(SILENCE_MAX, reader.read()) => frame,
            };
            let Ok(Ok(frame)) = frame else {
                return Ended::Closed;
            };
            if let Err(ended) = self.on_frame(&frame).await {
                return ended;
            }
        }
    }

    async fn on_frame(&mut self, frame: &Frame) -> Result<(), Ended> {
        if frame.extension_type != 0 {
            // Unknown extensions are discarded; the connection stays (3.4.1).
            return Ok(());
        }
        if frame.is::<AllocateMiningJobToken>() {
            self.on_allocate(&whole(frame)?)
        } else if frame.is::<DeclareMiningJob>() {
            self.on_declare(whole(frame)?).await
        } else if frame.is::<ProvideMissingTransactionsSuccess>() {
            self.on_transactions(whole(frame)?).await
        } else if frame.is::<PushSolution>() {
            self.on_solution(&whole(frame)?).await;
            Ok(())
        } else {
            Err(Ended::Protocol("a message that miners do not send"))
        }
    }

    /// A token, and the output that every job under it must have: the pool's script, value 0.
    fn on_allocate(&mut self, message: &AllocateMiningJobToken) -> Result<(), Ended> {
        let identity = message.user_identifier.as_utf8_or_hex();
        if identity.is_empty() || identity.len() > 128 {
            return Err(Ended::Protocol("an identity has 1 to 128 bytes"));
        }
        // The protocol has no refusal here: who asks too often is dropped.
        let token = self
            .tokens
            .grant(identity, Instant::now())
            .map_err(|_| Ended::Protocol("too many tokens in a minute"))?;
        let outputs = vec![TxOut {
            value: Amount::ZERO,
            script_pubkey: self.shared.config.payout_script.clone(),
        }];
        self.send(&AllocateMiningJobTokenSuccess {
            request_id: message.request_id,
            mining_job_token: field::<B0255Owned>(token.to_vec())?,
            coinbase_outputs: field::<B064KOwned>(serialize(&outputs))?,
        })
    }

    async fn on_declare(&mut self, message: DeclareMiningJob) -> Result<(), Ended> {
        let request_id = message.request_id;
        // A newer declaration replaces one that still waits for transactions.
        self.pending = None;
        let token = message.mining_job_token.as_bytes();
        let Some(identity) = self.tokens.spend(token, Instant::now()) else {
            return self.refuse(request_id, "invalid-mining-job-token", "the token is void");
        };
        let wtxids = message.wtxid_list.as_slice();
        if wtxids.len() > TRANSACTIONS_MAX {
            return self.refuse(request_id, "invalid-job-param-value-wtxid_list", "too many");
        }
        let unique: HashSet<&[u8]> = wtxids.iter().map(|wtxid| wtxid.as_bytes()).collect();
        if unique.len() != wtxids.len() {
            return self.refuse(request_id, "invalid-job-param-value-wtxid_list", "repeated");
        }
        let coinbase = match self.check(&message, &identity).await {
            Ok(coinbase) => coinbase,
            Err(refusal) => return self.refuse(request_id, refusal.code(), &refusal.to_string()),
        };
        let missing: Vec<u16> = (0_u16..)
            .zip(wtxids)
            .filter(|(_, wtxid)| !self.known.contains_key(wtxid.as_bytes()))
            .map(|(position, _)| position)
            .collect();
        let pending = Pending {
            request_id,
            identity,
            message,
            coinbase,
            missing,
        };
        if pending.missing.is_empty() {
            return self.accept(pending).await;
        }
        let question = ProvideMissingTransactions {
            request_id,
            unknown_tx_position_list: Seq064KOwned::new(pending.missing.clone())
                .map_err(|_| Ended::Protocol("too many transactions"))?,
        };
        self.pending = Some(pending);
        self.send(&question)
    }

    async fn check(
        &self,
        message: &DeclareMiningJob,
        identity: &str,
    ) -> Result<CheckedCoinbase, Refusal> {
        let script: &ScriptBuf = &self.shared.config.payout_script;
        let checked = check_coinbase(
            message.coinbase_tx_prefix.as_bytes(),
            message.coinbase_tx_suffix.as_bytes(),
            script,
        )?;
        let Some(root) = checked.batch_root else {
            return Ok(checked);
        };
        match self.shared.ledger.batch(root).await {
            Ok(Some(batch))
                if batch.state == BatchState::Open
                    && batch.worker.to_string() == identity
                    && !batch.is_expired() =>
            {
                Ok(checked)
            }
            Ok(_) => Err(Refusal::Batch),
            Err(error) => {
                tracing::error!(%error, "cannot read a batch");
                Err(Refusal::Batch)
            }
        }
    }

    async fn on_transactions(
        &mut self,
        message: ProvideMissingTransactionsSuccess,
    ) -> Result<(), Ended> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let given = message.transaction_list.into_inner();
        if message.request_id != pending.request_id || given.len() != pending.missing.len() {
            return self.refuse(
                pending.request_id,
                "invalid-job-param-value-transactions",
                "not the transactions that were asked for",
            );
        }
        let wtxids = pending.message.wtxid_list.as_slice();
        for (position, bytes) in pending.missing.iter().zip(given) {
            let bytes = bytes.into_bytes();
            let wanted = &wtxids[usize::from(*position)];
            let fits = deserialize::<Transaction>(&bytes).is_ok_and(|transaction| {
                transaction.compute_wtxid().as_byte_array() == wanted.as_bytes()
                    && !transaction.is_coinbase()
            });
            if !fits {
                // What a refused declaration brought is not kept: it could grow without end.
                self.known.clear();
                return self.refuse(
                    pending.request_id,
                    "invalid-job-param-value-transactions",
                    "a transaction does not have the declared wtxid",
                );
            }
            self.known.insert(wanted.clone().into_array(), bytes);
        }
        self.accept(pending).await
    }

    /// Every transaction is known now: the job goes into the ledger under a new token.
    async fn accept(&mut self, pending: Pending) -> Result<(), Ended> {
        let request_id = pending.request_id;
        let Some(block) = self.transactions(&pending.message) else {
            self.known.clear();
            return self.refuse(
                request_id,
                "invalid-job-param-value-transactions",
                "the transactions are too large for a block",
            );
        };
        let token: [u8; 32] = rand::random();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let job = DeclaredJob {
            token: token.to_vec(),
            identity: pending.identity,
            batch_root: pending.coinbase.batch_root,
            coinbase_prefix: pending.message.coinbase_tx_prefix.to_owned_bytes(),
            coinbase_suffix: pending.message.coinbase_tx_suffix.to_owned_bytes(),
            version: pending.message.version,
            txids: block.txids,
            transactions: block.transactions,
            pool_value_sat: pending.coinbase.pool_value_sat,
            expires_at_unix: now.saturating_add(self.shared.config.token_lifetime_s),
        };
        if let Err(error) = self.shared.ledger.put_declared_job(&job).await {
            tracing::error!(%error, "cannot store a declared job");
            return self.refuse(request_id, "internal-error", "try again");
        }
        tracing::info!(identity = job.identity, root = ?job.batch_root, transactions = job.txids.len(), "job declared");
        self.last = Some(job);
        self.send(&DeclareMiningJobSuccess {
            request_id,
            new_mining_job_token: field::<B0255Owned>(token.to_vec())?,
        })
    }

    /// The declared transactions in order, with their ids; and forgets all others.
    fn transactions(&mut self, message: &DeclareMiningJob) -> Option<BlockTransactions> {
        let mut transactions = Vec::new();
        let mut txids = Vec::new();
        let mut kept = HashMap::new();
        let mut total = 0_usize;
        for wtxid in message.wtxid_list.as_slice() {
            let bytes = self.known.get(wtxid.as_bytes())?.clone();
            total = total.checked_add(bytes.len())?;
            if total > TRANSACTIONS_BYTES_MAX {
                return None;
            }
            let transaction: Transaction = deserialize(&bytes).ok()?;
            txids.push(transaction.compute_txid().to_byte_array());
            kept.insert(wtxid.clone().into_array(), bytes.clone());
            transactions.push(bytes);
        }
        self.known = kept;
        Some(BlockTransactions {
            transactions,
            txids,
        })
    }

    /// A solved job: the miner propagates it too, but two ways are better than one.
    async fn on_solution(&self, message: &PushSolution) {
        let (Some(job), Some(templates)) = (&self.last, &self.shared.templates) else {
            return tracing::debug!("a solution came that nobody can submit here");
        };
        match assemble(job, message) {
            Ok((block, hash)) => match templates.submit_block(block).await {
                Ok(()) => tracing::info!(%hash, "declared block submitted"),
                Err(error) => tracing::warn!(%hash, %error, "declared block not taken"),
            },
            Err(error) => tracing::warn!(%error, "a pushed solution is no block"),
        }
    }

    fn refuse(&self, request_id: u32, code: &str, details: &str) -> Result<(), Ended> {
        tracing::info!(code, details, "declaration refused");
        self.send(&DeclareMiningJobError {
            request_id,
            error_code: field::<Str0255Owned>(code.as_bytes().to_vec())?,
            error_details: field::<B064KOwned>(details.as_bytes().to_vec())?,
        })
    }

    fn send<M: Message>(&self, message: &M) -> Result<(), Ended> {
        self.outbox.send(message).map_err(|_| Ended::Closed)
    }
}

fn whole<M: Message>(frame: &Frame) -> Result<M, Ended> {
    Ok(frame.decode_with_tlvs::<M>()?.0)
}

fn field<T: TryFrom<Vec<u8>>>(bytes: Vec<u8>) -> Result<T, Ended> {
    T::try_from(bytes).map_err(|_| Ended::Protocol("a field of ours is too long"))
}
