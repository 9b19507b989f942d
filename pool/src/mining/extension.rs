//! Extension 0x4149 on a mining connection: registration, tasks, transcripts, batches, invoices.
//! The specification is `docs/extension-0x4149.md`.

use dovetail_api::codes::WORKER_FAILED;
use dovetail_commitment::{Transcript, output_digest, prompt_commitment};
use dovetail_ledger::{LedgerError, TaskState, unix_now};
use dovetail_sv2::extension::{
    AssignTask, AssignTaskError, Bytes, CancelTask, DeliverTranscript, DeliverTranscriptError,
    DeliverTranscriptSuccess, Invoice, InvoiceError, PayoutResult, RegisterBatch,
    RegisterBatchError, RegisterBatchSuccess, RegisterWorker, RegisterWorkerChallenge,
    RegisterWorkerError, RegisterWorkerProof, RegisterWorkerSuccess, RequestInvoice, StreamTokens,
    codes, verify_registration,
};
use tokio::sync::mpsc;

use super::connection::{Connection, Ended};
use crate::tasks::{COMMANDS_MAX, GivenBack, TaskOrder, WorkerCommand};
use crate::events::Event;
use crate::payouts::InvoiceAnswer;

/// How many tasks one worker is given at once, whatever it says it takes: its commands must fit
/// their queue.
const TASKS_MAX: u16 = 16;

/// A registration that waits for its proof.
#[derive(Debug)]
pub(super) struct Registering {
    request: RegisterWorker,
    nonce: [u8; 32],
}

impl Connection {
    pub(super) fn on_register(&mut self, request: RegisterWorker) -> Result<(), Ended> {
        if self.worker.is_some() {
            return self.refuse_registration(codes::BAD_PROOF);
        }
        let known = request
            .models
            .iter()
            .filter(|id| self.shared.models.get(id).is_some())
            .count();
        if known == 0 {
            return self.refuse_registration(codes::MODEL_UNKNOWN);
        }
        let nonce: [u8; 32] = rand::random();
        self.registering = Some(Registering { request, nonce });
        self.send(&RegisterWorkerChallenge { nonce })
    }

    pub(super) fn on_proof(&mut self, proof: &RegisterWorkerProof) -> Result<(), Ended> {
        let Some(Registering { request, nonce }) = self.registering.take() else {
            return self.refuse_registration(codes::NOT_REGISTERED);
        };
        if !verify_registration(&request.worker_key, &nonce, proof) {
            return self.refuse_registration(codes::BAD_PROOF);
        }
        let models: Vec<_> = request
            .models
            .into_iter()
            .filter(|id| self.shared.models.get(id).is_some())
            .collect();
        let beacon_tip = self.shared.settler.auditor.tip();
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        let model_count = models.len();
        let tasks_max = usize::from(request.max_tasks.min(TASKS_MAX));
        self.commands = Some(receiver);
        self.worker = Some(request.worker_key);
        self.send(&RegisterWorkerSuccess { beacon_tip })?;
        self.shared
            .dispatcher
            .register(request.worker_key, self.id, models, tasks_max, sender);
        Event::WorkerRegistered {
            worker: &request.worker_key.to_string(),
            models: model_count,
        }
        .emit();
        tracing::info!(worker = %request.worker_key, models = model_count, "worker registered");
        self.shared.spawn_pairing();
        Ok(())
    }

    fn refuse_registration(&mut self, code: &str) -> Result<(), Ended> {
        self.send(&RegisterWorkerError {
            code: code.to_owned(),
        })
    }

    /// What the rest of the pool asks of this worker.
    pub(super) fn on_command(&mut self, command: WorkerCommand) -> Result<(), Ended> {
        match command {
            WorkerCommand::Assign(order) => self.assign(&order),
            WorkerCommand::Cancel(task_id) => self.send(&CancelTask { task_id }),
            WorkerCommand::RequestInvoice {
                payout_id,
                amount_msat,
            } => self.send(&RequestInvoice {
                payout_id,
                amount_msat,
            }),
            WorkerCommand::PayoutResult { payout_id, paid } => {
                self.send(&PayoutResult { payout_id, paid })
            }
        }
    }

    fn assign(&mut self, order: &TaskOrder) -> Result<(), Ended> {
        // It may have waited, or been with another worker before.
        let left_ms = order
            .expires_at_unix
            .saturating_sub(unix_now())
            .saturating_mul(1_000);
        self.send(&AssignTask {
            task_id: order.id,
            model_id: order.model,
            prompt: Bytes(order.prompt.clone()),
            stop: order.stop.clone(),
            salt: order.salt,
            sampling: order.sampling,
            seed: order.seed,
            deadline_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
        })
    }

    pub(super) async fn on_assign_error(&mut self, message: &AssignTaskError) {
        let Some(worker) = self.worker else { return };
        let task = message.task_id;
        tracing::warn!(%task, code = message.code, "a worker refused a task");
        match given_back(&message.code) {
            Some(why) => self.shared.give_back(task, worker, why).await,
            // No other worker could run it either.
            None if self.shared.dispatcher.is_with(&task, &worker) => {
                self.shared.fail(task, Some(worker), WORKER_FAILED).await;
            }
            None => {}
        }
        self.shared.spawn_pairing();
    }

    pub(super) fn on_stream(&mut self, message: &StreamTokens) -> Result<(), Ended> {
        let Some(worker) = self.worker else {
            return Err(Ended::Protocol("tokens before a registration"));
        };
        // Tokens of a task that has just been cancelled are still on their way: not worth a word.
        if let Err(refusal) = self.shared.dispatcher.stream(
            &worker,
            &message.task_id,
            message.first_position,
            &message.tokens,
        ) {
            tracing::debug!(task = %message.task_id, %refusal, "tokens were not taken");
        }
        Ok(())
    }

    pub(super) async fn on_transcript(&mut self, message: DeliverTranscript) -> Result<(), Ended> {
        let task_id = message.task_id;
        match self.take_transcript(&message).await {
            Ok(()) => self.send(&DeliverTranscriptSuccess { task_id }),
            Err(code) => {
                tracing::warn!(task = %task_id, code, "a transcript was refused");
                self.send(&DeliverTranscriptError {
                    task_id,
                    code: code.to_owned(),
                })
            }
        }
    }

    /// Checks the transcript against the task as it was assigned and the tokens as they were
    /// streamed, and makes it durable. What it says about the computation is the audit's matter.
    async fn take_transcript(&self, message: &DeliverTranscript) -> Result<(), &'static str> {
        let worker = self.worker.ok_or(codes::NOT_REGISTERED)?;
        let transcript =
            Transcript::decode(&message.transcript.0).map_err(|_| codes::TRANSCRIPT_MALFORMED)?;
        let ledger = &self.shared.settler.ledger;
        let task = ledger
            .task(message.task_id)
            .await
            .map_err(|_| codes::INTERNAL)?
            .ok_or(codes::TASK_UNKNOWN)?;
        if task.worker != Some(worker) {
            return Err(codes::TASK_NOT_YOURS);
        }
        if task.state == TaskState::Finished && task.transcript.as_ref() == Some(&transcript) {
            // Delivered again: our answer was lost with the connection before this one.
            return Ok(());
        }
        if task.state != TaskState::Assigned {
            return Err(codes::TASK_UNKNOWN);
        }
        let prompt = task.prompt.as_deref().ok_or(codes::TASK_UNKNOWN)?;
        let stop = task.stop.as_ref().ok_or(codes::TASK_UNKNOWN)?;
        let tokens = self
            .shared
            .dispatcher
            .watch(&message.task_id)
            .map(|live| live.borrow().tokens.clone())
            .ok_or(codes::TASK_UNKNOWN)?;
        let matches = transcript.task_id == message.task_id
            && transcript.worker_key == worker
            && transcript.model_id == task.model_id
            && transcript.engine_version == dovetail_engine::ENGINE_VERSION
            && transcript.prompt_commitment == prompt_commitment(&task.salt, stop, prompt)
            && transcript.sampling == task.sampling
            && transcript.seed == task.seed
            && transcript.output_tokens as usize == tokens.len()
            && transcript.output_digest == output_digest(&tokens);
        if !matches {
            return Err(codes::TRANSCRIPT_NOT_MATCHING_TASK);
        }
        ledger
            .finish_task(message.task_id, worker, &transcript, &tokens)
            .await
            .map_err(|error| match error {
                // Its time ran out, or it was cancelled, a moment ago.
                LedgerError::Refused(_) => codes::TASK_UNKNOWN,
                _ => codes::INTERNAL,
            })?;
        Event::TaskFinished {
            task: &message.task_id.to_string(),
            output_tokens: transcript.output_tokens,
        }
        .emit();
        self.shared.dispatcher.complete(&message.task_id, &tokens);
        self.shared.spawn_pairing();
        Ok(())
    }

    pub(super) async fn on_register_batch(&mut self, message: &RegisterBatch) -> Result<(), Ended> {
        let request_id = message.request_id;
        let registered = match self.worker {
            Some(worker) => self
                .shared
                .settler
                .ledger
                .register_batch(worker, message.root, &message.task_ids)
                .await
                .map_err(|refusal| crate::refusals::batch_code(&refusal)),
            None => Err(codes::NOT_REGISTERED),
        };
        match registered {
            Ok(()) => self.send(&RegisterBatchSuccess { request_id }),
            Err(code) => {
                tracing::warn!(root = %message.root, code, "a batch was refused");
                self.send(&RegisterBatchError {
                    request_id,
                    code: code.to_owned(),
                })
            }
        }
    }

    pub(super) fn on_invoice(&mut self, message: Invoice) {
        let bolt11 = String::from_utf8(message.bolt11.0).ok();
        self.answer_invoice(message.payout_id, bolt11);
    }

    pub(super) fn on_invoice_error(&mut self, message: &InvoiceError) {
        self.answer_invoice(message.payout_id, None);
    }

    fn answer_invoice(&self, payout_id: [u8; 32], bolt11: Option<String>) {
        let Some(worker) = self.worker else { return };
        self.shared.payouts.answer(InvoiceAnswer {
            payout_id,
            worker,
            bolt11,
        });
    }
}

/// Whether another worker may run a task that was refused with this code, and why this one does not.
fn given_back(code: &str) -> Option<GivenBack> {
    match code {
        codes::TOO_MANY_TASKS => Some(GivenBack::Full),
        codes::MODEL_UNKNOWN | codes::INTERNAL => Some(GivenBack::Unable),
        _ => None,
    }
}
