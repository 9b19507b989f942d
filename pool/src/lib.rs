//! The pool daemon: Sv2 mining with extension 0x4149, the audit, the ledger, payouts, and the
//! agents' gRPC interface, wired together.
//!
//! Reading order for a share: `mining::connection` takes the frame, `mining::shares` judges the share, `blocks`
//! publishes a block that it solves, `claims` audits what it claims (`validation` does the replays) and commits it
//! to the ledger, `mining::shares` answers. For a task: `agents` translates the request, `tasks` does the rest.

mod accepted_shares;
mod account;
mod agent_keys;
mod agents;
mod assignment;
mod blocks;
mod chores;
mod claims;
pub mod config;
mod credit;
mod device_work;
mod embedded_declarator;
mod grpc_listener;
mod header_spaces;
mod keys;
mod known_accounts;
mod ledger_command;
mod lightning_command;
mod mailboxes;
mod mining;
mod models;
mod one_each;
mod payouts;
mod records;
mod rewards;
mod run;
mod share_pace;
mod shared;
mod solvency;
mod subsidy;
mod tasks;
#[cfg(test)]
mod test_support;
mod validation;

pub use account::print_account;
pub use agent_keys::{KeysCommand, manage_keys};
pub use blocks::print_coinbase_only;
pub use claims::print_audits;
pub use config::Config;
pub use device_work::print_devices;
pub use ledger_command::{migrate_ledger, print_ledger_audit};
pub use lightning_command::{LightningCommand, operate_wallet};
pub use payouts::command::{print_payouts, resolve_payout};
pub use run::{Addresses, run};
pub use subsidy::print_subsidy;
pub use validation::{ValidatorOptions, serve_validator};
