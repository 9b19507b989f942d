//! Attention over several blocks against the second implementation, and its nearness to real numbers where one exponent
//! for all positions is not near.

use proptest::prelude::*;

use super::*;
use crate::cache::Sequence;
use crate::forward::tests::attended;
use crate::{Kernel, tiny};

/// Two key and value heads, three query heads each.
fn architecture(head_dim: usize) -> Architecture {
    let model = tiny::generate(1);
    Architecture {
        layers: 1,
        heads: 6,
        kv_heads: 2,
        head_dim,
        ..crate::Model::from_bytes(&model)
            .unwrap()
            .manifest()
            .architecture
    }
}

/// Numbers up to `max` from a seed.
fn numbers(seed: u64, max: i32, count: usize) -> Vec<i32> {
    let mut random = dovetail_units::SplitMix64::new(seed);
    let span = u64::from(max.unsigned_abs()) * 2 + 1;
    let number = |_| i32::try_from(random.below(span)).unwrap() - max;
    (0..count).map(number).collect()
}

/// The results of the last `rows` positions, of both key and value heads: `[kv_heads, rows, 3 * head_dim]`.
fn run(
    runtime: &Runtime,
    arch: &Architecture,
    (keys, values, queries): (&[i32], &[i32], &[i32]),
    split: bool,
) -> Vec<i32> {
    let group = 3 * arch.head_dim;
    let (positions, rows) = (keys.len() / arch.kv_dim(), queries.len() / (2 * group));
    let mut sequence = Sequence::new(arch);
    sequence.reserve(arch, positions);
    let cache = &mut sequence.layers[0];
    let pairs = keys.chunks_exact(arch.kv_dim());
    for (key, value) in pairs.zip(values.chunks_exact(arch.kv_dim())) {
        cache.push(runtime.kernel, key, value, arch.head_dim);
    }
    let mut out = vec![0; queries.len()];
    let heads = out.chunks_exact_mut(rows * group);
    for (kv_head, (out, queries)) in heads.zip(queries.chunks_exact(rows * group)).enumerate() {
        let job = Job {
            cache,
            kv_head,
            position: positions - rows,
            queries: queries.chunks_exact(group).collect(),
            outs: out.chunks_exact_mut(group).collect(),
        };
        runtime.run(|| job.run(runtime, arch, split));
    }
    out
}

fn expected(arch: &Architecture, (keys, values, queries): (&[i32], &[i32], &[i32])) -> Vec<i32> {
    let (width, group) = (arch.head_dim, 3 * arch.head_dim);
    let (positions, rows) = (keys.len() / arch.kv_dim(), queries.len() / (2 * group));
    let query = |(index, query): (usize, &[i32])| {
        let (kv_head, row) = (index / 3 / rows, index / 3 % rows);
        let of_head = |all: &[i32]| -> Vec<Vec<i32>> {
            let seen = all
                .chunks_exact(arch.kv_dim())
                .take(positions - rows + row + 1);
            seen.map(|heads| heads[kv_head * width..][..width].to_vec())
                .collect()
        };
        let (keys, values) = (of_head(keys), of_head(values));
        let keys: Vec<&[i32]> = keys.iter().map(Vec::as_slice).collect();
        let values: Vec<&[i32]> = values.iter().map(Vec::as_slice).collect();
        attended(query, &keys, &values)
    };
    queries
        .chunks_exact(width)
        .enumerate()
        .flat_map(query)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocks_give_what_the_definition_gives_however_they_are_split(
        positions in proptest::sample::select(vec![1_usize, 3, 511, 512, 513, 1024, 1030, 1600]),
        rows in 1_usize..12, half in 1_usize..5, seed: u64,
        sizes in proptest::array::uniform3(proptest::sample::select(vec![0_i32, 9, 1 << 14, 1 << 17, 1 << 20, 1 << 26])),
    ) {
        let arch = architecture(2 * half);
        let rows = rows.min(positions);
        let keys = numbers(seed, sizes[0], positions * arch.kv_dim());
        let values = numbers(!seed, sizes[1], positions * arch.kv_dim());
        let queries = numbers(seed ^ 7, sizes[2], rows * 6 * arch.head_dim);
        let given = (&keys[..], &values[..], &queries[..]);
        let expected = expected(&arch, given);
        for kernel in Kernel::available() {
            for threads in [1, 3] {
                let runtime = Runtime::with_kernel(threads, kernel).unwrap();
                let found = run(&runtime, &arch, given, threads > 1);
                prop_assert_eq!(&found, &expected, "{}", kernel.name());
            }
        }
    }
}

/// One strong key in front of a flat tail that has some of the mass: with one exponent for all, each weight of the tail
/// is rounded the same way, and the tail counts for a tenth more or less than it has. What is left is the tail within the
/// strong key's block.
#[test]
fn a_flat_tail_behind_one_strong_key_keeps_its_mass() {
    const ONE: i32 = 1 << 16;
    let arch = architecture(4);
    for (positions, nats) in [
        (8192, 10.0_f64),
        (8192, 11.0),
        (32_768, 10.0),
        (32_768, 11.0),
    ] {
        // The first key scores so many nats above the others; its value is 1, those of the others are -1.
        let strength = (nats * 2.0 * f64::from(ONE) / 4.0).round() as i32;
        let key = |position: usize| match position {
            0 => [strength, 0, 0, 0],
            _ => [0, 0, ONE, 0],
        };
        let value = |position: usize| [if position == 0 { ONE } else { -ONE }; 4];
        let both = |of: &dyn Fn(usize) -> [i32; 4]| -> Vec<i32> {
            (0..positions)
                .flat_map(|p| [of(p), of(p)])
                .flatten()
                .collect()
        };
        let (keys, values) = (both(&key), both(&value));
        let queries = [4 * ONE, 0, 0, 0].repeat(6);
        let runtime = Runtime::new(1).unwrap();
        let found = run(&runtime, &arch, (&keys, &values, &queries), false);
        let tail = (positions - 1) as f64 * (-nats).exp();
        let exact = (1.0 - tail) / (1.0 + tail);
        let error = (f64::from(found[0]) / f64::from(ONE) - exact).abs();
        assert!(error < 0.01, "{positions} {nats}: {error}, {exact}");
    }
}
