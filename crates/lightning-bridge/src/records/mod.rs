//! What a bridge was asked to pay: one small file per attempt, written whole and synced with its folder before the node hears
//! of the payment. The node keeps payments by payment hash; this is by attempt, and ties the two together.
//!
//! Nothing here speaks to a node. The lock around [`Records`] is held for a file's write at most.

mod file;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use dovetail_lightning::{FailureClass, Hash32, PaymentStatus, Preimage};
use serde::{Deserialize, Serialize};

/// What an attempt is to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Target {
    /// A BOLT 11 invoice.
    Invoice {
        /// Its payment hash.
        payment_hash: Hash32,
    },
    /// A BOLT 12 offer. Its payee draws the payment hash when it is asked for an invoice.
    Offer {
        /// The SHA-256 of its text.
        offer: Hash32,
        /// How much of it is paid.
        amount_msat: u64,
    },
    /// An offer whose record is damaged.
    Unreadable,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// An offer's payee is asked for an invoice. Nothing has been sent.
    Asked,
    /// The node is told to pay, or is about to be.
    Sent {
        /// When its command has ended by itself, in seconds of Unix time, whatever became of our connection to it.
        over_unix: u64,
        /// Why the command ended without success, once it has said so. What it sent may still be on its way.
        gave_up: Option<FailureClass>,
    },
    /// The payee has the money.
    Succeeded {
        /// What the route cost.
        fee_msat: u64,
        /// The proof.
        preimage: Preimage,
        /// The hash that it proves.
        payment_hash: Hash32,
    },
    /// Proven failed.
    Failed {
        /// Why.
        reason: FailureClass,
    },
    /// Nobody can tell.
    Review,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The payer's name for it.
    pub(crate) attempt: Hash32,
    /// Its place among all attempts of this bridge: later ones have higher numbers.
    pub(crate) number: u64,
    /// What it pays.
    pub(crate) target: Target,
    /// How much.
    pub(crate) amount_msat: u64,
    /// The hash under which the node knows it, if the node was ever told to pay it.
    pub(crate) sent_hash: Option<Hash32>,
    /// How far it has come.
    #[serde(flatten)]
    pub(crate) state: State,
}

impl Record {
    pub(crate) fn status(&self) -> PaymentStatus {
        match self.state {
            State::Asked | State::Sent { .. } => PaymentStatus::Pending,
            State::Succeeded {
                fee_msat,
                preimage,
                payment_hash,
            } => PaymentStatus::Succeeded {
                fee_msat,
                preimage,
                payment_hash,
            },
            State::Failed { reason } => PaymentStatus::Failed { reason },
            State::Review => PaymentStatus::Review,
        }
    }

    fn is_open(&self) -> bool {
        matches!(
            self.state,
            State::Asked | State::Sent { .. } | State::Review
        )
    }

    /// The payment hash that it stands for, if it is known.
    fn hash(&self) -> Option<Hash32> {
        match self.target {
            Target::Invoice { payment_hash } => Some(payment_hash),
            Target::Offer { .. } | Target::Unreadable => self.sent_hash,
        }
    }
}

/// A wish to begin an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) attempt: Hash32,
    pub(crate) target: Target,
    pub(crate) amount_msat: u64,
    pub(crate) state: State,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is noted: the node may hear of it.
    Now,
    /// It was begun before.
    Before(PaymentStatus),
    /// Its name was used for another payment.
    Reused,
    /// An earlier attempt of its payment hash has no proven failure.
    HashInFlight,
}

/// All attempts. Their number only grows: a few hundred bytes of memory and a file each.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
    records: HashMap<Hash32, Record>,
    by_hash: HashMap<Hash32, Vec<Hash32>>,
    last_number: u64,
}

impl Records {
    /// Reads the folder. A file that cannot be read is an attempt for [`State::Review`], and no other's concern. An offer
    /// whose payee was being asked for an invoice has failed: nothing is sent before the invoice is noted.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let mut records = Self {
            folder: folder.to_owned(),
            records: HashMap::new(),
            by_hash: HashMap::new(),
            last_number: 0,
        };
        for record in file::read_all(folder)? {
            records.remember(record);
        }
        let asked: Vec<Hash32> = records
            .records
            .values()
            .filter(|record| record.state == State::Asked)
            .map(|record| record.attempt)
            .collect();
        for attempt in asked {
            let reason = FailureClass::Other;
            records.settle(&attempt, State::Failed { reason })?;
        }
        Ok(records)
    }

    /// How the attempt stands; `Unknown` if it is not noted.
    pub(crate) fn status(&self, attempt: &Hash32) -> PaymentStatus {
        let record = self.records.get(attempt);
        record.map_or(PaymentStatus::Unknown, Record::status)
    }

    pub(crate) fn get(&self, attempt: &Hash32) -> Option<&Record> {
        self.records.get(attempt)
    }

    /// How many attempts are on their way, and how many are in review.
    pub(crate) fn open_counts(&self) -> (usize, usize) {
        let open = || self.records.values().filter(|record| record.is_open());
        let in_review = open().filter(|it| it.state == State::Review).count();
        (open().count() - in_review, in_review)
    }

    /// Whether any attempt stands for this payment hash.
    pub(crate) fn is_known(&self, payment_hash: &Hash32) -> bool {
        self.by_hash
            .get(payment_hash)
            .is_some_and(|attempts| !attempts.is_empty())
    }

    /// Whether the node's payment of this attempt's hash is this attempt's: of those that it was told to pay, the one that
    /// has not ended, or else the newest.
    pub(crate) fn is_current(&self, record: &Record) -> bool {
        let Some(hash) = record.sent_hash else {
            return false;
        };
        let attempts = self.by_hash.get(&hash).into_iter().flatten();
        let sent = attempts
            .filter_map(|it| self.records.get(it))
            .filter(|it| it.sent_hash.is_some());
        let newest = sent.max_by_key(|it| (it.is_open(), it.number));
        newest.is_some_and(|newest| newest.attempt == record.attempt)
    }

    /// What [`Records::begin`] would say, without noting anything; `None` where it would note the attempt.
    pub(crate) fn obstacle(&self, attempt: &Hash32, target: Target) -> Option<Begun> {
        if let Some(record) = self.records.get(attempt) {
            let is_same = record.target == target || record.target == Target::Unreadable;
            return Some(match is_same {
                true => Begun::Before(record.status()),
                false => Begun::Reused,
            });
        }
        let Target::Invoice { payment_hash } = target else {
            return None;
        };
        self.is_in_flight(&payment_hash)
            .then_some(Begun::HashInFlight)
    }

    fn is_in_flight(&self, payment_hash: &Hash32) -> bool {
        let attempts = self.by_hash.get(payment_hash).into_iter().flatten();
        attempts
            .filter_map(|it| self.records.get(it))
            .any(|record| !matches!(record.state, State::Failed { .. }))
    }

    /// Notes an attempt before the node hears of it, unless something stands against it.
    pub(crate) fn begin(&mut self, new: New) -> io::Result<Begun> {
        if let Some(obstacle) = self.obstacle(&new.attempt, new.target) {
            return Ok(obstacle);
        }
        let sent_hash = match (new.target, new.state) {
            (Target::Invoice { payment_hash }, State::Sent { .. }) => Some(payment_hash),
            _ => None,
        };
        self.put(Record {
            attempt: new.attempt,
            number: self.last_number + 1,
            target: new.target,
            amount_msat: new.amount_msat,
            sent_hash,
            state: new.state,
        })?;
        Ok(Begun::Now)
    }

    /// Notes the invoice of an offer, before it is paid. Refused (`false`) where another attempt stands for this hash: a payee
    /// that gives one invoice twice would be paid once for two payouts.
    pub(crate) fn invoiced(
        &mut self,
        attempt: &Hash32,
        payment_hash: Hash32,
        over_unix: u64,
    ) -> io::Result<bool> {
        let Some(record) = self.records.get(attempt).cloned() else {
            return Ok(false);
        };
        if record.state != State::Asked || self.is_known(&payment_hash) {
            return Ok(false);
        }
        self.put(Record {
            sent_hash: Some(payment_hash),
            state: State::Sent {
                over_unix,
                gave_up: None,
            },
            ..record
        })?;
        Ok(true)
    }

    /// Notes how one attempt stands, unless it has succeeded: a success is never taken back.
    pub(crate) fn settle(&mut self, attempt: &Hash32, state: State) -> io::Result<()> {
        match self.records.get(attempt).cloned() {
            Some(record)
                if !matches!(record.state, State::Succeeded { .. }) && record.state != state =>
            {
                self.put(Record { state, ..record })
            }
            _ => Ok(()),
        }
    }

    /// Copies all records into this empty folder. Returns how many.
    pub(crate) fn copy_to(&self, folder: &Path) -> io::Result<usize> {
        file::copy_all(&self.folder, folder)
    }

    fn put(&mut self, record: Record) -> io::Result<()> {
        file::write(&self.folder, &record)?;
        self.remember(record);
        Ok(())
    }

    fn remember(&mut self, record: Record) {
        self.last_number = self.last_number.max(record.number);
        if let Some(hash) = record.hash() {
            let attempts = self.by_hash.entry(hash).or_default();
            if !attempts.contains(&record.attempt) {
                attempts.push(record.attempt);
            }
        }
        self.records.insert(record.attempt, record);
    }
}
