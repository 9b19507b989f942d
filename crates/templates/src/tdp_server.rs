//! Serves a template source as an Sv2 Template Provider (specification 7) to many clients, each
//! with a connection of its own. It decides nothing: templates and verdicts are the source's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dovetail_sv2::PlaceLimits;
use dovetail_sv2::server::{self, Server};
use dovetail_sv2::setup::{ServerPolicy, SetupProtocol};
use dovetail_sv2::{AuthorityKeys, ConnectionError, FrameReader, Outbox};
use dovetail_units::header::Tip;
use stratum_core::binary_sv2::{B016MOwned, B064KOwned, Seq064KOwned};
use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;
use stratum_core::template_distribution_sv2::{
    ERROR_CODE_REQUEST_TRANSACTION_DATA_STALE_TEMPLATE_ID,
    ERROR_CODE_REQUEST_TRANSACTION_DATA_TEMPLATE_ID_NOT_FOUND, RequestTransactionDataErrorOwned,
    RequestTransactionDataSuccessOwned, SubmitSolutionOwned,
};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::TemplateError;
use crate::handle::TemplateHandle;
use crate::request::TransactionData;
use crate::snapshot::WorkSnapshot;
use crate::wire;

/// Clients at a time. Each is a pool, a declarator or a worker with its own node: few.
const CLIENTS_MAX: usize = 256;
/// Messages that may wait for one client: a burst of tips, and the answers below.
const OUTBOX_MAX: usize = 64;
/// Requests of one client in progress; further ones are read when one of these is done.
const REQUESTS_MAX: usize = 8;
/// How long the certificate of one connection holds.
const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest message of a client: a solution with its coinbase.
const REQUEST_BYTES_MAX: usize = 128 * 1024;

const POLICY: ServerPolicy = ServerPolicy {
    protocol: SetupProtocol::TemplateDistributionProtocol,
    supported_flags: 0,
    required_flags: 0,
    success_flags: |_| 0,
};

/// Serves `source` on `listener` until `shutdown` is cancelled; returns when every connection has
/// ended and every solution that came in has been handed over.
pub async fn serve(
    listener: TcpListener,
    keys: AuthorityKeys,
    source: TemplateHandle,
    shutdown: CancellationToken,
) {
    let server = Server {
        keys,
        certificate_validity: CERTIFICATE_VALIDITY,
        policy: POLICY,
        places: PlaceLimits::total(CLIENTS_MAX),
        outbox_max: OUTBOX_MAX,
        payload_bytes_max: REQUEST_BYTES_MAX,
    };
    let tracker = TaskTracker::new();
    let requests = tracker.clone();
    let serve = move |client: server::Client| {
        Connection {
            address: client.address,
            source: source.clone(),
            requests: requests.clone(),
            token: client.token,
        }
        .run(client.reader, client.outbox)
    };
    server.run(listener, &tracker, &shutdown, serve).await;
    tracker.close();
    tracker.wait().await;
}

/// Why a connection ended before its client hung up.
#[derive(Debug, thiserror::Error)]
enum EndReason {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error(transparent)]
    Decode(#[from] dovetail_sv2::DecodeError),
    #[error(transparent)]
    Outbox(#[from] dovetail_sv2::OutboxError),
    #[error("the client sent a server's message")]
    WrongWay,
    #[error("the template source has stopped")]
    SourceStopped,
}

/// One client's connection.
struct Connection {
    address: SocketAddr,
    source: TemplateHandle,
    /// Holds what must run to its end even if the client goes.
    requests: TaskTracker,
    token: CancellationToken,
}

impl Connection {
    async fn run(self, mut reader: FrameReader, outbox: Outbox) {
        let address = self.address;
        tracing::debug!(%address, "a client connected");
        match self.converse(&mut reader, outbox).await {
            Ok(()) | Err(EndReason::Connection(ConnectionError::Closed)) => {
                tracing::debug!(%address, "a client left");
            }
            Err(error) => tracing::info!(%address, %error, "dropped a client"),
        }
        self.token.cancel();
    }

    async fn converse(&self, reader: &mut FrameReader, outbox: Outbox) -> Result<(), EndReason> {
        let mut feed = Feed::new(self.source.subscribe(), outbox.clone());
        let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
        loop {
            tokio::select! {
                biased;
                () = self.token.cancelled() => return Ok(()),
                fed = feed.next() => fed?,
                frame = reader.read() => match wire::from_frame(&frame?)? {
                    // Templates start with the client's constraints; the only source that heeds
                    // them is asked with ours, which are roomier than any client of ours needs.
                    Some(Tdp::CoinbaseOutputConstraints(_)) => feed.start(),
                    Some(Tdp::RequestTransactionData(request)) => {
                        let id = request.template_id;
                        self.in_slot(&slots, answer(self.source.clone(), id, outbox.clone())).await;
                    }
                    Some(Tdp::SubmitSolution(solution)) => {
                        self.in_slot(&slots, submit(self.source.clone(), solution, self.address))
                            .await;
                    }
                    Some(_) => return Err(EndReason::WrongWay),
                    None => {}
                },
            }
        }
    }

    /// Runs a request beside the connection, once there is room for it.
    async fn in_slot(
        &self,
        slots: &Arc<Semaphore>,
        request: impl Future<Output = ()> + Send + 'static,
    ) {
        let slot = Arc::clone(slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        self.requests.spawn(async move {
            request.await;
            drop(slot);
        });
    }
}

/// The templates that one client is told.
struct Feed {
    work: watch::Receiver<Option<Arc<WorkSnapshot>>>,
    outbox: Outbox,
    started: bool,
    /// The tip that it was told last.
    tip: Option<Tip>,
}

impl Feed {
    fn new(work: watch::Receiver<Option<Arc<WorkSnapshot>>>, outbox: Outbox) -> Self {
        Self {
            work,
            outbox,
            started: false,
            tip: None,
        }
    }

    /// The client is ready for templates; it gets the newest at once.
    fn start(&mut self) {
        self.started = true;
        self.tip = None;
        self.work.mark_changed();
    }

    /// Sends the next template. Cancellation-safe: it awaits only the change.
    async fn next(&mut self) -> Result<(), EndReason> {
        if !self.started {
            return std::future::pending().await;
        }
        self.work
            .changed()
            .await
            .map_err(|_| EndReason::SourceStopped)?;
        let work = self.work.borrow_and_update().clone();
        work.map_or(Ok(()), |work| self.send(&work))
    }

    /// A new tip is a future template that the tip then activates; a better template on the same
    /// tip stands alone (specification 7.2, 7.3). Another target or an earlier time is a new tip too.
    fn send(&mut self, work: &WorkSnapshot) -> Result<(), EndReason> {
        let tip = work.tip();
        let new_tip = self.tip.is_none_or(|told| tip.is_news_after(&told, 0));
        let mut template = work.template.clone();
        template.future_template = new_tip;
        self.outbox.send(&template)?;
        if new_tip {
            self.outbox.send(&work.prev_hash)?;
            self.tip = Some(tip);
        }
        Ok(())
    }
}

async fn answer(source: TemplateHandle, template_id: u64, outbox: Outbox) {
    let success = source
        .transaction_data(template_id)
        .await
        .and_then(|data| success(template_id, data));
    let sent = match success {
        Ok(success) => outbox.send(&success),
        Err(error) => outbox.send(&RequestTransactionDataErrorOwned {
            template_id,
            error_code: error_code(&error)
                .try_into()
                .expect("the codes are shorter than 256 bytes"),
        }),
    };
    // A client that is gone needs no answer; one that does not keep up has been dropped.
    if let Err(error) = sent {
        tracing::debug!(%error, template_id, "transaction data was not sent");
    }
}

fn success(
    template_id: u64,
    data: TransactionData,
) -> Result<RequestTransactionDataSuccessOwned, TemplateError> {
    let unfit = |_| TemplateError::Protocol("the transactions do not fit the message".into());
    let transactions = data
        .transactions
        .into_iter()
        .map(B016MOwned::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(unfit)?;
    Ok(RequestTransactionDataSuccessOwned {
        template_id,
        excess_data: B064KOwned::new(data.excess_data).map_err(unfit)?,
        transaction_list: Seq064KOwned::new(transactions).map_err(unfit)?,
    })
}

fn error_code(error: &TemplateError) -> &'static str {
    match error {
        TemplateError::StaleTemplate(_) => ERROR_CODE_REQUEST_TRANSACTION_DATA_STALE_TEMPLATE_ID,
        // The protocol has no word for a source that is away; the client may ask again.
        _ => ERROR_CODE_REQUEST_TRANSACTION_DATA_TEMPLATE_ID_NOT_FOUND,
    }
}

/// The protocol has no answer to a solution: the verdict goes to the log.
async fn submit(source: TemplateHandle, solution: SubmitSolutionOwned, address: SocketAddr) {
    let template_id = solution.template_id;
    match source.submit_solution(solution).await {
        Ok(()) => tracing::info!(%address, template_id, "a client solved a template"),
        Err(error) => tracing::warn!(%address, template_id, %error, "a client's solution failed"),
    }
}
