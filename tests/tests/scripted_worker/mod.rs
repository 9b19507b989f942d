//! A worker that a test plays message by message: it registers, takes tasks, streams, delivers,
//! registers batches, declares, sets jobs and submits shares, and may lie at every step. What it does
//! not lie about it does as the real worker would.
//!
//! It stands beside the tests and not in the harness, which `cargo xtask demo` runs on and which
//! therefore knows the programs by their command lines only.

// Each test takes what it needs.
#![allow(dead_code, unused_imports)]

mod job;
mod lies;
mod wire;
mod worker;

pub(crate) use job::{Declared, Job, Share, Told, Verdict};
pub(crate) use lies::{Models, TestBatch, batch_of, honest, request, rewritten, transcript};
pub(crate) use wire::{TIME_MAX, Wire, decoded};
pub(crate) use worker::{Hostile, challenge, prove};

use dovetail_sv2::AuthorityPublicKey;
use dovetail_templates::TemplateHandle;
use dovetail_tests::scenario::AUTHORITY_PUBLIC;

/// Where a hostile worker knocks.
#[derive(Clone)]
pub(crate) struct Doors {
    /// The pool's mining port.
    pub(crate) mining: String,
    /// The job declarator.
    pub(crate) declaration: String,
    /// Its own template source.
    pub(crate) templates: TemplateHandle,
}

/// The key that the test pools' certificates are signed with.
pub(crate) fn authority() -> AuthorityPublicKey {
    AUTHORITY_PUBLIC.parse().unwrap()
}
