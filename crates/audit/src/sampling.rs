//! Which transcripts of a batch are replayed.

use dovetail_commitment::tagged_hash;

/// The floor: one transcript in this many (5 %).
const FLOOR_DIVISOR: u64 = 20;
/// Up to this many audited transcripts a worker is new, and everything is replayed.
const NEW_WORKER_TRANSCRIPTS: u64 = 100;
/// From here on the floor holds.
const TRUSTED_TRANSCRIPTS: u64 = 2_000;

/// The first `q` distinct indices below `n` that are drawn with this output of the pool's verifiable function; in
/// ascending order. All of them if `q >= n`.
pub fn sample(output: &[u8; 32], n: usize, q: usize) -> Vec<usize> {
    if q >= n {
        return (0..n).collect();
    }
    let mut drawn = Vec::with_capacity(q);
    let mut counter = 0_u64;
    while drawn.len() < q {
        let hash = tagged_hash("dovetail/sample", &[output, &counter.to_le_bytes()]);
        counter += 1;
        let (random, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
        // Uniform to one part in 2^57 for the at most 64 leaves of a batch.
        let index = (u128::from(u64::from_le_bytes(*random)) * n as u128) >> 64;
        let index = usize::try_from(index).expect("an index below n");
        if !drawn.contains(&index) {
            drawn.push(index);
        }
    }
    drawn.sort_unstable();
    drawn
}

/// How many of `n` transcripts to replay for a worker with this many audited ones: all for a new
/// worker, falling in proportion to a floor of 5 %, and never none.
pub fn sample_size(audited: u64, n: usize) -> usize {
    let n = n as u64;
    let floor = n.div_ceil(FLOOR_DIVISOR);
    let wanted = if audited <= NEW_WORKER_TRANSCRIPTS {
        n
    } else if audited >= TRUSTED_TRANSCRIPTS {
        floor
    } else {
        (n * NEW_WORKER_TRANSCRIPTS).div_ceil(audited).max(floor)
    };
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_worker_is_replayed_whole_and_a_trusted_one_at_the_floor() {
        assert_eq!(sample_size(0, 64), 64);
        assert_eq!(sample_size(100, 64), 64);
        assert_eq!(sample_size(200, 64), 32);
        assert_eq!(sample_size(5_000, 64), 4);
        assert_eq!(sample_size(5_000, 1), 1);
    }

    #[test]
    fn every_index_is_drawn_about_as_often() {
        let mut counts = [0_u32; 10];
        for n in 0_u32..2_000 {
            let mut output = [0; 32];
            output[..4].copy_from_slice(&n.to_le_bytes());
            for index in sample(&output, 10, 3) {
                counts[index] += 1;
            }
        }
        assert!(
            counts.iter().all(|count| (500..700).contains(count)),
            "{counts:?}"
        );
    }

    proptest! {
        #[test]
        fn a_sample_is_distinct_in_range_and_of_the_size_asked_for(output: [u8; 32], n in 1_usize..=64, q in 0_usize..=70) {
            let drawn = sample(&output, n, q);
            prop_assert_eq!(drawn.len(), q.min(n));
            prop_assert!(drawn.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(drawn.iter().all(|index| *index < n));
        }

        #[test]
        fn more_trust_never_means_a_larger_sample(a: u32, b: u32, n in 1_usize..=64) {
            let (less, more) = (u64::from(a.min(b)), u64::from(a.max(b)));
            prop_assert!(sample_size(more, n) <= sample_size(less, n));
            prop_assert!((1..=n).contains(&sample_size(more, n)));
        }
    }
}
