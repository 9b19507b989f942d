//! The inference extension, `extension_type` 0x4149: a worker registers, takes tasks, streams
//! tokens, delivers transcripts, registers batches of them, and claims a batch with a share.
//! `docs/extension-0x4149.md` is its specification; this module is its encoding and its limits.

pub mod codes;
mod messages;
#[cfg(test)]
mod tests;

pub use messages::*;

use crate::connection::PAYLOAD_BYTES_DEFAULT;
use crate::handshake::HandshakeHash;
use crate::keys::{AuthorityPublicKey, SECP};
use crate::tlv::Tlv;
pub use crate::wire::Bytes;
use bitcoin::secp256k1::schnorr::Signature;
use bitcoin::secp256k1::{Keypair, Message as Digest, XOnlyPublicKey};
use dovetail_commitment::{BatchRoot, HeaderHash, PROMPT_BYTES_MAX, WorkerKey, tagged_hash};
pub use dovetail_units::KeptCredit;

/// The extension's number, in the experimental range; negotiated by extension 0x0001.
pub const EXTENSION_TYPE: u16 = 0x4149;
/// The field that claims a batch, appended to `SubmitSharesExtended`.
pub const CLAIM_FIELD_TYPE: u8 = 0x01;
/// Every sequence of the extension is this long at most: a batch has up to 64 transcripts, a chunk
/// of a stream up to 64 tokens, a registration up to 64 models.
pub const SEQUENCE_ITEMS_MAX: usize = 64;
/// The longest message from a pool to a worker: an `AssignTask` with the longest prompt, and room for its other fields,
/// among them a constraint of 16 KiB. A worker reads frames up to this length; what a worker sends fits the default.
pub const WORKER_PAYLOAD_BYTES_MAX: usize = PROMPT_BYTES_MAX + PAYLOAD_BYTES_DEFAULT;
/// The longest encoded transcript: far more than version 1 needs, so later versions fit.
pub const TRANSCRIPT_BYTES_MAX: usize = 1024;
/// The longest BOLT11 invoice; wallets make them a few hundred bytes.
pub const INVOICE_BYTES_MAX: usize = 4096;
/// An amount that the pool cannot tell now. No real one is as large.
pub const MSAT_UNKNOWN: u64 = u64::MAX;

/// The tag of the message that a worker signs to prove its key.
const REGISTER_TAG: &str = "dovetail/register";
/// The tag of the message that a worker signs to be paid.
const INVOICE_TAG: &str = "dovetail/invoice";

/// The connection that a registration is for. Whoever stands between a worker and its pool has other ones to either
/// side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// The key that signed the server's certificate: as the worker verified it, and as the pool has it.
    pub authority: AuthorityPublicKey,
    /// The connection's handshake.
    pub handshake: HandshakeHash,
}

fn register_digest(nonce: &[u8; 32], worker_key: &WorkerKey, binding: &Binding) -> Digest {
    let parts = [
        nonce,
        &worker_key.to_bytes(),
        &binding.authority.to_bytes(),
        &binding.handshake.to_bytes(),
    ];
    Digest::from_digest(tagged_hash(REGISTER_TAG, &parts.map(<[u8; 32]>::as_slice)))
}

/// The worker's answer to a challenge: a BIP-340 signature over the nonce, its own key, and the connection.
pub fn sign_registration(
    keys: &Keypair,
    nonce: &[u8; 32],
    binding: &Binding,
) -> RegisterWorkerProof {
    let digest = register_digest(nonce, &worker_key(keys), binding);
    RegisterWorkerProof {
        signature: SECP.sign_schnorr(&digest, keys).serialize(),
    }
}

/// Whether a proof answers the challenge for this worker key on this connection.
pub fn verify_registration(
    worker_key: &WorkerKey,
    nonce: &[u8; 32],
    binding: &Binding,
    proof: &RegisterWorkerProof,
) -> bool {
    let digest = register_digest(nonce, worker_key, binding);
    is_signed(worker_key, &digest, &proof.signature)
}

fn invoice_digest(payout_id: &[u8; 32], payment_hash: &[u8; 32]) -> Digest {
    Digest::from_digest(tagged_hash(INVOICE_TAG, &[payout_id, payment_hash]))
}

/// A worker's signature that this payout goes to the payment with this hash.
pub fn sign_invoice(keys: &Keypair, payout_id: &[u8; 32], payment_hash: &[u8; 32]) -> [u8; 64] {
    let digest = invoice_digest(payout_id, payment_hash);
    SECP.sign_schnorr(&digest, keys).serialize()
}

/// Whether the worker with this key wants the payout to go to the payment with this hash.
pub fn verify_invoice(
    worker_key: &WorkerKey,
    payout_id: &[u8; 32],
    payment_hash: &[u8; 32],
    signature: &[u8; 64],
) -> bool {
    let digest = invoice_digest(payout_id, payment_hash);
    is_signed(worker_key, &digest, signature)
}

fn worker_key(keys: &Keypair) -> WorkerKey {
    WorkerKey::from_bytes(keys.x_only_public_key().0.serialize())
}

fn is_signed(worker_key: &WorkerKey, digest: &Digest, signature: &[u8; 64]) -> bool {
    let Ok(key) = XOnlyPublicKey::from_slice(&worker_key.to_bytes()) else {
        return false;
    };
    let Ok(signature) = Signature::from_slice(signature) else {
        return false;
    };
    SECP.verify_schnorr(&signature, digest, &key).is_ok()
}

/// What the pool's function draws a batch's sample from: the block hash of its first admitted claim, and its root.
pub fn sample_input(header_hash: &HeaderHash, root: &BatchRoot) -> [u8; 64] {
    let mut input = [0; 64];
    input[..32].copy_from_slice(header_hash.as_bytes());
    input[32..].copy_from_slice(root.as_bytes());
    input
}

/// The field that claims `root` with a share.
pub fn claim_tlv(root: &BatchRoot) -> Tlv {
    Tlv {
        extension_type: EXTENSION_TYPE,
        field_type: CLAIM_FIELD_TYPE,
        value: root.to_bytes().to_vec(),
    }
}

/// A claim of our extension that is not a batch root; answer [`codes::Code::ClaimMalformed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim is not a 32-byte batch root")]
pub struct ClaimMalformed;

/// The batch that the fields of a share claim, if any. Fields of other extensions are passed over.
///
/// # Errors
/// A field of this extension that is unknown or is not 32 bytes long.
pub fn find_claim(fields: &[Tlv]) -> Result<Option<BatchRoot>, ClaimMalformed> {
    let mut claim = None;
    for field in fields.iter().filter(|f| f.extension_type == EXTENSION_TYPE) {
        if field.field_type != CLAIM_FIELD_TYPE {
            return Err(ClaimMalformed);
        }
        let root: [u8; 32] = field
            .value
            .as_slice()
            .try_into()
            .map_err(|_| ClaimMalformed)?;
        claim = Some(BatchRoot::from_bytes(root));
    }
    Ok(claim)
}
