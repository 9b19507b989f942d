//! The part of the pool's gRPC interface that serves model files.

use std::time::Duration;

use dovetail_api::connection::{DialError, PoolAddress};
use dovetail_api::models_v1::{FetchModelRequest, FetchModelResponse, models_client::ModelsClient};
use dovetail_api::v1::{ListModelsRequest, inference_client::InferenceClient};
use dovetail_api::{MESSAGE_BYTES_MAX, MODEL_CHUNK_BYTES_MAX, words};
use dovetail_commitment::ModelId;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use super::FetchError;

/// A pool on the same continent answers in milliseconds.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// For a list, and for the beginning of a file.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// A dead connection is noticed within twice this.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A message's fields beside its data.
const FIELDS_BYTES_MAX: usize = 64;

/// A connection.
pub(super) struct ModelPool {
    api: String,
    channel: Channel,
}

/// What one message holds.
pub(super) struct Piece {
    /// The whole file's length.
    pub(super) file_bytes: u64,
    /// The next bytes.
    pub(super) data: Vec<u8>,
}

/// The pieces of a file, in order.
pub(super) struct Pieces {
    api: String,
    stream: Streaming<FetchModelResponse>,
}

impl ModelPool {
    pub(super) async fn connect(address: &PoolAddress) -> Result<Self, FetchError> {
        let api = address.url().to_owned();
        let dialled = address.dial(CONNECT_TIME_MAX, |endpoint| {
            endpoint
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
        });
        match dialled.await {
            Ok(channel) => Ok(Self { api, channel }),
            Err(DialError::Address(reason)) => Err(FetchError::Address { api, reason }),
            Err(DialError::Unreachable(reason)) => Err(FetchError::Unreachable { api, reason }),
            Err(DialError::Tls(fault)) => Err(FetchError::Tls { api, fault }),
        }
    }

    /// The id of the model that the pool calls by this name.
    pub(super) async fn named(&mut self, name: &str) -> Result<ModelId, FetchError> {
        let mut client =
            InferenceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let answer = timeout(ANSWER_TIME_MAX, client.list_models(ListModelsRequest {})).await;
        let answer = answer.map_err(|_| FetchError::Silent)?;
        let models = answer
            .map_err(|status| FetchError::from_status(&self.api, &status))?
            .into_inner()
            .models;
        let mut named = models.iter().filter(|model| model.name == name);
        let Some(model) = named.next() else {
            return Err(FetchError::NoSuchName {
                name: name.to_owned(),
                known: words::names(&models),
            });
        };
        if named.next().is_some() {
            return Err(FetchError::Ambiguous(name.to_owned()));
        }
        let id = model.model_id.as_slice().try_into();
        let id = id.map_err(|_| FetchError::Protocol("a model's id does not have 32 bytes"))?;
        Ok(ModelId::from_bytes(id))
    }

    /// A model's file from an offset on.
    pub(super) async fn pieces(&mut self, id: ModelId, offset: u64) -> Result<Pieces, FetchError> {
        let mut client = ModelsClient::new(self.channel.clone())
            .max_decoding_message_size(MODEL_CHUNK_BYTES_MAX + FIELDS_BYTES_MAX);
        let request = FetchModelRequest {
            model_id: id.to_bytes().to_vec(),
            offset,
        };
        let answer = timeout(ANSWER_TIME_MAX, client.fetch_model(request)).await;
        let answer = answer.map_err(|_| FetchError::Silent)?;
        let answer = answer.map_err(|status| FetchError::from_status(&self.api, &status))?;
        Ok(Pieces {
            api: self.api.clone(),
            stream: answer.into_inner(),
        })
    }
}

impl Pieces {
    /// The next piece, however long it takes; `None` where the stream ended in order. Cancellation-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, FetchError> {
        let message = self.stream.message().await;
        let message = message.map_err(|status| FetchError::from_status(&self.api, &status))?;
        Ok(message.map(|message| Piece {
            file_bytes: message.file_bytes,
            data: message.data,
        }))
    }
}
