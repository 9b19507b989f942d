//! A worker registers a batch: the transcripts that it will claim together.

use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{RegisterBatch, RegisterBatchError, RegisterBatchSuccess};

use crate::claims::batch::register;
use crate::mining::connection::Connection;

impl Connection {
    pub(in crate::mining) async fn on_register_batch(
        &mut self,
        message: &RegisterBatch,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        match self.register_batch(message).await {
            Ok(()) => self.send(&RegisterBatchSuccess { request_id }),
            Err(code) => {
                tracing::warn!(root = %message.root, %code, "a batch was refused");
                self.send(&RegisterBatchError {
                    request_id,
                    code: code.to_string(),
                })
            }
        }
    }

    async fn register_batch(&self, message: &RegisterBatch) -> Result<(), Code> {
        let worker = self.worker().ok_or(Code::NotRegistered)?;
        let turn = self.shared.registrations.take(worker).await;
        let _turn = turn.ok_or(Code::Internal)?;
        let (ledger, pace) = (&self.shared.ledger, self.shared.settler.pace());
        register(ledger, pace, worker, message.root, &message.task_ids).await
    }
}
