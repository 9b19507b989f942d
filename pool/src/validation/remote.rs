//! A validator in a process of its own, as the pool sees it. The connection is made when it is first
//! needed, and again after it broke.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use dovetail_api::validation_v1::validation_client::ValidationClient;
use dovetail_api::validation_v1::{DescribeRequest, ReplayRequest};
use dovetail_api::{VALIDATION_EVIDENCE_MAX, VALIDATION_MESSAGE_BYTES_MAX};
use dovetail_audit::Verdict;
use dovetail_commitment::{GUIDE, ModelId};
use dovetail_engine::ENGINE_VERSION;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::shared_secret::{Nonce, SharedSecret, Side};
use super::wire::{array, evidence_to_proto, verdict_from_proto};
use super::{Validator, ValidatorError, Work};

/// A validator on the operator's own network answers in milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// A dead connection is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A validator at an address.
pub(crate) struct RemoteValidator {
    url: String,
    client: ValidationClient<Channel>,
    secret: Option<SharedSecret>,
}

impl RemoteValidator {
    /// A validator at an `http://` URL; nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub(crate) fn new(url: &str, secret: Option<SharedSecret>) -> Result<Self, String> {
        if !url.starts_with("http://") {
            return Err(format!("{url} is not an http:// URL"));
        }
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|_| format!("{url} is not an http:// URL"))?
            .connect_timeout(CONNECT_TIME_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let client = ValidationClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(VALIDATION_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(VALIDATION_MESSAGE_BYTES_MAX);
        Ok(Self {
            url: url.to_owned(),
            client,
            secret,
        })
    }

    /// Whether a URL's host is this machine itself, as far as the URL says.
    pub(crate) fn is_on_loopback(url: &str) -> bool {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        if let Ok(address) = authority.parse::<SocketAddr>() {
            return address.ip().is_loopback();
        }
        let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
        host == "localhost" && port.parse::<u16>().is_ok()
    }

    /// A request that proves the secret, and the nonce of the call.
    fn signed<T: prost::Message>(&self, message: T) -> (Request<T>, Nonce) {
        let nonce = rand::random();
        let mut request = Request::new(message);
        if let Some(secret) = &self.secret {
            let mut beside = MetadataMap::new();
            secret.sign(Side::Request, &nonce, request.get_ref(), &mut beside);
            *request.metadata_mut() = beside;
        }
        (request, nonce)
    }

    /// The answer, if it proves the secret for this call.
    fn verified<T: prost::Message>(
        &self,
        answer: Response<T>,
        nonce: &Nonce,
    ) -> Result<T, ValidatorError> {
        if let Some(secret) = &self.secret {
            let proven = secret.verified(Side::Answer, answer.get_ref(), answer.metadata());
            if proven.as_ref() != Some(nonce) {
                return Err(ValidatorError::Unauthenticated);
            }
        }
        Ok(answer.into_inner())
    }
}

#[tonic::async_trait]
impl Validator for RemoteValidator {
    fn name(&self) -> &str {
        &self.url
    }

    async fn describe(&self) -> Result<HashSet<ModelId>, ValidatorError> {
        let (request, nonce) = self.signed(DescribeRequest {});
        let described = self.client.clone().describe(request).await;
        let described = described.map_err(|status| error_of(&status))?;
        let described = self.verified(described, &nonce)?;
        let ours = u32::from(ENGINE_VERSION);
        if described.engine_version != ours {
            return Err(ValidatorError::EngineVersion {
                theirs: described.engine_version,
                ours,
            });
        }
        if described.guide != GUIDE {
            return Err(ValidatorError::Guide);
        }
        described
            .model_ids
            .iter()
            .map(|id| array(id).map(ModelId::from_bytes))
            .collect::<Result<_, _>>()
            .map_err(|_| ValidatorError::Malformed)
    }

    async fn replay(&self, work: &Work) -> Result<Vec<Verdict>, ValidatorError> {
        let mut verdicts = Vec::with_capacity(work.evidence.len());
        for evidence in work.evidence.chunks(VALIDATION_EVIDENCE_MAX) {
            let request = ReplayRequest {
                engine_version: u32::from(ENGINE_VERSION),
                model_id: work.model.to_bytes().to_vec(),
                guide: GUIDE.to_owned(),
                evidence: evidence
                    .iter()
                    .map(|evidence| evidence_to_proto(evidence))
                    .collect(),
            };
            let (request, nonce) = self.signed(request);
            let answer = self.client.clone().replay(request).await;
            let answer = self.verified(answer.map_err(|status| error_of(&status))?, &nonce)?;
            if answer.verdicts.len() != evidence.len() {
                return Err(ValidatorError::Malformed);
            }
            for verdict in &answer.verdicts {
                let verdict = verdict_from_proto(verdict);
                verdicts.push(verdict.map_err(|_| ValidatorError::Malformed)?);
            }
        }
        Ok(verdicts)
    }
}

/// The status without its message, which a peer wrote.
fn error_of(status: &Status) -> ValidatorError {
    match status.code() {
        Code::NotFound => ValidatorError::ModelUnknown,
        Code::Unauthenticated => ValidatorError::Unauthenticated,
        Code::DeadlineExceeded => ValidatorError::TimeOut,
        code => ValidatorError::Unreachable(format!("{code:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_itself_is_on_the_loopback_interface() {
        for url in ["127.0.0.1:1", "[::1]:1/", "localhost", "localhost:1"] {
            assert!(
                RemoteValidator::is_on_loopback(&format!("http://{url}")),
                "{url}"
            );
        }
        for url in [
            "10.0.0.1:1",
            "[2001:db8::1]:1",
            "a.example",
            "localhost:1@a.example",
            "127.0.0.1:1@a",
        ] {
            assert!(
                !RemoteValidator::is_on_loopback(&format!("http://{url}")),
                "{url}"
            );
        }
    }
}
