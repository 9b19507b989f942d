//! The server's side of the socket, for any [`Wallet`].

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::protocol::{
    Answer, CreatedInvoice, Info, LINE_BYTES_MAX, PaymentStatus, Refusal, Request,
};

/// How many requests may be under way; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// A client sends its one line at once.
const READ_TIME_MAX: Duration = Duration::from_secs(5);

/// What answers.
pub trait Wallet: Send + Sync + 'static {
    /// Who it is.
    fn info(&self) -> impl Future<Output = Result<Info, Refusal>> + Send;
    /// Makes an invoice.
    fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> impl Future<Output = Result<CreatedInvoice, Refusal>> + Send;
    /// Pays, unless the hash was ever tried before; then says how that stands.
    fn pay(
        &self,
        payment_hash: [u8; 32],
        bolt11: &str,
        max_fee_msat: u64,
    ) -> impl Future<Output = Result<PaymentStatus, Refusal>> + Send;
    /// How an outgoing payment stands.
    fn payment(
        &self,
        payment_hash: [u8; 32],
    ) -> impl Future<Output = Result<PaymentStatus, Refusal>> + Send;
    /// Whether an invoice was paid.
    fn invoice_paid(
        &self,
        payment_hash: [u8; 32],
    ) -> impl Future<Output = Result<bool, Refusal>> + Send;
    /// What can be spent, in msat.
    fn balance(&self) -> impl Future<Output = Result<u64, Refusal>> + Send;
    /// Answers what only its operator asks; wallets without a chain refuse.
    fn operate(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<serde_json::Value, Refusal>> + Send {
        let _ = request;
        async {
            Err(Refusal::new(
                "unsupported",
                "this wallet has no chain and no channels",
            ))
        }
    }
}

/// Listens at `path`, which only this user can then open. A socket that a dead process left there
/// is replaced.
///
/// # Errors
/// If the path cannot be used.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until `shutdown`.
pub async fn serve(listener: UnixListener, wallet: Arc<impl Wallet>, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the wallet's socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let wallet = Arc::clone(&wallet);
        tokio::spawn(async move {
            if let Err(error) = answer_one(stream, &*wallet).await {
                tracing::debug!(%error, "a wallet's client went away");
            }
            drop(place);
        });
    }
}

async fn answer_one(stream: UnixStream, wallet: &impl Wallet) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(read.take(LINE_BYTES_MAX as u64));
    let read = timeout(READ_TIME_MAX, reader.read_until(b'\n', &mut line)).await;
    if !matches!(read, Ok(Ok(_))) {
        return Ok(());
    }
    let answer = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => answer(request, wallet).await,
        Err(_) => Err(Refusal::new(
            "malformed",
            "expected one request as a line of JSON",
        )),
    };
    let answer = match answer {
        Ok(value) => Answer::Result(value),
        Err(refusal) => Answer::Error(refusal),
    };
    let mut bytes = serde_json::to_vec(&answer)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

async fn answer(request: Request, wallet: &impl Wallet) -> Result<serde_json::Value, Refusal> {
    match request {
        Request::GetInfo => value(&wallet.info().await?),
        Request::CreateInvoice {
            amount_msat,
            description,
            expiry_s,
        } => value(
            &wallet
                .create_invoice(amount_msat, &description, expiry_s)
                .await?,
        ),
        Request::Pay {
            payment_hash,
            bolt11,
            max_fee_msat,
        } => value(&wallet.pay(payment_hash.0, &bolt11, max_fee_msat).await?),
        Request::Payment { payment_hash } => value(&wallet.payment(payment_hash.0).await?),
        Request::InvoicePaid { payment_hash } => value(&wallet.invoice_paid(payment_hash.0).await?),
        Request::Balance => value(&wallet.balance().await?),
        request => wallet.operate(request).await,
    }
}

fn value(result: &impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(result).map_err(|_| Refusal::new("internal", "the answer does not encode"))
}
