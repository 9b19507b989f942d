//! The test vectors of extension 0x4149, `docs/extension-0x4149-vectors.txt`: made from the code here, and
//! held against the file, so that neither goes stale. To write the file anew after a deliberate change:
//! `DOVETAIL_WRITE_VECTORS=1 cargo test -p dovetail-tests --test extension_vectors`.

#![allow(clippy::unwrap_used)]

mod vectors;

use bitcoin::consensus::serialize;
use bitcoin::secp256k1::{Keypair, Message as Digest, SECP256K1, SecretKey};
use dovetail_audit::{Stake, WeighedLeaf, sample};
use dovetail_commitment::coinbase::commitment_output;
use dovetail_commitment::{
    Batch, BatchRoot, Constraint, EncodedPrompt, FinishReason, Form, HeaderHash, LeafHash, ModelId,
    SamplingParams, StopSequences, TaskId, Transcript, WorkerKey, output_digest, prompt_commitment,
    tagged_hash, trace_root,
};
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::*;
use dovetail_sv2::messages::{B032Owned, SubmitSharesExtended};
use dovetail_sv2::{Frame, HandshakeHash};
use dovetail_tests::scenario::AUTHORITY_PUBLIC;
use dovetail_units::Msat;
use dovetail_vrf::VrfSecret;

use vectors::Vectors;

/// The secret key 3, whose public key is the first of BIP-340's own vectors.
fn worker() -> (Keypair, WorkerKey) {
    let mut secret = [0; 32];
    secret[31] = 3;
    let pair = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&secret).unwrap());
    let key = WorkerKey::from_bytes(pair.x_only_public_key().0.serialize());
    (pair, key)
}

const TEXT: &[u8] = b"why is the sky blue?";
const PROMPT_TOKENS: [u32; 4] = [256, 119, 104, 70_001];

fn task() -> AssignTask {
    AssignTask {
        task_id: TaskId::from_bytes([0x01; 32]),
        model_id: ModelId::from_bytes([0x03; 32]),
        prompt: EncodedPrompt::new(TEXT, PROMPT_TOKENS.to_vec()).unwrap(),
        salt: [0x04; 32],
        sampling: SamplingParams {
            temperature_milli: 700,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 64,
        },
        stop: StopSequences::new(vec![b"\n\n".to_vec(), b"END".to_vec()]).unwrap(),
        constraint: None,
        seed: [0x05; 32],
        deadline_ms: 600_000,
    }
}

fn constraint(form: Form) -> Constraint {
    Constraint::for_guide("llguidance-1.9.1+1", form).unwrap()
}

fn schema() -> Constraint {
    constraint(Form::JsonSchema(r#"{"type":"object"}"#.to_owned()))
}

const TOKENS: [u32; 3] = [104, 105, 70_000];

fn transcript() -> Transcript {
    let task = task();
    Transcript {
        task_id: task.task_id,
        worker_key: worker().1,
        model_id: task.model_id,
        engine_version: 1,
        prompt_commitment: prompt_commitment(&task.salt, &task.stop, None, &task.prompt),
        sampling: task.sampling,
        seed: task.seed,
        output_tokens: 3,
        output_digest: output_digest(&TOKENS),
        trace_root: trace_root(&[state_digest()]),
        finish_reason: FinishReason::Stop,
    }
}

/// Four positions of a model of two dimensions: the end token's is one of them.
fn state_bytes() -> Vec<u8> {
    let states: [i32; 8] = [1, -1, 65_536, -65_536, 0, 7, i32::MAX, i32::MIN];
    states
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn state_digest() -> [u8; 32] {
    tagged_hash("dovetail/trace", &[&state_bytes()])
}

fn leaf(n: u8) -> LeafHash {
    LeafHash::from_bytes([n; 32])
}

fn root() -> BatchRoot {
    Batch::new(vec![transcript().leaf()]).unwrap().root()
}

fn hashes(out: &mut Vectors) {
    out.heading("Tagged hashes of the three bytes \"abc\"");
    for tag in [
        "transcript",
        "branch",
        "batch",
        "trace",
        "text",
        "encoded-prompt",
        "output",
        "sample",
        "register",
        "handshake",
        "invoice",
    ] {
        let tag = format!("dovetail/{tag}");
        out.hex(&format!("tagged_hash({tag})"), tagged_hash(&tag, &[b"abc"]));
    }
}

fn prompts(out: &mut Vectors) {
    let task = task();
    out.heading(
        "The commitment to a prompt: salt, encoded stop sequences, encoded constraint, digest of the text, tokens",
    );
    out.hex("text", TEXT);
    out.hex("text_digest", task.prompt.text().as_bytes());
    out.text("prompt_tokens", "256, 119, 104, 70001");
    out.hex("prompt_tokens.packed", task.prompt.packed_tokens());
    out.hex("salt", task.salt);
    out.hex("stop.none.encoded", StopSequences::default().encode());
    let none = prompt_commitment(&task.salt, &StopSequences::default(), None, &task.prompt);
    out.hex("stop.none.prompt_commitment", none.as_bytes());
    out.hex("stop.two.encoded", task.stop.encode());
    let two = prompt_commitment(&task.salt, &task.stop, None, &task.prompt);
    out.hex("stop.two.prompt_commitment", two.as_bytes());

    out.heading(
        "Constraints: a schema, a regular expression, a choice, and the commitment with one",
    );
    let encoded = [
        ("constraint.schema", schema()),
        (
            "constraint.regex",
            constraint(Form::Regex("[0-9]+".to_owned())),
        ),
        (
            "constraint.choice",
            constraint(Form::Choice(vec!["yes".to_owned(), "no".to_owned()])),
        ),
    ];
    out.hex("constraint.none.encoded", Constraint::encode_optional(None));
    for (name, constraint) in &encoded {
        out.hex(&format!("{name}.encoded"), constraint.encode());
        let commitment = prompt_commitment(&task.salt, &task.stop, Some(constraint), &task.prompt);
        out.hex(&format!("{name}.prompt_commitment"), commitment.as_bytes());
    }

    out.heading("The digest of output tokens");
    out.text("tokens", "104, 105, 70000");
    out.hex("output_digest", output_digest(&TOKENS));
    out.hex("output_digest.no_tokens", output_digest(&[]));

    out.heading(
        "The trace: a digest of hidden states, then roots of one to three digests and of none",
    );
    out.text(
        "states",
        "[1, -1], [65536, -65536], [0, 7], [2147483647, -2147483648]",
    );
    out.hex("states.encoded", state_bytes());
    out.hex("digest", state_digest());
    let digests = [state_digest(), [0x11; 32], [0x12; 32]];
    out.hex("digest.second", digests[1]);
    out.hex("digest.third", digests[2]);
    for count in [1, 2, 3] {
        out.hex(
            &format!("trace_root.{count}"),
            trace_root(&digests[..count]),
        );
    }
    out.hex("trace_root.0", trace_root(&[]));
}

fn transcripts(out: &mut Vectors) {
    let transcript = transcript();
    out.heading("A transcript, field by field, and its leaf");
    out.hex("version", [1]);
    out.hex("task_id", transcript.task_id.as_bytes());
    out.hex("worker_key", transcript.worker_key.as_bytes());
    out.hex("model_id", transcript.model_id.as_bytes());
    out.hex("engine_version", transcript.engine_version.to_le_bytes());
    out.hex("prompt_commitment", transcript.prompt_commitment.as_bytes());
    out.hex("sampling", transcript.sampling.encode());
    out.hex("seed", transcript.seed);
    out.hex("output_tokens", transcript.output_tokens.to_le_bytes());
    out.hex("output_digest", transcript.output_digest);
    out.hex("trace_root", transcript.trace_root);
    out.hex("finish_reason", [transcript.finish_reason as u8]);
    out.hex("transcript", transcript.encode());
    out.hex("leaf", transcript.leaf().as_bytes());
}

fn batches(out: &mut Vectors) {
    out.heading("Batch roots of leaves 01..01, 02..02, and so on");
    for count in [1_u8, 2, 3, 5, 64] {
        let batch = Batch::new((1..=count).map(leaf).collect()).unwrap();
        out.hex(&format!("batch_root.{count}"), batch.root().as_bytes());
    }
    let batch = Batch::new((1..=5).map(leaf).collect()).unwrap();
    for index in [2_usize, 4] {
        let proof = batch.proof(index).unwrap();
        assert!(proof.verify(batch.leaves()[index], batch.root()));
        let siblings: Vec<String> = proof.siblings.iter().map(LeafHash::to_string).collect();
        out.text(
            &format!("proof.{index}_of_5.siblings"),
            &siblings.join(", "),
        );
    }
    let output = commitment_output(root());
    out.heading("The commitment to the batch of the transcript above alone");
    out.hex("root", root().as_bytes());
    out.hex("script", output.script_pubkey.as_bytes());
    out.hex("output", serialize(&output));
}

fn vrf_secret() -> VrfSecret {
    VrfSecret::from_bytes([0x06; 32]).unwrap()
}

fn audit(out: &mut Vectors) {
    let (header, secret) = (HeaderHash::from_bytes([0x07; 32]), vrf_secret());
    let input = sample_input(&header, &root());
    let (output, proof) = secret.evaluate(&input);
    out.heading(
        "The pool's VRF, with the key file 06..06, for the header hash 07..07 and the batch above",
    );
    out.hex("vrf.public_key", secret.public_key().to_bytes());
    out.hex("vrf.input", input);
    out.hex("vrf.proof", proof.to_bytes());
    out.hex("vrf.output", output.to_bytes());
    let output = output.seed();
    out.heading("Leaves 00..00, 01..01, .. worth so many msat, and the samples drawn of them with that output");
    let leaves: Vec<WeighedLeaf> = [1, 20, 300, 4_000, 50_000]
        .into_iter()
        .zip(0..)
        .map(|(value, n)| WeighedLeaf {
            leaf: LeafHash::from_bytes([n; 32]),
            value: Msat::new(value),
        })
        .collect();
    for (n, leaf) in leaves.iter().enumerate() {
        let parts: [&[u8]; 2] = [&output, leaf.leaf.as_bytes()];
        out.hex(&format!("draw.{n}"), tagged_hash("dovetail/sample", &parts));
        out.text(&format!("value.{n}"), &leaf.value.get().to_string());
    }
    for held in [0, 1, 600, 10_000, 1_000_000] {
        let stake = Stake::new(Msat::new(held));
        let thresholds = leaves
            .iter()
            .map(|leaf| stake.probability(leaf.value).threshold().to_string());
        let thresholds: Vec<String> = thresholds.collect();
        out.text(&format!("thresholds(H={held})"), &thresholds.join(", "));
        let drawn = sample(&output, &leaves, stake);
        let drawn: Vec<String> = drawn.iter().map(ToString::to_string).collect();
        out.text(&format!("sample(H={held})"), &drawn.join(", "));
    }
}

fn claim(out: &mut Vectors) {
    let share = SubmitSharesExtended {
        channel_id: 2,
        sequence_number: 9,
        job_id: 5,
        nonce: 0x0102_0304,
        ntime: 0x6700_0000,
        version: 0x2000_0000,
        extranonce: B032Owned::new(vec![0x0a; 8]).unwrap(),
    };
    out.heading("The claim: a field behind SubmitSharesExtended");
    let field = claim_tlv(&root());
    let mut bytes = Vec::new();
    dovetail_sv2::tlv::append_tlv(&mut bytes, &field).unwrap();
    out.hex("claim", bytes);
    out.frame(
        "SubmitSharesExtended",
        &Frame::with_tlv(&share, &field).unwrap(),
    );
}

fn registration(out: &mut Vectors) -> RegisterWorkerProof {
    let (pair, key) = worker();
    let nonce = [0x08; 32];
    let binding = Binding {
        authority: AUTHORITY_PUBLIC.parse().unwrap(),
        handshake: HandshakeHash::from_bytes([0x0b; 32]),
    };
    let (authority, handshake) = (binding.authority.to_bytes(), [0x0b; 32]);
    let signed: [&[u8]; 4] = [&nonce, key.as_bytes(), &authority, &handshake];
    let digest = tagged_hash("dovetail/register", &signed);
    // Deterministic for the vector; any signature of the key over the digest is good.
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&Digest::from_digest(digest), &pair);
    let proof = RegisterWorkerProof {
        signature: signature.serialize(),
    };
    assert!(verify_registration(&key, &nonce, &binding, &proof));
    out.heading("The proof of a worker key: secret key 3, BIP-340 with auxiliary randomness of zeros left out");
    out.hex("worker_key", key.as_bytes());
    out.hex("nonce", nonce);
    out.hex("authority_key", authority);
    out.hex("handshake", handshake);
    out.hex("digest", digest);
    out.hex("signature", proof.signature);
    proof
}

fn messages(out: &mut Vectors, proof: &RegisterWorkerProof) {
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

#[test]
fn the_vectors_are_what_the_code_gives() {
    let mut out = Vectors(
        "Test vectors of extension 0x4149, version 1: docs/extension-0x4149.md says what they are.\n\
         Lines are `name = value`; bytes are in hexadecimal, in the order of the wire. A test of the source\n\
         makes this file, so it is what the pool and the worker do.\n"
            .to_owned(),
    );
    hashes(&mut out);
    prompts(&mut out);
    transcripts(&mut out);
    batches(&mut out);
    audit(&mut out);
    claim(&mut out);
    let proof = registration(&mut out);
    messages(&mut out, &proof);
    let path = dovetail_tests::root()
        .join("docs")
        .join("extension-0x4149-vectors.txt");
    if std::env::var_os("DOVETAIL_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &out.0).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (ours, theirs)) in (1..).zip(out.0.lines().zip(file.lines())) {
        assert_eq!(ours, theirs, "line {line} of {}", path.display());
    }
    assert_eq!(
        out.0.lines().count(),
        file.lines().count(),
        "{}",
        path.display()
    );
}

/// Every error code of the extension stands in its document.
#[test]
fn the_document_names_every_error_code() {
    let docs = dovetail_tests::root()
        .join("docs")
        .join("extension-0x4149.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    for code in Code::ALL {
        assert!(
            docs.contains(&format!("| `{code}` |")),
            "{code} is not in the table"
        );
    }
}
