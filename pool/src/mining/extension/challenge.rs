//! The pool's challenge to a worker that registers: a nonce for it to sign.

use dovetail_sv2::extension::RegisterWorker;

/// A registration that waits for its proof.
#[derive(Debug)]
pub(in crate::mining) struct Registering {
    pub(super) request: RegisterWorker,
    pub(super) nonce: [u8; 32],
}
