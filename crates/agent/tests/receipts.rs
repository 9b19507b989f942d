//! Receipts from a synthetic share: a good one holds, and whatever is changed in it is named.

#![allow(clippy::unwrap_used)]

mod synthetic;

use bitcoin::TxOut;
use bitcoin::consensus::serialize;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_agent::{
    Question, ReceiptFile,
    receipt_file::{self, Kept, Prompt},
    verify::{Check, Known, Line, Outcome, Report, verify, verify_with},
};
use dovetail_commitment::{
    Batch, EncodedPrompt, FinishReason, ModelId, SamplingParams, TaskId, Transcript, WorkerKey,
    coinbase, output_digest, prompt_commitment,
    receipt::{Receipt, ReceiptParts},
    trace_root,
};
use dovetail_engine::{Vocabulary, tiny};
use dovetail_units::{Msat, TokenPrices};
use synthetic::{coinbase_with, pool, pool_key};

/// "yes" in bytes.
const TOKENS: [u32; 3] = [0x79, 0x65, 0x73];

/// Of "What is owed?", with the token in front of it.
const INPUT_TOKENS: u32 = 14;
/// 14 * 0.4 + 3 * 2 = 11.6 msat, rounded up.
const PRICE_MSAT: i64 = 12;

/// One way to tamper.
type Change<T> = fn(&mut T);

fn question() -> Question {
    let sampling = SamplingParams {
        temperature_milli: 700,
        top_k: 0,
        top_p_milli: 1000,
        max_tokens: 8,
    };
    Question::new(
        ModelId::from_bytes([3; 32]),
        b"What is owed?".to_vec(),
        sampling,
    )
}

/// The question's prompt as a pool encodes it for the byte tokenizer.
fn prompt(question: &Question) -> EncodedPrompt {
    let bytes = question.prompt.iter().map(|byte| u32::from(*byte));
    let tokens = [256].into_iter().chain(bytes).collect();
    EncodedPrompt::new(&question.prompt, tokens).unwrap()
}

fn pending(question: &Question) -> ReceiptFile {
    ReceiptFile::pending(question, &prompt(question), TOKENS.to_vec())
}

fn transcript(question: &Question) -> Transcript {
    Transcript {
        task_id: question.task_id,
        worker_key: WorkerKey::from_bytes([2; 32]),
        model_id: question.model_id,
        engine_version: 1,
        prompt_commitment: prompt_commitment(
            &question.salt,
            &question.stop,
            question.constraint.as_ref(),
            &prompt(question),
        ),
        sampling: question.sampling,
        seed: question.seed,
        output_tokens: u32::try_from(TOKENS.len()).unwrap(),
        output_digest: output_digest(&TOKENS),
        trace_root: trace_root(&[[9; 32]]),
        finish_reason: FinishReason::Stop,
    }
}

/// A receipt for the question's transcript.
fn parts(question: &Question) -> ReceiptParts {
    synthetic::parts(transcript(question), INPUT_TOKENS)
}

fn file() -> ReceiptFile {
    let question = question();
    let mut file = pending(&question);
    file.receipt = Some(Receipt::sign(parts(&question), &pool()));
    file
}

fn report(file: ReceiptFile) -> Report {
    verify(&Kept::File(Box::new(file)), Some(pool_key()))
}

fn outcome(report: &Report, wanted: Check) -> &Outcome {
    let line: &Line = report
        .lines
        .iter()
        .find(|line| line.check == wanted)
        .unwrap();
    &line.outcome
}

#[test]
fn a_good_receipt_holds_in_every_check_also_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    file().save(&path).unwrap();
    let kept = receipt_file::load(&path).unwrap();
    let report = verify(&kept, Some(pool_key()));
    assert!(
        report.verified && report.first_failure.is_none(),
        "{report:?}"
    );
    assert!(
        report
            .lines
            .iter()
            .all(|line| line.outcome == Outcome::Holds
                || matches!(line.check, Check::Encoding | Check::Replay)),
        "{report:?}"
    );
    assert_eq!(report.lines.len(), Check::ALL.len());
    assert_eq!(
        report.pool_key.as_deref(),
        Some(hex::encode(pool_key()).as_str())
    );
    assert_eq!(report.header_hash.unwrap().len(), 64);
    let cost = report.cost.unwrap();
    assert_eq!(cost.price_msat, Msat::new(PRICE_MSAT));
    assert_eq!((cost.input_tokens, cost.output_tokens), (INPUT_TOKENS, 3));
}

#[test]
fn a_receipt_alone_holds_but_claims_nothing_about_prompt_and_output() {
    let receipt = file().receipt.unwrap();
    let report = verify(&Kept::ReceiptOnly(Box::new(receipt)), None);
    assert!(report.verified);
    assert!(matches!(
        outcome(&report, Check::PoolKey),
        Outcome::NotChecked(_)
    ));
    assert!(matches!(
        outcome(&report, Check::Prompt),
        Outcome::NotChecked(_)
    ));
    assert_eq!(outcome(&report, Check::ProofOfWork), &Outcome::Holds);
}

#[test]
fn a_file_without_a_receipt_does_not_hold() {
    let report = report(pending(&question()));
    assert!(!report.verified);
    assert_eq!(report.first_failure, Some(Check::Format));
}

#[test]
fn any_change_to_a_signed_receipt_breaks_the_format_or_the_signature() {
    let changes: [Change<Receipt>; 17] = [
        |r| r.version = 1,
        |r| *r.transcript.last_mut().unwrap() ^= 1,
        |r| r.transcript.truncate(9),
        |r| r.leaf_proof.index ^= 1,
        |r| r.leaf_proof.count += 1,
        |r| r.leaf_proof.siblings.clear(),
        |r| r.coinbase[45] ^= 1,
        |r| r.merkle_path.clear(),
        |r| r.header[79] ^= 1,
        |r| r.share_target[0] ^= 1,
        |r| r.issued_at_unix += 1,
        |r| r.vrf_key[0] ^= 1,
        |r| r.input_tokens += 1,
        // Prices at which it would cost the same.
        |r| r.prices = TokenPrices::new(400_001, 2_000_000).unwrap(),
        |r| r.prices = TokenPrices::new(400_000, 2_000_001).unwrap(),
        |r| r.price_msat = Msat::new(11),
        |r| r.signature[0] ^= 1,
    ];
    for (n, change) in changes.iter().enumerate() {
        let mut file = file();
        change(file.receipt.as_mut().unwrap());
        let report = report(file);
        let first = report.first_failure;
        assert!(
            matches!(first, Some(Check::Format | Check::Signature)),
            "change {n}: {first:?}"
        );
        assert!(!report.verified && report.header_hash.is_none());
    }
}

#[test]
fn a_receipt_by_another_key_is_not_the_pools() {
    let stranger = Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[9; 32]).unwrap());
    let question = question();
    let mut file = pending(&question);
    file.receipt = Some(Receipt::sign(parts(&question), &stranger));
    assert_eq!(report(file).first_failure, Some(Check::PoolKey));
}

/// Even a pool that signs it cannot make a broken chain hold.
#[test]
fn each_broken_link_is_named_although_the_pool_signed_it() {
    fn recommitted(p: &mut ReceiptParts, outputs: Vec<TxOut>) {
        p.coinbase = serialize(&coinbase_with(outputs));
    }
    let changes: [(Change<ReceiptParts>, Check); 13] = [
        (
            |p| recommitted(p, vec![TxOut::NULL]),
            Check::BatchInCoinbase,
        ),
        (
            |p| {
                let root = Batch::new(vec![p.transcript.leaf()]).unwrap().root();
                recommitted(p, vec![coinbase::commitment_output(root); 2]);
            },
            Check::BatchInCoinbase,
        ),
        (|p| p.transcript.output_tokens += 1, Check::LeafInBatch),
        (|p| p.leaf_proof.index = 1, Check::LeafInBatch),
        (|p| p.merkle_path.clear(), Check::CoinbaseInHeader),
        (|p| p.header[40] ^= 1, Check::CoinbaseInHeader),
        (|p| p.share_target = [0; 32], Check::ProofOfWork),
        (|p| p.merkle_path = vec![[4; 32]; 17], Check::Format),
        (|p| p.price = Msat::new(PRICE_MSAT + 1), Check::Price),
        (|p| p.price = Msat::new(PRICE_MSAT - 1), Check::Price),
        (|p| p.input_tokens = 0, Check::Price),
        (|p| p.prices = TokenPrices::FREE, Check::Price),
        // It costs as much as before.
        (|p| p.input_tokens = INPUT_TOKENS + 1, Check::InputTokens),
    ];
    for (n, (change, named)) in changes.into_iter().enumerate() {
        let question = question();
        let mut file = pending(&question);
        let mut parts = parts(&question);
        change(&mut parts);
        file.receipt = Some(Receipt::sign(parts, &pool()));
        let report = report(file);
        assert_eq!(report.first_failure, Some(named), "change {n}");
        assert!(
            matches!(outcome(&report, named), Outcome::Fails(_)),
            "change {n}"
        );
        assert!(
            matches!(outcome(&report, Check::Output), Outcome::NotChecked(_)),
            "change {n}"
        );
    }
}

#[test]
fn whatever_the_agent_changes_in_its_own_copy_is_named() {
    let changes: [(Change<ReceiptFile>, Check); 13] = [
        (|f| f.task_id = TaskId::from_bytes([0; 32]), Check::Task),
        (|f| f.model_id = ModelId::from_bytes([0; 32]), Check::Model),
        (|f| f.sampling.temperature_milli += 1, Check::Sampling),
        (|f| f.sampling.max_tokens += 1, Check::Sampling),
        (|f| f.seed[0] ^= 1, Check::Sampling),
        (|f| f.salt[0] ^= 1, Check::Prompt),
        (
            |f| f.prompt = Prompt::Text("What is paid?".into()),
            Check::Prompt,
        ),
        (|f| f.prompt_tokens[1] += 1, Check::Prompt),
        (|f| f.prompt_tokens.push(7), Check::Prompt),
        (|f| f.prompt_tokens.clear(), Check::Prompt),
        (|f| f.output_tokens[1] += 1, Check::Output),
        (|f| f.output_tokens.truncate(2), Check::Output),
        (|f| f.output_tokens.push(14), Check::Output),
    ];
    for (n, (change, named)) in changes.into_iter().enumerate() {
        let mut file = file();
        change(&mut file);
        let report = report(file);
        assert_eq!(report.first_failure, Some(named), "change {n}");
        assert_eq!(
            outcome(&report, Check::Signature),
            &Outcome::Holds,
            "change {n}"
        );
    }
}

#[test]
fn with_the_models_tokenizer_the_pool_is_held_to_its_encoding() {
    let vocabulary = Vocabulary::of_bytes(question().model_id);
    let known = Known {
        pool_key: Some(pool_key()),
        vocabulary: Some(&vocabulary),
        ..Known::default()
    };
    let verified = |file: &ReceiptFile| verify_with(&Kept::File(Box::new(file.clone())), &known);
    let good = verified(&file());
    assert!(good.verified, "{good:?}");
    assert_eq!(outcome(&good, Check::Encoding), &Outcome::Holds);
    assert!(matches!(
        outcome(&report(file()), Check::Encoding),
        Outcome::NotChecked(_)
    ));

    // A pool that gave its worker another prompt, told the agent so, and signed it.
    let question = question();
    let other = b"What is paid?".map(u32::from).to_vec();
    let other = EncodedPrompt::new(&question.prompt, other).unwrap();
    let (stop, constraint) = (&question.stop, question.constraint.as_ref());
    let lie = Transcript {
        prompt_commitment: prompt_commitment(&question.salt, stop, constraint, &other),
        ..transcript(&question)
    };
    let parts = synthetic::parts(lie, 13);
    let mut file = ReceiptFile::pending(&question, &other, TOKENS.to_vec());
    file.receipt = Some(Receipt::sign(parts, &pool()));
    let caught = verified(&file);
    assert_eq!(caught.first_failure, Some(Check::Encoding), "{caught:?}");
    assert_eq!(outcome(&caught, Check::Prompt), &Outcome::Holds);
}

#[test]
fn the_text_of_proven_tokens_is_told_from_the_model_file_and_from_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("model"), tiny::generate(1)).unwrap();
    std::fs::write(path("other"), tiny::generate(2)).unwrap();
    let question = Question {
        model_id: Vocabulary::load(path("model").as_ref()).unwrap().model_id(),
        ..question()
    };
    let mut file = pending(&question);
    file.receipt = Some(Receipt::sign(parts(&question), &pool()));
    file.save(path("good").as_ref()).unwrap();
    file.output_tokens[0] = 0x6e;
    file.save(path("bad").as_ref()).unwrap();

    let text = |file: &str, model: &str, key: [u8; 32]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_dovetail"))
            .args(["receipt", "text", &path(file), "--model-file", &path(model)])
            .args(["--pool-key", &hex::encode(key)])
            .output()
            .unwrap()
    };
    let told = text("good", "model", pool_key());
    assert!(told.status.success(), "{told:?}");
    assert_eq!(told.stdout, b"yes");
    for (file, model, key, why) in [
        ("bad", "model", pool_key(), "does not hold: output"),
        ("good", "model", [9; 32], "does not hold: pool-key"),
        ("good", "other", pool_key(), "the model file is of model"),
    ] {
        let refused = text(file, model, key);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{stderr}");
        assert!(refused.stdout.is_empty());
        assert!(stderr.contains(why), "{stderr}");
    }
}
