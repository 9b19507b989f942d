//! The attempts in memory, found by name, by payment hash and by LDK's payment id. Rebuilt from the files at start.

use std::collections::HashMap;

use dovetail_lightning::Hash32;

use super::{Record, State, Target};

#[derive(Debug, Default)]
pub(super) struct Index {
    records: HashMap<Hash32, Record>,
    /// Invoices' attempts by payment hash.
    by_hash: HashMap<Hash32, Vec<Hash32>>,
    /// Offers' attempts by LDK's payment id.
    by_payment: HashMap<Hash32, Hash32>,
    last_number: u64,
}

impl Index {
    pub(super) fn put(&mut self, record: Record) {
        let attempt = record.attempt;
        self.last_number = self.last_number.max(record.number);
        match (record.target, record.payment_id) {
            (Target::Invoice { payment_hash }, _) => {
                let attempts = self.by_hash.entry(payment_hash).or_default();
                if !attempts.contains(&attempt) {
                    attempts.push(attempt);
                }
            }
            (_, Some(payment_id)) => {
                self.by_payment.insert(payment_id, attempt);
            }
            (_, None) => {}
        }
        self.records.insert(attempt, record);
    }

    pub(super) fn remove(&mut self, attempt: &Hash32) {
        let Some(record) = self.records.remove(attempt) else {
            return;
        };
        if let Target::Invoice { payment_hash } = record.target
            && let Some(attempts) = self.by_hash.get_mut(&payment_hash)
        {
            attempts.retain(|other| other != attempt);
        } else if let Some(payment_id) = record.payment_id {
            self.by_payment.remove(&payment_id);
        }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.last_number + 1
    }

    pub(super) fn get(&self, attempt: &Hash32) -> Option<&Record> {
        self.records.get(attempt)
    }

    /// The attempts of an invoice's payment hash, oldest first.
    pub(super) fn of_hash(&self, payment_hash: &Hash32) -> Vec<&Record> {
        let attempts = self.by_hash.get(payment_hash).into_iter().flatten();
        let mut records: Vec<&Record> = attempts.filter_map(|it| self.records.get(it)).collect();
        records.sort_by_key(|record| record.number);
        records
    }

    /// The offer's attempt that LDK pays under this id.
    pub(super) fn of_payment(&self, payment_id: &Hash32) -> Option<&Record> {
        self.records.get(self.by_payment.get(payment_id)?)
    }

    /// The attempt of an invoice's payment hash that is under way, or else the newest.
    pub(super) fn current(&self, payment_hash: &Hash32) -> Option<&Record> {
        let records = self.of_hash(payment_hash);
        let open = records.iter().find(|record| record.is_open());
        open.or(records.last()).copied()
    }

    pub(super) fn open(&self) -> Vec<Record> {
        let open = self.records.values().filter(|record| record.is_open());
        let mut open: Vec<Record> = open.cloned().collect();
        open.sort_by_key(|record| record.number);
        open
    }

    /// The offers' attempts whose payment LDK may know under an id that is not noted.
    pub(super) fn without_payment_id(&self) -> Vec<&Record> {
        let is_without = |record: &&Record| {
            record.payment_id.is_none()
                && matches!(record.state, State::Noted | State::Review)
                && matches!(record.target, Target::Offer { .. } | Target::Unreadable)
        };
        self.records.values().filter(is_without).collect()
    }
}
