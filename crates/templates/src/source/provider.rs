//! An Sv2 Template Provider over Noise.

use dovetail_sv2::setup::{self, SetupProtocol};
use dovetail_sv2::{AuthorityPublicKey, ConnectionError, FrameReader, FrameWriter, connect};
use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;

use super::upstream::{Connector, Link};
use crate::error::{TemplateError, Unreachable};
use crate::wire;

/// Where the provider is, and who it must be.
pub(super) struct Provider {
    pub(super) address: String,
    pub(super) authority: Option<AuthorityPublicKey>,
}

impl Connector for Provider {
    type Link = ProviderLink;

    fn name(&self) -> &str {
        &self.address
    }

    async fn connect(&self) -> Result<ProviderLink, TemplateError> {
        let (mut reader, mut writer) =
            connect(&self.address, self.authority)
                .await
                .map_err(|error| match &error {
                    ConnectionError::Io(error) => Unreachable::of(&self.address, error),
                    error => Unreachable::other(&self.address, error),
                })?;
        let request = setup::request(
            SetupProtocol::TemplateDistributionProtocol,
            0,
            &self.address,
            env!("CARGO_PKG_VERSION"),
        )
        .map_err(|error| TemplateError::Config(error.to_string()))?;
        setup::open(&mut reader, &mut writer, &request)
            .await
            .map_err(|error| TemplateError::Protocol(error.to_string()))?;
        reader.set_payload_bytes_max(wire::PAYLOAD_BYTES_MAX);
        Ok(ProviderLink { reader, writer })
    }
}

pub(super) struct ProviderLink {
    reader: FrameReader,
    writer: FrameWriter,
}

impl Link for ProviderLink {
    async fn send(&mut self, message: Tdp) -> Result<(), TemplateError> {
        let frame =
            wire::to_frame(&message).map_err(|error| TemplateError::Protocol(error.to_string()))?;
        self.writer
            .write(&frame)
            .await
            .map_err(|error| gone(&error))
    }

    async fn receive(&mut self) -> Result<Tdp, TemplateError> {
        loop {
            let frame = self.reader.read().await.map_err(|error| gone(&error))?;
            let message = wire::from_frame(&frame)
                .map_err(|error| TemplateError::Protocol(error.to_string()))?;
            match message {
                Some(message) => return Ok(message),
                None => {
                    tracing::debug!(message_type = frame.message_type, "discarded a message");
                }
            }
        }
    }

    async fn close(mut self) {
        // The provider may be gone already.
        let _ = self.writer.shutdown().await;
    }
}

fn gone(error: &ConnectionError) -> TemplateError {
    tracing::debug!(%error, "the connection to the template provider failed");
    TemplateError::Unavailable
}
