//! The inference worker: it runs models for a pool's clients, commits to their output in the
//! coinbase of the job it hashes, and claims the work with a share.
//!
//! The parts are public so that tests can put them together differently: a session with a
//! pool ([`session`]), the coinbase of a job ([`coinbase`]), the transcripts that wait for a claim
//! ([`transcripts`]), the way of one batch to its share ([`claim`]), jobs on our own templates ([`own`]).
//! [`worker`] wires them.

pub mod accepted;
pub mod beacon;
pub mod board;
pub mod claim;
pub mod coinbase;
pub mod config;
pub mod declarator;
pub mod downstream;
pub mod fetch;
pub mod hasher;
pub mod job;
pub mod keys;
pub mod models;
pub mod own;
pub mod page;
pub mod pool_jobs;
mod scheduler;
pub mod search;
pub mod session;
pub mod solo;
pub mod stats;
pub mod tasks;
pub mod transcripts;
pub mod wallet;
pub mod worker;
