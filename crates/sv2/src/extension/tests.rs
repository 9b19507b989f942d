//! The encoding against its specification, and against everything else.

use super::codes::Code;
use super::*;
use crate::frame::{DecodeError, Frame, Message};
use crate::keys::AuthorityKeys;
use crate::messages::{B032Owned, SubmitSharesExtended};
use dovetail_commitment::{
    Constraint, EncodedPrompt, Form, ModelId, PROMPT_TOKENS_MAX, SamplingParams, StopSequences,
    TaskId, text_digest,
};
use dovetail_vrf::{VrfProof, VrfSecret};
use proptest::prelude::*;

fn share() -> SubmitSharesExtended {
    SubmitSharesExtended {
        channel_id: 1,
        sequence_number: 2,
        job_id: 3,
        nonce: 4,
        ntime: 5,
        version: 6,
        extranonce: B032Owned::new(vec![7; 8]).unwrap(),
    }
}

/// These as the tokens of one text.
fn prompt(tokens: Vec<u32>) -> EncodedPrompt {
    EncodedPrompt::new(b"why is the sky blue?", tokens).unwrap()
}

fn task() -> AssignTask {
    AssignTask {
        task_id: TaskId::from_bytes([1; 32]),
        model_id: ModelId::from_bytes([2; 32]),
        prompt: prompt(vec![256, 119, 104, 121, 70_000]),
        salt: [3; 32],
        sampling: SamplingParams {
            temperature_milli: 700,
            top_k: 40,
            top_p_milli: 950,
            max_tokens: 256,
        },
        stop: StopSequences::new(vec![b"\n\n".to_vec(), b"END".to_vec()]).unwrap(),
        constraint: Some(
            Constraint::for_guide("guide-1", Form::JsonSchema("{\"a\":1}".to_owned())).unwrap(),
        ),
        seed: [4; 32],
        deadline_ms: 60_000,
    }
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let frame = Frame::new(message).unwrap();
    let (decoded, tail) = frame.decode::<M>().unwrap();
    assert_eq!(&decoded, message);
    assert!(tail.is_empty());
    for cut in 0..frame.payload.len() {
        let mut short = frame.clone();
        short.payload.truncate(cut);
        assert!(short.decode::<M>().is_err(), "{cut} bytes decoded");
    }
}

#[test]
fn messages_come_back_whole_and_never_from_a_part() {
    round_trip(&task());
    round_trip(&RegisterWorker {
        worker_key: WorkerKey::from_bytes([1; 32]),
        models: vec![ModelId::from_bytes([2; 32]); 3],
        max_tasks: 2,
        keep_msat: KeptCredit::new(KeptCredit::MAX).unwrap(),
    });
    round_trip(&StreamTokens {
        task_id: TaskId::from_bytes([1; 32]),
        first_position: 9,
        tokens: vec![1, 2, 3],
    });
    round_trip(&BatchOutcome {
        root: BatchRoot::from_bytes([1; 32]),
        header_hash: dovetail_commitment::HeaderHash::from_bytes([2; 32]),
        accepted: false,
        sample_header: HeaderHash::from_bytes([5; 32]),
        proof: VrfProof::from_bytes([3; VrfProof::BYTES]),
        stake_msat: 40_000,
        code: Code::InferenceMismatch.to_string(),
        credit_msat: 0,
        held_msat: MSAT_UNKNOWN,
    });
    round_trip(&RequestBatchJob {
        request_id: 8,
        channel_id: 2,
        root: BatchRoot::from_bytes([1; 32]),
    });
    round_trip(&RequestBatchJobSuccess {
        request_id: 8,
        job_id: 1 << 31,
    });
    round_trip(&RequestBatchJobError {
        request_id: 8,
        code: Code::TooManyJobs.to_string(),
    });
    round_trip(&Invoice {
        payout_id: [1; 32],
        bolt11: Bytes(b"lnbcrt1".to_vec()),
        signature: [6; 64],
    });
    round_trip(&RegisterWorkerSuccess {
        vrf_key: VrfSecret::from_bytes([1; 32]).unwrap().public_key(),
    });
}

#[test]
fn a_registration_that_keeps_more_than_it_may_does_not_decode() {
    let register = RegisterWorker {
        worker_key: WorkerKey::from_bytes([1; 32]),
        models: Vec::new(),
        max_tasks: 2,
        keep_msat: KeptCredit::new(KeptCredit::MAX).unwrap(),
    };
    let mut frame = Frame::new(&register).unwrap();
    assert_eq!(frame.decode::<RegisterWorker>().unwrap().0, register);
    let end = frame.payload.len();
    frame.payload[end - 8..].copy_from_slice(&(KeptCredit::MAX + 1).to_le_bytes());
    assert!(frame.decode::<RegisterWorker>().is_err());
}

#[test]
fn a_pools_vrf_key_that_is_none_does_not_decode() {
    let mut frame = Frame::new(&RegisterWorkerSuccess {
        vrf_key: VrfSecret::from_bytes([1; 32]).unwrap().public_key(),
    })
    .unwrap();
    // The identity, by which anything could be proven.
    frame.payload.fill(0);
    assert!(frame.decode::<RegisterWorkerSuccess>().is_err());
}

#[test]
fn a_task_keeps_its_layout() {
    let bytes = task().write().unwrap();
    assert_eq!(
        bytes.len(),
        32 + 32 + (32 + 3 + 20) + 32 + 16 + (1 + 3 + 4) + (1 + 1 + 7 + 2 + 7) + 32 + 4
    );
    let text = text_digest(b"why is the sky blue?");
    assert_eq!(bytes[64..96], text.to_bytes());
    assert_eq!(hex::encode(&bytes[96..107]), "1400000001000077000000");
    assert_eq!(hex::encode(&bytes[115..119]), "70110100");
    assert_eq!(hex::encode(&bytes[bytes.len() - 4..]), "60ea0000");
}

#[test]
fn limits_hold_in_both_directions() {
    let many = StreamTokens {
        task_id: TaskId::from_bytes([1; 32]),
        first_position: 0,
        tokens: vec![0; SEQUENCE_ITEMS_MAX + 1],
    };
    assert!(Frame::new(&many).is_err());

    let stop_at = 32 + 32 + (32 + 3 + 20) + 32 + 16;
    for (at, value) in [(stop_at, 5), (stop_at + 1, 0), (stop_at + 1, 65)] {
        let mut frame = Frame::new(&task()).unwrap();
        frame.payload[at] = value;
        assert!(frame.decode::<AssignTask>().is_err());
    }

    let constraint_at = stop_at + 1 + 3 + 4;
    for (at, value) in [
        (constraint_at, 4),
        (constraint_at + 1, 0),
        (constraint_at + 2, b'G'),
    ] {
        let mut frame = Frame::new(&task()).unwrap();
        frame.payload[at] = value;
        assert!(frame.decode::<AssignTask>().is_err());
    }
    let mut frame = Frame::new(&task()).unwrap();
    let text_at = constraint_at + 1 + 1 + 7;
    frame.payload[text_at..text_at + 2].copy_from_slice(&0x4001_u16.to_le_bytes());
    frame.payload.resize(20_000, b' ');
    assert!(frame.decode::<AssignTask>().is_err());
}

#[test]
fn tokens_of_no_prompt_are_refused_before_memory_is_taken_for_them() {
    let length_at = 32 + 32 + 32;
    let with_length = |length: u32| {
        let mut frame = Frame::new(&task()).unwrap();
        frame.payload[length_at..length_at + 3].copy_from_slice(&length.to_le_bytes()[..3]);
        match frame.decode::<AssignTask>() {
            Err(DecodeError::Malformed { reason, .. }) => reason,
            decoded => panic!("{decoded:?}"),
        }
    };
    assert!(with_length(0).contains("no token"));
    assert!(with_length(18).contains("damaged"));
    let longest = u32::try_from(PROMPT_BYTES_MAX).unwrap();
    assert!(with_length(longest).contains("cut off"));
    assert!(with_length(longest + 4).contains("longer than"));
    assert!(with_length(0x00ff_ffff).contains("longer than"));
}

#[test]
fn the_longest_task_fits_the_limit_that_workers_read_with() {
    let mut long = task();
    long.prompt = prompt(vec![u32::MAX; PROMPT_TOKENS_MAX]);
    let schema = " ".repeat(dovetail_commitment::CONSTRAINT_BYTES_MAX);
    long.constraint = Some(Constraint::new(Form::JsonSchema(schema)).unwrap());
    let frame = Frame::new(&long).unwrap();
    assert!(frame.payload.len() > PROMPT_BYTES_MAX);
    assert!(frame.payload.len() <= WORKER_PAYLOAD_BYTES_MAX);
    assert_eq!(frame.message::<AssignTask>().unwrap(), long);
}

#[test]
fn prompts_stay_out_of_debug_output() {
    let shown = format!("{:?}", task());
    assert!(
        !shown.contains("119") && !shown.contains("END") && !shown.contains("a\":1"),
        "{shown}"
    );
}

#[test]
fn a_claim_rides_behind_a_share() {
    let root = BatchRoot::from_bytes([9; 32]);
    let frame = Frame::with_tlv(&share(), &claim_tlv(&root)).unwrap();
    let (decoded, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!(decoded, share());
    assert_eq!(find_claim(&fields), Ok(Some(root)));
    assert!(frame.channel_msg);
    assert_eq!(frame.extension_type, 0);
}

#[test]
fn a_share_without_fields_claims_nothing() {
    let frame = Frame::new(&share()).unwrap();
    let (_, fields) = frame.decode_with_tlvs::<SubmitSharesExtended>().unwrap();
    assert_eq!(find_claim(&fields), Ok(None));
}

#[test]
fn a_claim_that_is_cut_off_is_an_error_and_not_an_absent_claim() {
    let root = BatchRoot::from_bytes([9; 32]);
    let whole = Frame::with_tlv(&share(), &claim_tlv(&root)).unwrap();
    let bare = Frame::new(&share()).unwrap().payload.len();
    for cut in bare + 1..whole.payload.len() {
        let mut frame = whole.clone();
        frame.payload.truncate(cut);
        assert!(matches!(
            frame.decode_with_tlvs::<SubmitSharesExtended>(),
            Err(DecodeError::Fields { .. })
        ));
    }
}

#[test]
fn a_claim_of_the_wrong_length_or_field_is_malformed() {
    let mut field = claim_tlv(&BatchRoot::from_bytes([9; 32]));
    field.value.push(0);
    assert_eq!(find_claim(&[field.clone()]), Err(ClaimMalformed));
    field.value.truncate(32);
    field.field_type = 2;
    assert_eq!(find_claim(&[field.clone()]), Err(ClaimMalformed));
    field.extension_type = 2;
    assert_eq!(find_claim(&[field]), Ok(None));
}

fn new_keys() -> (Keypair, WorkerKey) {
    let keys = Keypair::new(&SECP, &mut bitcoin::secp256k1::rand::rngs::OsRng);
    (keys, worker_key(&keys))
}

fn binding(handshake: u8) -> Binding {
    Binding {
        authority: "9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72"
            .parse()
            .unwrap(),
        handshake: HandshakeHash::from_bytes([handshake; 32]),
    }
}

#[test]
fn a_registration_proves_one_key_for_one_nonce_pool_and_connection() {
    let (keys, key) = new_keys();
    let here = binding(1);
    let proof = sign_registration(&keys, &[1; 32], &here);
    assert!(verify_registration(&key, &[1; 32], &here, &proof));
    assert!(!verify_registration(&key, &[2; 32], &here, &proof));
    let another_connection = binding(2);
    let another_pool = Binding {
        authority: AuthorityKeys::generate().public(),
        ..here
    };
    for elsewhere in [another_connection, another_pool] {
        assert!(!verify_registration(&key, &[1; 32], &elsewhere, &proof));
    }
    for other in [new_keys().1, WorkerKey::from_bytes([0xff; 32])] {
        assert!(!verify_registration(&other, &[1; 32], &here, &proof));
    }
}

#[test]
fn an_invoice_is_of_one_key_payout_and_payment() {
    let (keys, key) = new_keys();
    let signature = sign_invoice(&keys, &[1; 32], &[2; 32]);
    assert!(verify_invoice(&key, &[1; 32], &[2; 32], &signature));
    assert!(!verify_invoice(&key, &[3; 32], &[2; 32], &signature));
    assert!(!verify_invoice(&key, &[1; 32], &[3; 32], &signature));
    assert!(!verify_invoice(
        &new_keys().1,
        &[1; 32],
        &[2; 32],
        &signature
    ));
    assert!(!verify_invoice(&key, &[1; 32], &[2; 32], &[0; 64]));
}

macro_rules! never_panics {
    ($payload:expr; $($message:ty),* $(,)?) => {$(
        let frame = Frame {
            extension_type: <$message>::EXTENSION_TYPE,
            channel_msg: false,
            message_type: <$message>::MESSAGE_TYPE,
            payload: $payload.clone(),
        };
        if let Ok((message, tail)) = frame.decode::<$message>() {
            let head = frame.payload.len() - tail.len();
            prop_assert_eq!(message.write().unwrap().len(), head);
        }
        let _ = frame.decode_with_tlvs::<$message>();
    )*};
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_as_our_messages(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        never_panics!(payload; RegisterWorker, RegisterWorkerProof, AssignTask, StreamTokens,
            DeliverTranscript, RegisterBatch, BatchOutcome, RequestBatchJob, RequestBatchJobError,
            Invoice, RegisterWorkerError);
    }

    #[test]
    fn arbitrary_bytes_never_panic_as_stock_messages(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        use crate::messages as stock;
        never_panics!(payload; stock::SetupConnection, stock::RequestExtensions,
            stock::OpenStandardMiningChannel, stock::OpenExtendedMiningChannel,
            stock::SubmitSharesStandard, stock::SubmitSharesExtended, stock::UpdateChannel,
            stock::CloseChannel, stock::SetCustomMiningJob, stock::AllocateMiningJobToken,
            stock::DeclareMiningJob, stock::ProvideMissingTransactionsSuccess,
            stock::PushSolution, stock::NewTemplate, stock::TemplateSetNewPrevHash,
            stock::RequestTransactionDataSuccess, stock::SubmitSolution);
    }

    #[test]
    fn whatever_stands_behind_a_share_comes_back_as_its_tail(tail in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut frame = Frame::new(&share()).unwrap();
        frame.payload.extend_from_slice(&tail);
        let (decoded, rest) = frame.decode::<SubmitSharesExtended>().unwrap();
        prop_assert_eq!(decoded, share());
        prop_assert_eq!(rest, &tail[..]);
    }
}
