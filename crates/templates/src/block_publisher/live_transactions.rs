//! The transactions of the templates whose jobs may still be solved: with them a solved block can be built whole, for a
//! source that has forgotten its template.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::error::TemplateError;
use crate::handle::TemplateHandle;
use crate::snapshot::WorkSnapshot;

/// Templates that are remembered. Channels take shares of 64 earlier jobs, each of another template. Transactions are held
/// once, and consecutive templates are nearly the same: a few megabytes in all, 4 MB a template if none is like another.
const TEMPLATES_MAX: usize = 72;

/// A template's transactions, serialised, in their order, without the coinbase.
pub(super) type TransactionList = Arc<[Arc<[u8]>]>;

#[derive(Debug, Default)]
pub(super) struct LiveTransactions {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The newest last.
    templates: VecDeque<Entry>,
    /// The one copy of each transaction.
    known: HashSet<Arc<[u8]>>,
}

#[derive(Debug)]
struct Entry {
    template_id: u64,
    prev_hash: [u8; 32],
    transactions: TransactionList,
}

impl LiveTransactions {
    /// Fetches the transactions of each template as it comes, until `shutdown`.
    pub(super) async fn follow(&self, templates: TemplateHandle, shutdown: CancellationToken) {
        let mut work = templates.subscribe();
        work.mark_changed();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = work.changed() => if changed.is_err() {
                    return;
                },
            }
            let newest = work.borrow_and_update().clone();
            if let Some(newest) = newest
                && let Err(error) = self.fetch(&templates, &newest).await
            {
                // A block of it can still go as its solution.
                tracing::debug!(template_id = newest.template_id(), %error, "a template's transactions are not known");
            }
        }
    }

    async fn fetch(
        &self,
        templates: &TemplateHandle,
        work: &WorkSnapshot,
    ) -> Result<(), TemplateError> {
        let id = work.template_id();
        let transactions = match work.template.merkle_path.as_slice().is_empty() {
            true => Vec::new(),
            false => templates.transaction_data(id).await?.transactions,
        };
        self.keep(id, work.prev_hash(), transactions);
        Ok(())
    }

    /// The transactions of a template, if they are known.
    pub(super) fn of(&self, template_id: u64) -> Option<TransactionList> {
        let entries = self.lock();
        let entry = entries
            .templates
            .iter()
            .find(|entry| entry.template_id == template_id)?;
        Some(Arc::clone(&entry.transactions))
    }

    fn keep(&self, template_id: u64, prev_hash: [u8; 32], transactions: Vec<Vec<u8>>) {
        let mut entries = self.lock();
        let entries = &mut *entries;
        // Jobs of the tip before are stale, but a share of one may be on its way.
        let before = entries.templates.iter().rev().map(|entry| entry.prev_hash);
        let before = before.into_iter().find(|tip| *tip != prev_hash);
        entries
            .templates
            .retain(|entry| entry.prev_hash == prev_hash || Some(entry.prev_hash) == before);
        if entries.templates.len() >= TEMPLATES_MAX {
            entries.templates.pop_front();
        }
        let known = &mut entries.known;
        let transactions = transactions
            .into_iter()
            .map(|raw| {
                if let Some(held) = known.get(raw.as_slice()) {
                    return Arc::clone(held);
                }
                let raw: Arc<[u8]> = raw.into();
                known.insert(Arc::clone(&raw));
                raw
            })
            .collect();
        entries.templates.push_back(Entry {
            template_id,
            prev_hash,
            transactions,
        });
        // What no template holds any more is held here alone.
        known.retain(|raw| Arc::strong_count(raw) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_held_once_and_as_long_as_a_template_of_the_last_two_tips_has_it() {
        let live = LiveTransactions::default();
        let (shared, lone) = (vec![1; 100], vec![2; 100]);
        live.keep(1, [1; 32], vec![shared.clone(), lone.clone()]);
        live.keep(2, [1; 32], vec![shared.clone()]);
        let (first, second) = (live.of(1).unwrap(), live.of(2).unwrap());
        assert!(Arc::ptr_eq(&first[0], &second[0]));
        drop((first, second));
        live.keep(3, [2; 32], vec![shared.clone()]);
        assert!(live.of(1).is_some(), "its jobs went stale just now");
        live.keep(4, [3; 32], vec![shared]);
        assert!(live.of(1).is_none() && live.of(2).is_none());
        assert!(live.of(3).is_some() && live.of(4).is_some());
        assert_eq!(live.lock().known.len(), 1, "{lone:?} is not held");
    }

    #[test]
    fn no_more_templates_of_a_tip_are_held_than_have_live_jobs() {
        let live = LiveTransactions::default();
        for id in 0..=TEMPLATES_MAX as u64 {
            live.keep(id, [1; 32], vec![id.to_le_bytes().to_vec()]);
        }
        assert!(live.of(0).is_none());
        assert_eq!(live.lock().templates.len(), TEMPLATES_MAX);
        assert_eq!(live.lock().known.len(), TEMPLATES_MAX);
    }
}
