//! What this node was asked to pay: one small file per attempt, written whole and synced with its folder before LDK hears
//! of the payment. LDK's own memory of payments is by payment hash and can be overwritten; this is by attempt and is not.
//!
//! Nothing here speaks to LDK. The lock around [`Records`] is held for a file's write, never for a call of LDK.

mod file;
mod index;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use dovetail_lightning::{FailureClass, Hash32, PaymentStatus, Preimage};
use serde::{Deserialize, Serialize};

use index::Index;

/// What an attempt is to pay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Target {
    /// A BOLT 11 invoice. LDK's payment id is its payment hash.
    Invoice {
        /// Its payment hash.
        payment_hash: Hash32,
    },
    /// A BOLT 12 offer. LDK draws the payment id, and the payee the payment hash.
    Offer {
        /// The offer's id: a hash of all that it says.
        offer: Hash32,
        /// How much of it is paid.
        amount_msat: u64,
    },
    /// An offer that cannot be read: its text never was one, or its record is damaged.
    Unreadable,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    /// LDK is about to hear of it, or has: what it answered is not noted yet.
    Noted,
    /// LDK took it, or may have.
    Sent,
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
    /// Neither this node nor LDK can tell.
    Review,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The payer's name for it.
    pub(crate) attempt: Hash32,
    /// Its place among all attempts of this node: later ones have higher numbers.
    pub(crate) number: u64,
    /// What it pays.
    pub(crate) target: Target,
    /// LDK's id of its payment, once it is known.
    pub(crate) payment_id: Option<Hash32>,
    /// How far it has come.
    #[serde(flatten)]
    pub(crate) state: State,
}

impl Record {
    pub(crate) fn status(&self) -> PaymentStatus {
        match self.state {
            State::Noted | State::Sent => PaymentStatus::Pending,
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

    /// Whether it has neither succeeded nor failed.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Noted | State::Sent | State::Review)
    }
}

/// How LDK says that a payment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the money at the payee.
    Success {
        /// What the route cost.
        fee_msat: u64,
        /// The proof.
        preimage: Preimage,
        /// The hash that it proves.
        payment_hash: Hash32,
    },
    /// With nothing paid and nothing on its way.
    Failure(FailureClass),
}

impl Ending {
    pub(crate) fn state(self) -> State {
        match self {
            Self::Success {
                fee_msat,
                preimage,
                payment_hash,
            } => State::Succeeded {
                fee_msat,
                preimage,
                payment_hash,
            },
            Self::Failure(reason) => State::Failed { reason },
        }
    }
}

/// What became of a wish to begin an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is noted: LDK may hear of it.
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
    index: Index,
}

impl Records {
    /// Reads the folder. A file that cannot be read is an attempt for [`State::Review`], and no other's concern.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let mut index = Index::default();
        for record in file::read_all(folder)? {
            index.put(record);
        }
        Ok(Self {
            folder: folder.to_owned(),
            index,
        })
    }

    /// How the attempt stands; `Unknown` if it is not noted.
    pub(crate) fn status(&self, attempt: &Hash32) -> PaymentStatus {
        let record = self.index.get(attempt);
        record.map_or(PaymentStatus::Unknown, Record::status)
    }

    /// The attempts that have not ended, oldest first.
    pub(crate) fn open_attempts(&self) -> Vec<Record> {
        self.index.open()
    }

    /// How many attempts were made for this payment hash.
    pub(crate) fn attempts_of(&self, payment_hash: &Hash32) -> usize {
        self.index.of_hash(payment_hash).len()
    }

    /// The file that says of an offer's attempt that LDK wrote while it was dispatched.
    pub(crate) fn mark(&self, attempt: &Hash32) -> PathBuf {
        file::mark(&self.folder, attempt)
    }

    /// Whether that file is there.
    pub(crate) fn is_marked(&self, attempt: &Hash32) -> io::Result<bool> {
        self.mark(attempt).try_exists()
    }

    /// Whether LDK's payment of this id is known to be some attempt's.
    pub(crate) fn is_known(&self, payment_id: &Hash32) -> bool {
        self.index.of_payment(payment_id).is_some() || self.attempts_of(payment_id) > 0
    }

    /// What [`Records::begin`] would say, without noting anything; `None` where it would note the attempt.
    pub(crate) fn obstacle(&self, attempt: &Hash32, target: Target) -> Option<Begun> {
        if let Some(record) = self.index.get(attempt) {
            let is_same = record.target == target || record.target == Target::Unreadable;
            return Some(match is_same {
                true => Begun::Before(record.status()),
                false => Begun::Reused,
            });
        }
        let Target::Invoice { payment_hash } = target else {
            return None;
        };
        let earlier = self.index.of_hash(&payment_hash);
        let failed = |record: &&Record| matches!(record.state, State::Failed { .. });
        (!earlier.iter().all(failed)).then_some(Begun::HashInFlight)
    }

    /// Notes an attempt in this state, [`State::Noted`] before LDK hears of it, unless something stands against it.
    pub(crate) fn begin(
        &mut self,
        attempt: Hash32,
        target: Target,
        state: State,
    ) -> io::Result<Begun> {
        if let Some(obstacle) = self.obstacle(&attempt, target) {
            return Ok(obstacle);
        }
        let payment_id = match target {
            Target::Invoice { payment_hash } => Some(payment_hash),
            Target::Offer { .. } | Target::Unreadable => None,
        };
        self.put(Record {
            attempt,
            number: self.index.next_number(),
            target,
            payment_id,
            state,
        })?;
        Ok(Begun::Now)
    }

    /// Notes that LDK has the attempt, under this id. How it ended may be noted already: then only the id is new.
    pub(crate) fn sent(&mut self, attempt: &Hash32, payment_id: Hash32) -> io::Result<()> {
        let Some(mut record) = self.index.get(attempt).cloned() else {
            return Ok(());
        };
        record.payment_id = Some(payment_id);
        if record.state == State::Noted {
            record.state = State::Sent;
        }
        self.put(record)?;
        self.unmark(attempt)
    }

    /// Notes how one attempt stands, unless it has succeeded: a success is never taken back.
    pub(crate) fn settle(&mut self, attempt: &Hash32, state: State) -> io::Result<()> {
        match self.index.get(attempt).cloned() {
            Some(record) if !matches!(record.state, State::Succeeded { .. }) => {
                self.put(Record { state, ..record })
            }
            _ => Ok(()),
        }
    }

    /// Forgets an attempt of which nothing left: it may be begun again.
    pub(crate) fn forget(&mut self, attempt: &Hash32) -> io::Result<()> {
        if let Some(record) = self.index.get(attempt) {
            file::remove(&self.folder, record)?;
            self.index.remove(attempt);
            self.unmark(attempt)?;
        }
        Ok(())
    }

    /// Notes how LDK's payment ended, and returns the attempt that it was; `None` if it was none of ours, or changes nothing.
    pub(crate) fn end(&mut self, payment_id: Hash32, ending: Ending) -> io::Result<Option<Hash32>> {
        let Some(mut record) = self.ended(&payment_id).cloned() else {
            return Ok(None);
        };
        let is_news = match (ending, record.state) {
            (_, State::Succeeded { .. }) => false,
            (Ending::Success { .. }, _) => true,
            (Ending::Failure(_), State::Noted | State::Sent) => true,
            // An invoice's failure may be an earlier attempt's, told again. An offer's payment is one attempt's only.
            (Ending::Failure(_), State::Review) => matches!(record.target, Target::Offer { .. }),
            (Ending::Failure(_), State::Failed { .. }) => false,
        };
        if !is_news {
            return Ok(None);
        }
        record.payment_id = record.payment_id.or(Some(payment_id));
        record.state = ending.state();
        let attempt = record.attempt;
        self.put(record)?;
        Ok(Some(attempt))
    }

    /// Whose payment LDK speaks of. By its id, never by the payment hash: a payee may put an invoice's hash into the answer to
    /// an offer as well.
    fn ended(&self, payment_id: &Hash32) -> Option<&Record> {
        let known = self.index.of_payment(payment_id);
        if let Some(record) = known.or_else(|| self.index.current(payment_id)) {
            return Some(record);
        }
        // An id that nobody has heard of: of the one offer whose id is not noted, if there is one.
        let open = self.index.without_payment_id();
        match open.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Copies all records into this empty folder. Returns how many.
    pub(crate) fn copy_to(&self, folder: &Path) -> io::Result<usize> {
        file::copy_all(&self.folder, folder)
    }

    fn unmark(&self, attempt: &Hash32) -> io::Result<()> {
        match std::fs::remove_file(self.mark(attempt)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn put(&mut self, record: Record) -> io::Result<()> {
        file::write(&self.folder, &record)?;
        self.index.put(record);
        Ok(())
    }
}
