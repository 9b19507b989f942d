//! What a played job declarator does.

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf, TxOut};
use dovetail_sv2::messages::{
    AllocateMiningJobToken, AllocateMiningJobTokenSuccess, B064KOwned, B0255Owned,
    DeclareMiningJob, DeclareMiningJobError, DeclareMiningJobSuccess, RequestExtensions,
    Str0255Owned,
};

use super::Played;

/// What the pool is to be paid with.
pub(crate) fn payout_script() -> ScriptBuf {
    ScriptBuf::from_bytes([vec![0x00, 0x14], vec![7; 20]].concat())
}

/// Gives a token with these outputs.
pub(crate) async fn give_token(declarator: &mut Played, outputs: Vec<u8>) {
    let mut frame = declarator.reader.read().await.unwrap();
    // Whoever knows no extension discards the question.
    if frame.is::<RequestExtensions>() {
        frame = declarator.reader.read().await.unwrap();
    }
    let (allocate, _) = frame.decode::<AllocateMiningJobToken>().unwrap();
    let token = AllocateMiningJobTokenSuccess {
        request_id: allocate.request_id,
        mining_job_token: B0255Owned::new(vec![1, 2]).unwrap(),
        coinbase_outputs: B064KOwned::new(outputs).unwrap(),
    };
    declarator.send(&token).await;
}

/// One output of a script.
pub(crate) fn pays(script_pubkey: ScriptBuf) -> Vec<u8> {
    let value = Amount::ZERO;
    serialize(&vec![TxOut {
        value,
        script_pubkey,
    }])
}

/// Gives a token, and takes the declaration.
pub(crate) async fn declaration(declarator: &mut Played) -> DeclareMiningJob {
    give_token(declarator, pays(payout_script())).await;
    declarator.expect().await
}

pub(crate) async fn accept_declaration(declarator: &mut Played, declared: &DeclareMiningJob) {
    let success = DeclareMiningJobSuccess {
        request_id: declared.request_id,
        new_mining_job_token: B0255Owned::new(vec![3, 4]).unwrap(),
    };
    declarator.send(&success).await;
}

pub(crate) async fn refuse_declaration(
    declarator: &mut Played,
    declared: &DeclareMiningJob,
    code: &str,
) {
    let error = DeclareMiningJobError {
        request_id: declared.request_id,
        error_code: Str0255Owned::try_from(code).unwrap(),
        error_details: B064KOwned::new(Vec::new()).unwrap(),
    };
    declarator.send(&error).await;
}
