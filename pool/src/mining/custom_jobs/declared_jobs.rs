//! Declared jobs: what the declarator accepted lies in the ledger, under the token.

use std::sync::Arc;

use dovetail_jd::token::{JobToken, declared_content};
use dovetail_jd::transactions::{BlockTransaction, merkle_path};
use dovetail_ledger::DeclaredJob;

use super::accepted_jobs::{AcceptedJob, DeclaredBlock};
use super::codes::{BAD_TOKEN, NOT_YET};
use super::not_yet;
use crate::mining::connection::Connection;
use crate::mining::fields::StandardCode;

impl Connection {
    /// The declaration behind a token, if it is this account's and as the declarator accepted it.
    pub(super) async fn declared(
        &self,
        token: &JobToken,
        account: &str,
    ) -> Result<DeclaredJob, StandardCode> {
        let shared = &self.shared;
        let declared = shared
            .ledger
            .declared_job(&token.to_bytes())
            .await
            .map_err(|error| not_yet(&error))?
            .ok_or(BAD_TOKEN)?;
        let content = declared_content(&declared, &shared.payout);
        self.check_token(token, account, &content)?;
        Ok(declared)
    }

    /// A declared job with its transactions: those in memory, and the rest from the ledger.
    pub(super) async fn declared_job(
        &self,
        declared: DeclaredJob,
    ) -> Result<AcceptedJob, StandardCode> {
        let store = &self.shared.transactions;
        let mut found: Vec<Option<Arc<BlockTransaction>>> =
            declared.wtxids.iter().map(|id| store.get(id)).collect();
        let missing: Vec<[u8; 32]> = declared
            .wtxids
            .iter()
            .zip(&found)
            .filter(|(_, known)| known.is_none())
            .map(|(wtxid, _)| *wtxid)
            .collect();
        let ledger = &self.shared.ledger;
        let mut read = ledger
            .declared_transactions(&missing)
            .await
            .map_err(|error| not_yet(&error))?;
        for (wtxid, place) in declared.wtxids.iter().zip(&mut found) {
            if let Some(raw) = read.remove(wtxid) {
                // The ids are under the MAC, and the bytes have to have them.
                *place = BlockTransaction::parse(raw)
                    .filter(|transaction| transaction.wtxid == *wtxid)
                    .map(|transaction| store.keep(transaction));
            }
        }
        let transactions: Option<Vec<Arc<BlockTransaction>>> = found.into_iter().collect();
        let transactions = transactions.ok_or_else(|| {
            tracing::error!("the ledger lacks transactions of a declared job");
            NOT_YET
        })?;
        Ok(AcceptedJob {
            block: Some(Arc::new(DeclaredBlock {
                path: merkle_path(&declared.txids),
                transactions,
            })),
            batch_root: declared.batch_root,
            pool_value_sat: declared.pool_value_sat,
        })
    }
}
