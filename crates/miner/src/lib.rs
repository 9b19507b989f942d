//! The miner: it hashes for a pool, or solo, on its own devices and on this machine, and knows no models.
//!
//! [`current_job`] is what devices hash now. Its sources are the pool's jobs ([`pool_jobs`]), jobs on templates of
//! the miner's own node ([`declared_jobs`]), jobs that carry a batch, and [`solo`] mining. Devices connect to
//! [`firmware`]; [`pool_session`] is the connection to a pool, [`declarator_client`] the one to a job declarator.
//! A batch is only a root here: the miner commits a job to it and gives back a share. The program that uses this crate
//! knows whose work the batch is and what it earns.

pub mod coinbase;
pub mod current_job;
pub mod declarator_client;
pub mod declared_jobs;
pub mod firmware;
pub mod hasher;
pub mod job;
pub mod keys;
pub mod local_search;
pub mod open_shares;
pub mod pool_jobs;
pub mod pool_session;
pub mod search;
pub mod solo;
pub mod stats;
pub mod submitter;
pub mod template_job;
pub mod timer;
