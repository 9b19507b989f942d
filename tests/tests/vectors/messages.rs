//! A frame of each message.

use bitcoin::secp256k1::{Message as Digest, SECP256K1};
use dovetail_commitment::{HeaderHash, tagged_hash};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::*;
use dovetail_units::KeptCredit;

use super::Vectors;
use crate::{TOKENS, root, schema, task, transcript, vrf_secret, worker};

pub(crate) fn messages(out: &mut Vectors, proof: &RegisterWorkerProof) {
    out.heading("Frames before encryption, one of each message: header and payload");
    registration_messages(out, proof);
    task_messages(out);
    batch_messages(out);
    pool_built_job_messages(out);
    payout_messages(out);
}

fn registration_messages(out: &mut Vectors, proof: &RegisterWorkerProof) {
    let worker_key = worker().1;
    out.message(
        "RegisterWorker",
        &RegisterWorker {
            worker_key,
            models: vec![task().model_id],
            max_tasks: 4,
            keep_msat: KeptCredit::new(5_000_000).unwrap(),
        },
    );
    out.message(
        "RegisterWorkerChallenge",
        &RegisterWorkerChallenge { nonce: [0x08; 32] },
    );
    out.message("RegisterWorkerProof", proof);
    let vrf_key = vrf_secret().public_key();
    out.message("RegisterWorker.Success", &RegisterWorkerSuccess { vrf_key });
    let code = Code::BadProof.to_string();
    out.message("RegisterWorker.Error", &RegisterWorkerError { code });
}

fn task_messages(out: &mut Vectors) {
    let task = task();
    let task_id = task.task_id;
    out.message("AssignTask", &task);
    out.message(
        "AssignTask.constrained",
        &AssignTask {
            constraint: Some(schema()),
            ..task.clone()
        },
    );
    let code = Code::TooManyTasks.to_string();
    out.message("AssignTask.Error", &AssignTaskError { task_id, code });
    let tokens = TOKENS.to_vec();
    out.message(
        "StreamTokens",
        &StreamTokens {
            task_id,
            first_position: 0,
            tokens,
        },
    );
    let encoded = Bytes(transcript().encode());
    out.message(
        "DeliverTranscript",
        &DeliverTranscript {
            task_id,
            transcript: encoded,
        },
    );
    out.message(
        "DeliverTranscript.Success",
        &DeliverTranscriptSuccess { task_id },
    );
    let code = Code::TranscriptNotMatchingTask.to_string();
    out.message(
        "DeliverTranscript.Error",
        &DeliverTranscriptError { task_id, code },
    );
    out.message("CancelTask", &CancelTask { task_id });
}

fn batch_messages(out: &mut Vectors) {
    let (root, task_id) = (root(), task().task_id);
    out.message(
        "RegisterBatch",
        &RegisterBatch {
            request_id: 7,
            root,
            task_ids: vec![task_id],
        },
    );
    out.message(
        "RegisterBatch.Success",
        &RegisterBatchSuccess { request_id: 7 },
    );
    let code = Code::BatchSpent.to_string();
    out.message(
        "RegisterBatch.Error",
        &RegisterBatchError {
            request_id: 7,
            code,
        },
    );
    let outcome = BatchOutcome {
        root,
        header_hash: HeaderHash::from_bytes([0x07; 32]),
        accepted: false,
        sample_header: HeaderHash::from_bytes([0x07; 32]),
        proof: vrf_secret().prove(&sample_input(&HeaderHash::from_bytes([0x07; 32]), &root)),
        stake_msat: 240_000,
        code: "tokens".to_owned(),
        credit_msat: 0,
        held_msat: 250_000,
    };
    out.message("BatchOutcome", &outcome);
}

fn pool_built_job_messages(out: &mut Vectors) {
    let (request_id, channel_id, root) = (8, 2, root());
    out.message(
        "RequestBatchJob",
        &RequestBatchJob {
            request_id,
            channel_id,
            root,
        },
    );
    out.message(
        "RequestBatchJob.Success",
        &RequestBatchJobSuccess {
            request_id,
            job_id: 5,
        },
    );
    let code = Code::TooManyJobs.to_string();
    out.message(
        "RequestBatchJob.Error",
        &RequestBatchJobError { request_id, code },
    );
}

fn payout_messages(out: &mut Vectors) {
    let payout_id = [0x09; 32];
    out.message(
        "RequestInvoice",
        &RequestInvoice {
            payout_id,
            amount_msat: 50_000,
        },
    );
    let bolt11 = Bytes(b"lnbcrt500n1".to_vec());
    let (pair, key) = worker();
    let payment_hash = [0x0c; 32];
    let digest = tagged_hash("dovetail/invoice", &[&payout_id, &payment_hash]);
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&Digest::from_digest(digest), &pair);
    let signature = signature.serialize();
    assert!(verify_invoice(&key, &payout_id, &payment_hash, &signature));
    let invoice = Invoice {
        payout_id,
        bolt11,
        signature,
    };
    out.message("Invoice", &invoice);
    let code = Code::Internal.to_string();
    out.message("Invoice.Error", &InvoiceError { payout_id, code });
    out.message(
        "PayoutResult",
        &PayoutResult {
            payout_id,
            paid: true,
        },
    );
}
