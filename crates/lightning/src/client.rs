//! The client: each request takes a connection of its own, so a slow payment delays nothing else
//! and a restarted wallet needs no reconnecting.

use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::protocol::{
    Answer, CreatedInvoice, CreatedOffer, Hash32, Info, InvoicePayment, LINE_BYTES_MAX,
    OfferPayment, PaymentStatus, Refusal, Request,
};

/// How long an answer may take. A payment that takes longer is `Pending`, not lost.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// Why there is no answer. For a payment none of these means that it failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The wallet is away.
    #[error("the wallet's socket: {0}")]
    Io(#[from] std::io::Error),
    /// The wallet is slow.
    #[error("the wallet did not answer in time")]
    TimeOut,
    /// The answer is none of this protocol.
    #[error("the wallet's answer is malformed")]
    Malformed,
    /// The wallet refuses.
    #[error("the wallet refuses: {0}")]
    Refused(Refusal),
}

/// A wallet's client.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the wallet at this socket. Connects with each request.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Who answers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_info(&self) -> Result<Info, ClientError> {
        self.ask(&Request::GetInfo).await
    }

    /// Makes an invoice.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, ClientError> {
        self.ask(&Request::CreateInvoice {
            amount_msat,
            description: description.to_owned(),
            expiry_s,
        })
        .await
    }

    /// Makes an offer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_offer(&self, description: &str) -> Result<CreatedOffer, ClientError> {
        self.ask(&Request::CreateOffer {
            description: description.to_owned(),
        })
        .await
    }

    /// Pays an invoice, or says how the attempt stands if the wallet has heard of it before: it dispatches an attempt
    /// once. Write the attempt to the ledger before you call this.
    ///
    /// # Errors
    /// [`ClientError`]: the attempt is then uncertain, not failed. Ask again later, for the same attempt.
    pub async fn pay(&self, payment: InvoicePayment) -> Result<PaymentStatus, ClientError> {
        self.ask(&Request::Pay(payment)).await
    }

    /// Pays an offer, or says how the attempt stands if the wallet has heard of it before.
    ///
    /// # Errors
    /// [`ClientError`]: the attempt is then uncertain, not failed. Ask again later, for the same attempt.
    pub async fn pay_offer(&self, payment: OfferPayment) -> Result<PaymentStatus, ClientError> {
        self.ask(&Request::PayOffer(payment)).await
    }

    /// How an attempt stands.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn payment(&self, attempt: [u8; 32]) -> Result<PaymentStatus, ClientError> {
        self.ask(&Request::Payment {
            attempt: Hash32(attempt),
        })
        .await
    }

    /// Whether an invoice of this wallet was paid.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn invoice_paid(&self, payment_hash: [u8; 32]) -> Result<bool, ClientError> {
        self.ask(&Request::InvoicePaid {
            payment_hash: Hash32(payment_hash),
        })
        .await
    }

    /// What can be spent, in msat.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn balance(&self) -> Result<u64, ClientError> {
        self.ask(&Request::Balance).await
    }

    /// Asks anything of the protocol, and returns the answer as it is. For operators' tools.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn raw(&self, request: &Request) -> Result<serde_json::Value, ClientError> {
        self.ask(request).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClientError> {
        let answer = timeout(ANSWER_TIME_MAX, self.exchange(request))
            .await
            .map_err(|_| ClientError::TimeOut)??;
        match answer {
            Answer::Result(value) => {
                serde_json::from_value(value).map_err(|_| ClientError::Malformed)
            }
            Answer::Error(refusal) => Err(ClientError::Refused(refusal)),
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, ClientError> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let mut line = serde_json::to_vec(request).map_err(|_| ClientError::Malformed)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(LINE_BYTES_MAX as u64))
            .read_until(b'\n', &mut answer)
            .await?;
        serde_json::from_slice(&answer).map_err(|_| ClientError::Malformed)
    }
}
