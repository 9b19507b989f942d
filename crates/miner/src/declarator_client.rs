//! The client of the job declarator: gets a token, declares a job with it, and hands over the
//! transactions that the server does not know. One request at a time.

use std::time::Duration;

use bitcoin::Transaction;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use dovetail_commitment::WorkerKey;
use dovetail_sv2::extension::EXTENSION_TYPE;
use dovetail_sv2::frame::PAYLOAD_BYTES_MAX;
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B016MOwned, B064KOwned, B0255Owned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, ProvideMissingTransactions,
    ProvideMissingTransactionsSuccess, RequestExtensions, Seq064KOwned, Str0255Owned, U256Owned,
};
use dovetail_sv2::setup::{SetupError, SetupProtocol, declaration_flags};
use dovetail_sv2::{
    AuthorityPublicKey, ConnectionError, DecodeError, Frame, FrameReader, Message, Outbox,
    OutboxError, connect, setup,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::coinbase::JobCoinbase;

/// Time for a token. A server that gives too many of them lets one wait.
const TOKEN_TIME_MAX: Duration = Duration::from_secs(30);
/// Time for a declaration, from its message to its token, whatever the server asks and sends in between.
/// One that has a whole block judged needs some.
const DECLARATION_TIME_MAX: Duration = Duration::from_secs(60);
/// Messages that wait to be sent: one request at a time, and the blocks that are found meanwhile.
const OUTBOX_FRAMES: usize = 16;

/// Where the job declarator is.
#[derive(Debug, Clone)]
pub struct DeclaratorOptions {
    /// host:port.
    pub address: String,
    /// The key that its certificate must be signed with.
    pub authority: Option<AuthorityPublicKey>,
}

/// Why a job was not declared.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// The connection failed; a new one may do.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server did not set the connection up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The server sent something malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Our message breaks a limit, for instance a template with more than 65,535 transactions.
    #[error("the job does not fit its message: {0}")]
    Encode(String),
    /// The server did not answer.
    #[error("the job declarator did not answer in time")]
    TimeOut,
    /// The server refused the job.
    #[error("the job declarator refused the job: {0}")]
    Refused(String),
    /// We could not send.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// The server asks for what no declaration has.
    #[error("the job declarator broke the protocol: {0}")]
    Protocol(&'static str),
    /// A transaction of our own template does not parse.
    #[error("a transaction of the template does not parse")]
    Template,
}

impl From<dovetail_sv2::frame::EncodeError> for DeclareError {
    fn from(error: dovetail_sv2::frame::EncodeError) -> Self {
        Self::Encode(error.to_string())
    }
}

/// Permission to declare one job, and what the job must pay.
#[derive(Debug, Clone)]
pub struct JobToken {
    /// Opaque.
    pub token: Vec<u8>,
    /// A counted array of outputs. The first is the pool's, with value 0: it takes what the others leave.
    pub outputs: Vec<u8>,
}

/// What is declared, besides the coinbase.
#[derive(Debug, Clone)]
pub struct Declaration<'a> {
    /// Block version.
    pub version: u32,
    /// The coinbase around its extranonce.
    pub coinbase: &'a JobCoinbase,
    /// The template's transactions without the coinbase, in order.
    pub transactions: &'a [Vec<u8>],
    /// What the template source gave with them.
    pub excess_data: &'a [u8],
}

/// An open connection to the job declarator.
#[derive(Debug)]
pub struct Declarator {
    reader: FrameReader,
    outbox: Outbox,
    worker_key: WorkerKey,
    next_request_id: u32,
    /// Ends the connection, whoever else can still send on it.
    _connection: DropGuard,
}

impl Declarator {
    /// Connects in full-template mode.
    ///
    /// # Errors
    /// No connection, or a server that refuses it.
    pub async fn open(
        options: &DeclaratorOptions,
        worker_key: WorkerKey,
    ) -> Result<Self, DeclareError> {
        let (mut reader, mut writer) = connect(&options.address, options.authority).await?;
        // Frames of this protocol carry lists of transactions.
        reader.set_payload_bytes_max(PAYLOAD_BYTES_MAX);
        let request = setup::request(
            SetupProtocol::JobDeclarationProtocol,
            declaration_flags::DECLARE_TX_DATA,
            &options.address,
            env!("CARGO_PKG_VERSION"),
        )?;
        setup::open(&mut reader, &mut writer, &request).await?;
        let connection = CancellationToken::new();
        let (outbox, _writer) = Outbox::spawn(writer, OUTBOX_FRAMES, connection.clone());
        // Says that we take tokens with outputs that are paid beside the pool's. Whoever does not know it gives no such tokens:
        // its answer, if there is one, is passed over.
        outbox.send(&RequestExtensions {
            request_id: 0,
            requested_extensions: Seq064KOwned::new(vec![EXTENSION_TYPE]).map_err(encode)?,
        })?;
        Ok(Self {
            reader,
            outbox,
            worker_key,
            next_request_id: 1,
            _connection: connection.drop_guard(),
        })
    }

    /// A handle to send blocks with, also while a declaration is under way. It is good for as long as
    /// this connection.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Asks for a token. Cancelled, it leaves a connection that is still good.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn allocate(&mut self) -> Result<JobToken, DeclareError> {
        let until = Instant::now() + TOKEN_TIME_MAX;
        let request_id = self.request_id();
        let user_identifier = Str0255Owned::try_from(self.worker_key.to_string().as_str())
            .expect("a key in hex has 64 characters");
        self.outbox.send(&AllocateMiningJobToken {
            user_identifier,
            request_id,
        })?;
        loop {
            let frame = self.receive(until).await?;
            if !frame.is::<AllocateMiningJobTokenSuccess>() {
                continue;
            }
            let (success, _) = frame.decode::<AllocateMiningJobTokenSuccess>()?;
            if success.request_id == request_id {
                return Ok(JobToken {
                    token: success.mining_job_token.into_bytes(),
                    outputs: success.coinbase_outputs.into_bytes(),
                });
            }
        }
    }

    /// Declares a job and returns the token for `SetCustomMiningJob`.
    ///
    /// # Errors
    /// [`DeclareError::Refused`] leaves the connection usable; any other ends it.
    pub async fn declare(
        &mut self,
        token: &JobToken,
        job: &Declaration<'_>,
    ) -> Result<Vec<u8>, DeclareError> {
        let until = Instant::now() + DECLARATION_TIME_MAX;
        let request_id = self.request_id();
        let message = declaration(request_id, token, job)?;
        self.outbox.send(&message)?;
        let mut provided = false;
        loop {
            let frame = self.receive(until).await?;
            match frame.message_type {
                ProvideMissingTransactions::MESSAGE_TYPE => {
                    let (missing, _) = frame.decode::<ProvideMissingTransactions>()?;
                    if missing.request_id == request_id {
                        if std::mem::replace(&mut provided, true) {
                            return Err(DeclareError::Protocol("it asks for transactions twice"));
                        }
                        let answer = provide(&missing, job.transactions)?;
                        self.outbox.send(&answer)?;
                    }
                }
                DeclareMiningJobSuccess::MESSAGE_TYPE => {
                    let (success, _) = frame.decode::<DeclareMiningJobSuccess>()?;
                    if success.request_id == request_id {
                        return Ok(success.new_mining_job_token.into_bytes());
                    }
                }
                DeclareMiningJobError::MESSAGE_TYPE => {
                    let (error, _) = frame.decode::<DeclareMiningJobError>()?;
                    if error.request_id == request_id {
                        return Err(DeclareError::Refused(error.error_code.as_utf8_or_hex()));
                    }
                }
                _ => {}
            }
        }
    }

    fn request_id(&mut self) -> u32 {
        let id = self.next_request_id;
        self.next_request_id = id.wrapping_add(1);
        id
    }

    async fn receive(&mut self, until: Instant) -> Result<Frame, DeclareError> {
        Ok(timeout_at(until, self.reader.read())
            .await
            .map_err(|_| DeclareError::TimeOut)??)
    }
}

fn encode(error: impl std::fmt::Display) -> DeclareError {
    DeclareError::Encode(error.to_string())
}

fn declaration(
    request_id: u32,
    token: &JobToken,
    job: &Declaration<'_>,
) -> Result<DeclareMiningJob, DeclareError> {
    let wtxids: Vec<U256Owned> = job
        .transactions
        .iter()
        .map(|bytes| {
            let transaction: Transaction =
                deserialize(bytes).map_err(|_| DeclareError::Template)?;
            Ok(U256Owned::from(transaction.compute_wtxid().to_byte_array()))
        })
        .collect::<Result<_, DeclareError>>()?;
    Ok(DeclareMiningJob {
        request_id,
        mining_job_token: B0255Owned::new(token.token.clone()).map_err(encode)?,
        version: job.version,
        coinbase_tx_prefix: B064KOwned::new(job.coinbase.prefix.clone()).map_err(encode)?,
        coinbase_tx_suffix: B064KOwned::new(job.coinbase.suffix.clone()).map_err(encode)?,
        wtxid_list: Seq064KOwned::new(wtxids).map_err(encode)?,
        excess_data: B064KOwned::new(job.excess_data.to_vec()).map_err(encode)?,
    })
}

/// The transactions at the asked positions, which exclude the coinbase and keep their order (6.4.7). A list of two bytes
/// a position may name the largest transaction 65,535 times: each may be named once, and what they take together is
/// known before the first is copied.
fn provide(
    missing: &ProvideMissingTransactions,
    transactions: &[Vec<u8>],
) -> Result<ProvideMissingTransactionsSuccess, DeclareError> {
    let positions: Vec<usize> = missing
        .unknown_tx_position_list
        .iter()
        .map(|position| usize::from(*position))
        .collect();
    if !positions.is_sorted_by(|one, next| one < next) {
        return Err(DeclareError::Protocol(
            "the positions of missing transactions do not rise",
        ));
    }
    if positions
        .last()
        .is_some_and(|last| *last >= transactions.len())
    {
        return Err(DeclareError::Protocol(
            "it asks for a transaction that the job does not have",
        ));
    }
    let asked = || positions.iter().map(|position| &transactions[*position]);
    // Every transaction has a length of three bytes before it.
    let payload_bytes: usize = asked().map(|bytes| bytes.len() + 3).sum();
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(encode(format!(
            "the transactions asked for have {payload_bytes} bytes"
        )));
    }
    let list = asked()
        .map(|bytes| B016MOwned::new(bytes.clone()).map_err(encode))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ProvideMissingTransactionsSuccess {
        request_id: missing.request_id,
        transaction_list: Seq064KOwned::new(list).map_err(encode)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(positions: Vec<u16>) -> ProvideMissingTransactions {
        ProvideMissingTransactions {
            request_id: 5,
            unknown_tx_position_list: Seq064KOwned::new(positions).unwrap(),
        }
    }

    #[test]
    fn missing_transactions_are_given_in_the_order_asked_for() {
        let transactions = vec![vec![0], vec![1], vec![2]];
        let answer = provide(&missing(vec![0, 2]), &transactions).unwrap();
        assert_eq!(answer.request_id, 5);
        let list: Vec<&[u8]> = answer
            .transaction_list
            .iter()
            .map(|t| t.as_bytes())
            .collect();
        assert_eq!(list, [[0], [2]]);
        let all = provide(&missing(Vec::new()), &transactions).unwrap();
        assert!(all.transaction_list.iter().next().is_none());
    }

    #[test]
    fn a_position_is_asked_for_once_and_is_one_of_the_template() {
        for positions in [vec![2, 0], vec![1, 1], vec![3], vec![0, 3]] {
            let answer = provide(&missing(positions.clone()), &[vec![0], vec![1], vec![2]]);
            assert!(
                matches!(answer, Err(DeclareError::Protocol(_))),
                "{positions:?}"
            );
        }
    }

    #[test]
    fn what_no_frame_can_carry_is_not_even_copied() {
        let half = PAYLOAD_BYTES_MAX / 2;
        let transactions = vec![vec![0; half], vec![0; half]];
        assert!(provide(&missing(vec![0]), &transactions).is_ok());
        assert!(provide(&missing(vec![0, 1]), &transactions).is_err());
    }
}
