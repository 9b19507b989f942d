//! Block templates: where they come from and how blocks go back.
//!
//! What is published goes through the [`block_publisher`], which loses no block.
//!
//! Three sources stand behind one [`TemplateHandle`]: an embedded regtest chain, Bitcoin Core over
//! IPC, and an Sv2 Template Provider over Noise. The module [`tdp_server`] serves any of them as a
//! Template Provider. This crate builds no jobs, knows no channels and judges no shares; its rules
//! come from the Template Distribution Protocol (Sv2 specification 7) and from BIPs 34, 113 and 141.

mod block_door;
pub mod block_publisher;
pub mod chain;
mod config;
#[cfg(test)]
mod core_tests;
mod error;
mod freshness;
mod handle;
mod readiness;
mod request;
mod rewards;
mod snapshot;
mod source;
mod subsidy;
pub mod tdp_server;
#[cfg(test)]
mod test_work;
#[cfg(test)]
mod tests;
mod wire;

pub use block_door::ChainCoinbase;
pub use chain::{BlockRejection, ChainError, DEFAULT_BITS, RegtestChain};
pub use config::{SinkConfig, SourceConfig, TemplatesConfig};
pub use error::{TemplateError, Unreachable};
pub use handle::TemplateHandle;
pub use readiness::Readiness;
pub use request::TransactionData;
pub use rewards::{Payout, PayoutKeys, PayoutList, payout_script, subsidy_at, tell_payout};
pub use snapshot::{WorkSnapshot, height_of};
pub use source::{COINBASE_BYTES_ADDITIONAL, open_sinks, start, start_on};
