//! The server's side of the socket, for any [`Wallet`].

use std::future::Future;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
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
    Answer, CreatedInvoice, CreatedOffer, Info, InvoicePayment, LINE_BYTES_MAX, OfferPayment,
    PaymentStatus, Refusal, Request,
};

/// How many requests may be under way; further ones wait in the system's queue.
const CONNECTIONS_MAX: usize = 64;
/// A client sends its one line at once, and takes the answer at once.
const LINE_TIME_MAX: Duration = Duration::from_secs(5);

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
    /// Makes an offer.
    fn create_offer(
        &self,
        description: &str,
    ) -> impl Future<Output = Result<CreatedOffer, Refusal>> + Send;
    /// Pays an invoice. An attempt that it has heard of is not dispatched again: it says how that stands. Another attempt
    /// of the same payment hash is refused ([`crate::HASH_IN_FLIGHT`]) until the earlier ones are proven failed.
    fn pay(
        &self,
        payment: InvoicePayment,
    ) -> impl Future<Output = Result<PaymentStatus, Refusal>> + Send;
    /// Pays an offer. An attempt that it has heard of is not dispatched again.
    fn pay_offer(
        &self,
        payment: OfferPayment,
    ) -> impl Future<Output = Result<PaymentStatus, Refusal>> + Send;
    /// How an attempt stands.
    fn payment(
        &self,
        attempt: [u8; 32],
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

/// Listens at `path`, which only this user can open. A socket that a dead process left there is
/// replaced; one that somebody answers, or a file of another kind, is not.
///
/// # Errors
/// If the path cannot be used.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    if let Ok(found) = path.symlink_metadata() {
        if !found.file_type().is_socket() {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::ErrorKind::AddrInUse.into());
        }
    }
    // A socket is born open to whoever may enter its folder: it gets its mode in a closed one.
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let closed = parent.join(format!(".{name}.{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&closed)?;
    let bound = bind_in(&closed, path);
    std::fs::remove_dir_all(&closed)?;
    bound
}

fn bind_in(closed: &Path, path: &Path) -> std::io::Result<UnixListener> {
    let born = closed.join("s");
    let listener = UnixListener::bind(&born)?;
    std::fs::set_permissions(&born, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&born, path)?;
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
    let read = timeout(LINE_TIME_MAX, reader.read_until(b'\n', &mut line)).await;
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
    timeout(LINE_TIME_MAX, write.write_all(&bytes)).await?
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
        Request::CreateOffer { description } => value(&wallet.create_offer(&description).await?),
        Request::Pay(payment) => value(&wallet.pay(payment).await?),
        Request::PayOffer(payment) => value(&wallet.pay_offer(payment).await?),
        Request::Payment { attempt } => value(&wallet.payment(attempt.0).await?),
        Request::InvoicePaid { payment_hash } => value(&wallet.invoice_paid(payment_hash.0).await?),
        Request::Balance => value(&wallet.balance().await?),
        request => wallet.operate(request).await,
    }
}

fn value(result: &impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(result).map_err(|_| Refusal::new("internal", "the answer does not encode"))
}
