//! The validator as a process: `dovetail-pool validator` serves `dovetail.validation.v1` to pools that
//! name it in `[audit] validators`. It holds models and nothing else: no ledger, no keys, no queue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use dovetail_api::validation_v1::validation_server::{Validation, ValidationServer};
use dovetail_api::validation_v1::{
    DescribeRequest, DescribeResponse, ReplayRequest, ReplayResponse,
};
use dovetail_api::{VALIDATION_EVIDENCE_MAX, VALIDATION_MESSAGE_BYTES_MAX};
use dovetail_commitment::{GUIDE, ModelId};
use dovetail_daemon::Secret;
use dovetail_engine::{ENGINE_VERSION, Runtime};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::shared_secret::{Nonce, SharedSecret, Side};
use super::wire::{array, evidence_from_proto, verdict_to_proto};
use super::{ThreadValidator, Validator, ValidatorError, Work};
use crate::grpc_listener::incoming;
use crate::models::Models;

/// Replays at once: while one computes, the next is being received.
const REPLAYS_MAX: usize = 2;
/// Requests that one connection may have under way. A pool has one.
const REQUESTS_PER_CONNECTION_MAX: usize = 8;

/// What `dovetail-pool validator` is told.
#[derive(Debug, Clone)]
pub struct ValidatorOptions {
    /// Where pools connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file of the secret that it shares with the pool; made if it is not there. Only on the loopback interface it may
    /// do without.
    pub secret_file: Option<PathBuf>,
    /// The model files.
    pub models: Vec<PathBuf>,
    /// Threads that compute; 0: one per core.
    pub threads: usize,
}

/// Serves replays until `shutdown`; `ready` is called once, with the address.
///
/// # Errors
/// A model that does not load, or an address that cannot be had.
pub async fn serve(
    options: ValidatorOptions,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let models = Models::load(&options.models)?;
    let runtime = Arc::new(Runtime::new(options.threads)?);
    let listener = TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let secret = options.secret_file.map(|file| Secret::File { file });
    let secret = secret.as_ref().map(SharedSecret::read).transpose()?;
    if !address.ip().is_loopback() {
        ensure!(
            secret.is_some(),
            "{address} is not on the loopback interface: give --secret-file, and the same secret to the pool as \
             audit.validators_secret"
        );
        tracing::warn!(%address, "a peer that listens in on this port can read prompts: keep it on a network of your own");
    }
    ready(address);
    let service = Service::new(models, runtime, secret);
    serve_on(listener, service, shutdown).await
}

pub(super) async fn serve_on(
    listener: TcpListener,
    service: Service,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let server = ValidationServer::new(service)
        .max_decoding_message_size(VALIDATION_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(VALIDATION_MESSAGE_BYTES_MAX);
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(REQUESTS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(server)
        .serve_with_incoming_shutdown(incoming(listener), shutdown.cancelled_owned())
        .await
        .context("the gRPC server failed")
}

/// The service: a thread validator that a pool reaches over gRPC.
pub(super) struct Service {
    models: Models,
    runtime: Arc<Runtime>,
    validator: Arc<ThreadValidator>,
    free: Arc<Semaphore>,
    secret: Option<SharedSecret>,
}

impl Service {
    pub(super) fn new(models: Models, runtime: Arc<Runtime>, secret: Option<SharedSecret>) -> Self {
        Self {
            secret,
            validator: Arc::new(ThreadValidator::new(
                0,
                Arc::clone(&runtime),
                models.clone(),
            )),
            models,
            runtime,
            free: Arc::new(Semaphore::new(REPLAYS_MAX)),
        }
    }
}

impl Service {
    /// The request of a pool that has the secret, and the nonce to answer with.
    fn verified<T: prost::Message>(&self, request: Request<T>) -> Result<(T, Nonce), Status> {
        let nonce = match &self.secret {
            Some(secret) => secret
                .verified(Side::Request, request.get_ref(), request.metadata())
                .ok_or_else(|| Status::unauthenticated("the request does not prove the secret"))?,
            None => Nonce::default(),
        };
        Ok((request.into_inner(), nonce))
    }

    fn signed<T: prost::Message>(&self, message: T, nonce: &Nonce) -> Response<T> {
        let mut answer = Response::new(message);
        if let Some(secret) = &self.secret {
            let mut beside = MetadataMap::new();
            secret.sign(Side::Answer, nonce, answer.get_ref(), &mut beside);
            *answer.metadata_mut() = beside;
        }
        answer
    }
}

#[tonic::async_trait]
impl Validation for Service {
    async fn describe(
        &self,
        request: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let (_, nonce) = self.verified(request)?;
        let described = DescribeResponse {
            engine_version: u32::from(ENGINE_VERSION),
            model_ids: self.models.ids().map(|id| id.to_bytes().to_vec()).collect(),
            kernel: self.runtime.kernel().name().to_owned(),
            threads: u32::try_from(self.runtime.threads()).unwrap_or(u32::MAX),
            guide: GUIDE.to_owned(),
        };
        Ok(self.signed(described, &nonce))
    }

    async fn replay(
        &self,
        request: Request<ReplayRequest>,
    ) -> Result<Response<ReplayResponse>, Status> {
        let (request, nonce) = self.verified(request)?;
        let work = work_of(request)?;
        let Ok(turn) = Arc::clone(&self.free).try_acquire_owned() else {
            return Err(Status::resource_exhausted("other replays are under way"));
        };
        let validator = Arc::clone(&self.validator);
        // A task of its own: a pool that hangs up leaves the computation and its turn behind, so that
        // no more run at once than may.
        let replaying = tokio::spawn(async move {
            let _turn = turn;
            validator.replay(&work).await
        });
        let verdicts = replaying.await.unwrap_or(Err(ValidatorError::Broken));
        let verdicts = verdicts.map_err(|error| match error {
            ValidatorError::ModelUnknown => Status::not_found("the model is not here"),
            ValidatorError::Unable => Status::unavailable("this machine cannot replay now"),
            _ => Status::internal("the replay broke off"),
        })?;
        tracing::debug!(transcripts = verdicts.len(), "replayed");
        let answer = ReplayResponse {
            verdicts: verdicts.iter().map(verdict_to_proto).collect(),
        };
        Ok(self.signed(answer, &nonce))
    }
}

fn work_of(request: ReplayRequest) -> Result<Work, Status> {
    if request.engine_version != u32::from(ENGINE_VERSION) {
        return Err(Status::failed_precondition(
            "another version of the arithmetic: run the pool's release",
        ));
    }
    if request.guide != GUIDE {
        return Err(Status::failed_precondition(
            "another guide: run the pool's release",
        ));
    }
    if !(1..=VALIDATION_EVIDENCE_MAX).contains(&request.evidence.len()) {
        return Err(Status::invalid_argument("evidence must be 1 to 64"));
    }
    let model = array(&request.model_id).map_err(|_| Status::invalid_argument("model_id"))?;
    let evidence = request.evidence.into_iter().map(evidence_from_proto);
    Ok(Work {
        model: ModelId::from_bytes(model),
        evidence: evidence
            .map(|evidence| evidence.map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(|malformed| Status::invalid_argument(malformed.to_string()))?,
    })
}
