//! A worker that a test plays message by message: it registers, takes tasks, streams, delivers,
//! registers batches, declares, sets jobs and submits shares, and may lie at every step. What it does
//! not lie about it does as the real worker would.
//!
//! It stands beside the tests and not in the harness, which `cargo xtask demo` runs on and which
//! therefore knows the programs by their command lines only.

// Each test takes what it needs.
#![allow(dead_code, unused_imports)]

mod forgery;
mod header_space;
mod job;
mod wire;
mod worker;

pub(crate) use forgery::{Models, TestBatch, batch_of, honest, request, rewritten, transcript};
pub(crate) use job::{Declared, Job, Share, Told, Verdict};
pub(crate) use wire::{TIME_MAX, Wire, decoded};
pub(crate) use worker::{ScriptedWorker, challenge, prove};

use dovetail_sv2::AuthorityPublicKey;
use dovetail_templates::TemplateHandle;
use dovetail_tests::scenario::AUTHORITY_PUBLIC;

/// Where a scripted worker connects.
#[derive(Clone)]
pub(crate) struct Endpoints {
    /// The pool's mining port.
    pub(crate) mining: String,
    /// The job declarator.
    pub(crate) declaration: String,
    /// Its own template source.
    pub(crate) templates: TemplateHandle,
}

/// Something was refused with this code.
#[track_caller]
pub(crate) fn assert_refused<T>(result: Result<T, String>, code: &str) {
    assert_eq!(result.err().as_deref(), Some(code));
}

/// The key that the test pools' certificates are signed with.
pub(crate) fn authority() -> AuthorityPublicKey {
    AUTHORITY_PUBLIC.parse().unwrap()
}
