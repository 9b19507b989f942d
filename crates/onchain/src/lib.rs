//! The pool's money on the chain: its keys, its coins, the transactions that pay miners, and what a Bitcoin node says of them.
//! It knows no ledger and keeps nothing: which coins are there is asked of the node each time, so no file of a wallet can
//! be lost, be old, or differ from the chain.
//!
//! `docs/onchain.md` is the operator's page.

mod fees;
mod keys;
mod node;
mod transaction;

pub use fees::{fee_rate_from_btc_per_kvb, fee_shares};
pub use keys::{KeysError, WalletKeys};
pub use node::{ChainTip, FoundBlock, FoundCoin, Node, NodeError, RelayFees, Taken};
pub use transaction::{
    Coin, ComposeError, Composed, Payment, Replaced, Request, compose, dust_limit,
};
