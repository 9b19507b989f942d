//! What all connections of a declarator share.

use dovetail_sv2::IdentityRules;
use dovetail_templates::block_publisher::BlockPublisher;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::rules::Rules;
use crate::token_book::TotalRate;
use crate::transactions::TransactionStore;

/// Its parts look after themselves: none is locked while another is.
pub(crate) struct Shared {
    /// Whom miners may declare jobs for.
    pub(crate) identities: IdentityRules,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    pub(crate) total: TotalRate,
    pub(crate) transactions: TransactionStore,
    /// Where solved blocks go.
    pub(crate) blocks: BlockPublisher,
    /// Connections.
    pub(crate) tracker: TaskTracker,
}
