//! What a pool shows for a point that a block has drawn, and how an auditor checks it, offline.

use crate::chain::SliceHeader;
use crate::evidence::{CountedShare, EvidenceError};
use crate::sample::locate;
use crate::sums::ProofError;
use crate::tree::LeafProof;

/// The leaf on which a point falls, with its way up, and the shares that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The leaf.
    pub proof: LeafProof,
    /// Its shares, in their order.
    pub shares: Vec<CountedShare>,
}

/// Why an answer shows nothing for its point: that much of the window is fake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The point lies behind the window's end, so it was not drawn on this window.
    #[error("the point is none of this window")]
    Point,
    /// The leaf is none of the slice that has the point.
    #[error("the leaf: {0}")]
    Proof(#[from] ProofError),
    /// It is a leaf beside the point.
    #[error("the point falls on another leaf")]
    OtherLeaf,
    /// The leaf is made of other shares.
    #[error("the shares: {0}")]
    Evidence(#[from] EvidenceError),
}

impl Answer {
    /// The share on which `point` falls, if the answer proves that. `window` is the headers of the window from the oldest to
    /// the newest, which [`check_chain`](crate::check_chain) has passed and the pool has signed. The caller goes on to the
    /// share's header: that it has this id, meets its target, and is worth this weight.
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn share_at(
        &self,
        point: u128,
        window: &[SliceHeader],
    ) -> Result<CountedShare, AnswerError> {
        let totals = window.iter().map(|header| header.total);
        let slice = locate(point, totals).ok_or(AnswerError::Point)?;
        let header = &window[slice.index];
        let range = self.proof.verify(header)?;
        if !range.contains(&slice.offset) {
            return Err(AnswerError::OtherLeaf);
        }
        let LeafProof { account, tally, .. } = &self.proof;
        tally.check(header.number, account, &self.shares)?;
        let weights = self.shares.iter().map(|share| share.weight);
        let found = locate(slice.offset - range.start, weights);
        // The shares weigh what the leaf does, and the point is in the leaf.
        let found = found.ok_or(EvidenceError::Sum)?;
        Ok(self.shares[found.index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::AccountId;
    use crate::chain::{SliceRoot, check_chain};
    use crate::evidence::ShareId;
    use crate::sample::points;
    use crate::slice::OpenSlice;
    use crate::tree::SumTree;
    use crate::weight::Weight;
    use dovetail_commitment::HeaderHash;
    use dovetail_units::SplitMix64;

    /// A published window of some slices, with the shares behind it in their order.
    struct Published {
        trees: Vec<SumTree>,
        headers: Vec<SliceHeader>,
        shares: Vec<(u64, AccountId, CountedShare)>,
    }

    fn publish(random: &mut SplitMix64, weights: &[u128]) -> Published {
        let mut open = OpenSlice::new(3, Weight::new(5_000).unwrap()).unwrap();
        let mut previous = SliceRoot::from_bytes([1; 32]);
        let (mut trees, mut headers, mut shares) = (vec![], vec![], vec![]);
        for (n, weight) in (0_u128..).zip(weights) {
            let account = AccountId::new([u8::try_from(random.below(7)).unwrap()]).unwrap();
            let share = CountedShare {
                id: ShareId(n.to_le_bytes()),
                weight: Weight::new(*weight).unwrap(),
            };
            shares.push((open.number(), account.clone(), share));
            if let Some(closed) = open.add(&account, &share).unwrap() {
                let tree = SumTree::new(closed);
                let header = tree.header(previous);
                previous = header.root();
                headers.push(header);
                trees.push(tree);
            }
        }
        check_chain(&headers).unwrap();
        Published {
            trees,
            headers,
            shares,
        }
    }

    impl Published {
        fn total(&self) -> u128 {
            self.headers.iter().map(|header| header.total.get()).sum()
        }

        fn leaf(&self, number: u64, account: &AccountId) -> Answer {
            let tree = self
                .trees
                .iter()
                .find(|tree| tree.slice().number() == number);
            let is_its = |(of, by, share): &(u64, AccountId, CountedShare)| {
                (*of == number && by == account).then_some(*share)
            };
            Answer {
                proof: tree.unwrap().proof(account).unwrap(),
                shares: self.shares.iter().filter_map(is_its).collect(),
            }
        }

        /// As an honest pool answers.
        fn answer(&self, point: u128) -> Answer {
            let slice = locate(point, self.headers.iter().map(|header| header.total)).unwrap();
            let tree = self.trees[slice.index].slice();
            let tallies = tree.accounts().values().map(|tally| tally.weight);
            let leaf = locate(slice.offset, tallies).unwrap();
            let (account, _) = tree.accounts().iter().nth(leaf.index).unwrap();
            self.leaf(tree.number(), account)
        }
    }

    #[test]
    fn an_honest_pool_shows_a_share_for_every_point_and_each_as_often_as_it_weighs() {
        let mut random = SplitMix64::new(1);
        let weights: Vec<u128> = (0..60).map(|_| 1 + u128::from(random.below(900))).collect();
        let published = publish(&mut random, &weights);
        let total = published.total();
        let mut counts = vec![0_u128; weights.len()];
        for point in 0..total {
            let share = published
                .answer(point)
                .share_at(point, &published.headers)
                .unwrap();
            counts[usize::try_from(u128::from_le_bytes(share.id.0)).unwrap()] += 1;
        }
        let open = counts
            .iter()
            .position(|count| *count == 0)
            .unwrap_or(weights.len());
        assert_eq!(counts[..open], weights[..open]);
        assert!(counts[open..].iter().all(|count| *count == 0));
        let behind = published.answer(0).share_at(total, &published.headers);
        assert_eq!(behind, Err(AnswerError::Point));
    }

    #[test]
    fn another_leaf_another_slice_or_other_shares_are_no_answer() {
        let mut random = SplitMix64::new(2);
        let published = publish(&mut random, &[500; 60]);
        let headers = &published.headers;
        let answer = published.answer(0);
        let first = headers[0].total.get();
        let second_slice = answer.share_at(first, headers);
        assert!(matches!(second_slice, Err(AnswerError::Proof(_))));
        assert_eq!(
            answer.share_at(first - 1, headers),
            Err(AnswerError::OtherLeaf)
        );
        let mut fewer = answer.clone();
        fewer.shares.pop();
        assert_eq!(
            fewer.share_at(0, headers),
            Err(AnswerError::Evidence(EvidenceError::Count))
        );
        let mut other = answer;
        other.shares[0].id = ShareId([0xff; 16]);
        assert_eq!(
            other.share_at(0, headers),
            Err(AnswerError::Evidence(EvidenceError::Hash))
        );
    }

    /// The theorem on a whole window: the pool made up some of the shares, and can show no header for them.
    #[test]
    fn made_up_shares_are_found_as_often_as_the_formula_says() {
        let mut random = SplitMix64::new(3);
        let published = publish(&mut random, &[250; 500]);
        let newest = published.headers.last().unwrap().root();
        let total = published.total();
        let counted = usize::try_from(total / 250).unwrap();
        for (fake, count) in [(counted / 100, 100), (counted / 20, 20), (counted / 2, 2)] {
            // Every so many shares one is fake.
            let is_fake = |share: CountedShare| {
                let n = usize::try_from(u128::from_le_bytes(share.id.0)).unwrap();
                n % (counted / fake) == 0 && n / (counted / fake) < fake
            };
            let blocks = 600;
            let found = (0..blocks).filter(|_| {
                let block = HeaderHash::from_bytes(random.bytes32());
                points(&block, &newest, Weight::new(total).unwrap(), count).any(|point| {
                    let shown = published.answer(point).share_at(point, &published.headers);
                    is_fake(shown.unwrap())
                })
            });
            let found = f64::from(u32::try_from(found.count()).unwrap());
            let [fake, counted] = [fake, counted].map(|n| f64::from(u32::try_from(n).unwrap()));
            let chance = 1.0 - (1.0 - fake / counted).powf(f64::from(count));
            let expected = chance * f64::from(blocks);
            let deviation = (expected * (1.0 - chance)).sqrt();
            assert!(
                (found - expected).abs() < 5.0 * deviation,
                "{found} of {expected}"
            );
        }
    }
}
