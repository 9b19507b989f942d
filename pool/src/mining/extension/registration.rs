//! A worker registers: it names its models, and proves its key by signing the pool's nonce for this pool and connection.

use std::sync::Arc;

use dovetail_commitment::WorkerKey;
use dovetail_sv2::EndReason;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{
    Binding, KeptCredit, RegisterWorker, RegisterWorkerChallenge, RegisterWorkerError,
    RegisterWorkerProof, RegisterWorkerSuccess, verify_registration,
};

use super::challenge::Registering;
use crate::mining::connection::Connection;

impl Connection {
    pub(in crate::mining) fn on_register(
        &mut self,
        request: RegisterWorker,
    ) -> Result<(), EndReason> {
        if self.connected.is_some() {
            return self.refuse_registration(Code::BadProof);
        }
        let known = request
            .models
            .iter()
            .filter(|id| self.shared.models.get(id).is_some())
            .count();
        // A worker that still fetches its models names none, and only hashes.
        if known == 0 && !request.models.is_empty() {
            return self.refuse_registration(Code::ModelUnknown);
        }
        let nonce: [u8; 32] = rand::random();
        self.registering = Some(Registering { request, nonce });
        self.send(&RegisterWorkerChallenge { nonce })
    }

    pub(in crate::mining) fn on_proof(
        &mut self,
        proof: &RegisterWorkerProof,
    ) -> Result<(), EndReason> {
        let Some(Registering { request, nonce }) = self.registering.take() else {
            return self.refuse_registration(Code::NotRegistered);
        };
        let binding = Binding {
            authority: self.shared.authority,
            handshake: self.handshake,
        };
        if !verify_registration(&request.worker_key, &nonce, &binding, proof) {
            return self.refuse_registration(Code::BadProof);
        }
        let vrf_key = self.shared.settler.vrf_key();
        self.send(&RegisterWorkerSuccess { vrf_key })?;
        let (worker, room) = (request.worker_key, usize::from(request.max_tasks));
        let has_earned = self.shared.known_accounts.knows(&worker.to_string());
        self.place.register(has_earned);
        self.connected = Some(self.shared.tasks.connect(worker, request.models, room));
        self.keep_credit(worker, request.keep_msat);
        Ok(())
    }

    /// What the worker has just proven that it wants. Also that nothing is kept any more. The registration does not wait
    /// for the ledger, which may be away.
    fn keep_credit(&mut self, worker: WorkerKey, kept: KeptCredit) {
        self.kept = kept;
        let settler = Arc::clone(&self.shared.settler);
        self.shared
            .tracker
            .spawn(async move { settler.keep_credit(worker, kept).await });
    }

    fn refuse_registration(&mut self, code: Code) -> Result<(), EndReason> {
        self.send(&RegisterWorkerError {
            code: code.to_string(),
        })
    }
}
