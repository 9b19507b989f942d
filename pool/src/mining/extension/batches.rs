//! A worker registers a batch: the transcripts that it will claim together.

use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{RegisterBatch, RegisterBatchError, RegisterBatchSuccess};

use crate::claims::batch::registration_code;
use crate::mining::connection::Connection;

impl Connection {
    pub(in crate::mining) async fn on_register_batch(
        &mut self,
        message: &RegisterBatch,
    ) -> Result<(), EndReason> {
        let request_id = message.request_id;
        let registered = match self.worker() {
            Some(worker) => self
                .shared
                .ledger
                .register_batch(worker, message.root, &message.task_ids)
                .await
                .map_err(|refusal| registration_code(&refusal)),
            None => Err(Code::NotRegistered),
        };
        match registered {
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
}
