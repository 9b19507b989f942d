//! Each frame goes to the handler of its message. Nothing is decided here.

use dovetail_sv2::extension::{self as ext, EXTENSION_TYPE};
use dovetail_sv2::{EndReason, Frame, Message, messages, negotiation, worker_tracking};

use super::Connection;
use crate::mining::shares::share::SubmittedShare;

/// What the pool grants whoever asks.
const SUPPORTED_EXTENSIONS: [u16; 2] = [EXTENSION_TYPE, worker_tracking::EXTENSION_TYPE];

impl Connection {
    /// Looks the message up by its header alone: `parsers_sv2` would refuse what it does not know. What waits for somebody
    /// is boxed: each connection would keep the room for it otherwise, idle or not.
    pub(super) async fn on_frame(&mut self, frame: Frame) -> Result<(), EndReason> {
        match frame.extension_type {
            0 => self.on_mining_frame(&frame).await,
            messages::RequestExtensions::EXTENSION_TYPE => self.on_negotiation_frame(&frame),
            EXTENSION_TYPE if self.extension => self.on_extension_frame(&frame).await,
            // Unknown extensions are discarded; the connection stays (3.4.1).
            _ => Ok(()),
        }
    }

    async fn on_mining_frame(&mut self, frame: &Frame) -> Result<(), EndReason> {
        if frame.is::<messages::OpenStandardMiningChannel>() {
            self.on_open_standard(&frame.message()?)
        } else if frame.is::<messages::OpenExtendedMiningChannel>() {
            self.on_open_extended(&frame.message()?)
        } else if frame.is::<messages::UpdateChannel>() {
            self.on_update_channel(&frame.message()?)
        } else if frame.is::<messages::CloseChannel>() {
            self.on_close_channel(&frame.message()?);
            Ok(())
        } else if frame.is::<messages::SubmitSharesStandard>() {
            let share: messages::SubmitSharesStandard = frame.message()?;
            self.on_share(&SubmittedShare::from(share), &[])
        } else if frame.is::<messages::SubmitSharesExtended>() {
            let (share, fields) = frame.decode_with_tlvs::<messages::SubmitSharesExtended>()?;
            self.on_share(&SubmittedShare::from(share), &fields)
        } else if frame.is::<messages::SetCustomMiningJob>() {
            Box::pin(self.on_set_custom_job(frame.message()?)).await
        } else {
            Err(EndReason::Protocol("a message that miners do not send"))
        }
    }

    fn on_negotiation_frame(&mut self, frame: &Frame) -> Result<(), EndReason> {
        if !frame.is::<messages::RequestExtensions>() {
            return Ok(());
        }
        let request: messages::RequestExtensions = frame.message()?;
        match negotiation::answer(&request, &SUPPORTED_EXTENSIONS, &[]) {
            Ok(success) => {
                self.send(&success)?;
                let granted = success.supported_extensions.as_slice();
                self.names_devices |= granted.contains(&worker_tracking::EXTENSION_TYPE);
                match granted.contains(&EXTENSION_TYPE) && !self.extension {
                    true => self.begin_extension(),
                    false => Ok(()),
                }
            }
            Err(error) => self.send(&error),
        }
    }

    async fn on_extension_frame(&mut self, frame: &Frame) -> Result<(), EndReason> {
        if frame.is::<ext::RegisterWorker>() {
            self.on_register(frame.message()?)
        } else if frame.is::<ext::RegisterWorkerProof>() {
            self.on_proof(&frame.message()?)
        } else if frame.is::<ext::StreamTokens>() {
            self.on_stream(&frame.message()?)
        } else if frame.is::<ext::DeliverTranscript>() {
            self.on_transcript(&frame.message()?)
        } else if frame.is::<ext::RegisterBatch>() {
            Box::pin(self.on_register_batch(&frame.message()?)).await
        } else if frame.is::<ext::RequestBatchJob>() {
            Box::pin(self.on_request_batch_job(&frame.message()?)).await
        } else if frame.is::<ext::AssignTaskError>() {
            Box::pin(self.on_assign_error(&frame.message()?)).await;
            Ok(())
        } else if frame.is::<ext::Invoice>() {
            self.on_invoice(frame.message()?);
            Ok(())
        } else if frame.is::<ext::InvoiceError>() {
            self.on_invoice_error(&frame.message()?);
            Ok(())
        } else {
            Err(EndReason::Protocol("a message that workers do not send"))
        }
    }
}
