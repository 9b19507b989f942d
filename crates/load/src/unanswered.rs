//! The shares of one channel that the pool has not answered, and which of them an answer is for.

use std::collections::VecDeque;
use std::time::Instant;

/// A share under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Its number in the channel.
    pub(crate) sequence_number: u32,
    /// When it was to be sent, whenever it was.
    pub(crate) planned: Instant,
}

/// Shares under way, in the order of their numbers.
#[derive(Debug, Default)]
pub(crate) struct Unanswered(VecDeque<Sent>);

impl Unanswered {
    /// A share is about to be sent. Numbers rise.
    pub(crate) fn push(&mut self, share: Sent) {
        self.0.push_back(share);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What is left.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sent> {
        self.0.iter()
    }

    /// A `SubmitShares.Success` answers every share up to its last number that was not refused before: one message may be
    /// for many shares. All of them, in their order.
    pub(crate) fn accepted(&mut self, last_sequence_number: u32) -> impl Iterator<Item = Sent> {
        let covered = self
            .0
            .partition_point(|share| share.sequence_number <= last_sequence_number);
        self.0.drain(..covered)
    }

    /// A `SubmitShares.Error` answers one.
    pub(crate) fn refused(&mut self, sequence_number: u32) -> Option<Sent> {
        let at = self
            .0
            .binary_search_by_key(&sequence_number, |share| share.sequence_number)
            .ok()?;
        self.0.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(numbers: &[u32]) -> Unanswered {
        let mut unanswered = Unanswered::default();
        let planned = Instant::now();
        for sequence_number in numbers {
            unanswered.push(Sent {
                sequence_number: *sequence_number,
                planned,
            });
        }
        unanswered
    }

    fn numbers(shares: impl Iterator<Item = Sent>) -> Vec<u32> {
        shares.map(|share| share.sequence_number).collect()
    }

    #[test]
    fn one_acknowledgement_answers_every_share_up_to_its_last() {
        let mut unanswered = of(&[1, 2, 3, 4]);
        assert_eq!(numbers(unanswered.accepted(3)), [1, 2, 3]);
        assert!(numbers(unanswered.accepted(3)).is_empty());
        assert_eq!(numbers(unanswered.accepted(9)), [4]);
        assert_eq!(unanswered.len(), 0);
    }

    #[test]
    fn a_refused_share_is_answered_once_and_not_acknowledged_after() {
        let mut unanswered = of(&[1, 2, 3]);
        assert_eq!(numbers(unanswered.refused(2).into_iter()), [2]);
        assert_eq!(unanswered.refused(2), None);
        assert_eq!(unanswered.refused(7), None);
        assert_eq!(numbers(unanswered.accepted(3)), [1, 3]);
    }
}
