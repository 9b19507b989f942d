//! The arithmetic's inner loops, once per instruction set. The scalar ones are the definition; the
//! others are speed-ups that must equal them, which tests check on every kernel of the machine.
//!
//! This is the one module with unsafe code: it calls functions that were compiled for instructions
//! which [`Kernel::available`] has found on this machine, and loads from slices whose lengths are
//! checked on entry ([`Kernel::products`]).
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod elementwise;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(test)]
mod tests;

use crate::factor::Factor;
use crate::scale::RowScale;

/// A set of instructions to compute with, which this machine has. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Instructions {
    /// Plain Rust: the definition.
    Scalar,
    /// 256-bit registers of x86-64.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// 512-bit registers of x86-64 with byte products.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// 128-bit registers of AArch64.
    #[cfg(target_arch = "aarch64")]
    Neon,
    /// The same with byte products.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
}

/// Rows of int8 in memory: `count` of them, `columns` long, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [i8],
    pub(crate) stride: usize,
    pub(crate) columns: usize,
    pub(crate) count: usize,
    /// The sum of each row, where it is known; else empty.
    pub(crate) sums: &'a [i32],
}

impl<'a> Rows<'a> {
    pub(crate) fn row(&self, index: usize) -> &'a [i8] {
        &self.data[index * self.stride..][..self.columns]
    }
}

/// Into so many steps [`four_apart`] divides the rows.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn quarter(count: usize) -> usize {
    count.div_ceil(4)
}

/// The rows that are computed together in one step: one of each quarter, of which the last may have fewer. Processors
/// fetch ahead along a stream of addresses. Four streams that are far apart keep more of memory's lines on their way
/// than one, and four neighbouring rows look like neither: that is half as fast where memory is the limit.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
fn four_apart(step: usize, count: usize) -> impl Iterator<Item = usize> + Clone {
    (step..count).step_by(quarter(count).max(1))
}

/// Quantised vectors, one per token: `[tokens, columns]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vectors<'a> {
    pub(crate) columns: usize,
    pub(crate) values: &'a [i8],
    /// What [`Kernel::pack`] makes of them.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) packed: &'a Packed,
}

/// Vectors once more, in the order and width in which a kernel reads many of them fastest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Packed {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    words: Vec<i16>,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    bytes: Vec<u8>,
}

/// What a vector alone is packed to.
static UNPACKED: Packed = Packed {
    words: Vec::new(),
    bytes: Vec::new(),
};

impl<'a> Vectors<'a> {
    pub(crate) fn vector(&self, index: usize) -> &'a [i8] {
        &self.values[index * self.columns..][..self.columns]
    }
}

impl Kernel {
    /// The kernels that this machine can run, the fastest first.
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                kernels.push(Self(Instructions::Avx512Vnni));
            }
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self(Instructions::Avx2));
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                kernels.push(Self(Instructions::NeonDotprod));
            }
            kernels.push(Self(Instructions::Neon));
        }
        kernels.push(Self(Instructions::Scalar));
        kernels
    }

    /// The definition itself, which every machine can run.
    pub const SCALAR: Self = Self(Instructions::Scalar);

    /// A short name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => "neon",
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonDotprod => "neon-dotprod",
        }
    }

    /// The fastest kernel of this machine.
    pub fn best() -> Self {
        Self::available()
            .first()
            .copied()
            .unwrap_or(Self(Instructions::Scalar))
    }

    /// What [`Vectors::packed`] has to be. For few tokens it is empty.
    pub(crate) fn pack(self, values: &[i8], columns: usize) -> Packed {
        let tokens = values.len() / columns;
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 if tokens >= avx2::WIDE_TOKENS_MIN => Packed {
                words: avx2::pack(values, columns),
                ..Packed::default()
            },
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni if tokens >= avx512::PANEL_TOKENS_MIN => Packed {
                bytes: avx512::pack(values, columns),
                ..Packed::default()
            },
            _ => {
                let _ = tokens;
                Packed::default()
            }
        }
    }

    /// The exact product of each row with each vector: `out[token][row]`.
    ///
    /// # Panics
    /// If the lengths do not fit each other: a fault of the engine, never of its input.
    pub(crate) fn products(self, rows: &Rows<'_>, x: &Vectors<'_>, out: &mut [&mut [i32]]) {
        assert_eq!(rows.columns, x.columns);
        assert!(
            rows.count == 0 || (rows.count - 1) * rows.stride + rows.columns <= rows.data.len()
        );
        assert_eq!(x.values.len(), out.len() * x.columns);
        assert!(out.iter().all(|sums| sums.len() == rows.count));
        assert!(rows.sums.is_empty() || rows.sums.len() == rows.count);
        match self.0 {
            Instructions::Scalar => scalar::products(rows, x, out),
            // SAFETY: the kernel is available (the only way to one is `available`), and the lengths
            // were checked above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { avx2::products(rows, x, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { avx512::products(rows, x, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => unsafe { neon::products(rows, x, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonDotprod => unsafe { neon::products_by_dotprod(rows, x, out) },
        }
    }
}

impl Kernel {
    /// [`Kernel::products`] with one vector.
    pub(crate) fn dots(self, rows: &Rows<'_>, vector: &[i8], out: &mut [i32]) {
        let vectors = Vectors {
            columns: vector.len(),
            values: vector,
            packed: &UNPACKED,
        };
        self.products(rows, &vectors, &mut [out]);
    }

    /// The weighted sum of rows: `out[d] = sum(weights[p] * rows[p][d])`. Rows have at most 256
    /// columns.
    ///
    /// # Panics
    /// As [`Kernel::products`].
    pub(crate) fn weigh(self, weights: &[i16], rows: &Rows<'_>, out: &mut [i64]) {
        assert_eq!((weights.len(), out.len()), (rows.count, rows.columns));
        assert!(
            rows.count == 0 || (rows.count - 1) * rows.stride + rows.columns <= rows.data.len()
        );
        match self.0 {
            // SAFETY: the kernel is available, and the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { avx2::weigh(weights, rows, out) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { avx512::weigh(weights, rows, out) },
            _ => elementwise::weigh(weights, rows, out),
        }
    }
}

/// Functions of `elementwise` that are compiled once per instruction set; the compiler widens them.
macro_rules! widened {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*);)*) => {
        impl Kernel {
            $(
                $(#[$doc])*
                pub(crate) fn $name(self, $($argument: $type),*) {
                    match self.0 {
                        // SAFETY: the kernel is available; the functions themselves are safe.
                        #[cfg(target_arch = "x86_64")]
                        Instructions::Avx2 => unsafe { for_avx2::$name($($argument),*) },
                        // SAFETY: as above.
                        #[cfg(target_arch = "x86_64")]
                        Instructions::Avx512Vnni => unsafe { for_avx512::$name($($argument),*) },
                        _ => elementwise::$name($($argument),*),
                    }
                }
            )*
        }

        #[cfg(target_arch = "x86_64")]
        mod for_avx2 {
            use super::*;
            $(
                #[target_feature(enable = "avx2")]
                pub(super) fn $name($($argument: $type),*) {
                    elementwise::$name($($argument),*);
                }
            )*
        }

        #[cfg(target_arch = "x86_64")]
        mod for_avx512 {
            use super::*;
            $(
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                pub(super) fn $name($($argument: $type),*) {
                    elementwise::$name($($argument),*);
                }
            )*
        }
    };
}

widened! {
    /// [`crate::scale::requantise`].
    fn requantise(sums: &mut [i32], scales: &[RowScale], factor: Factor, max: i32);
    /// [`crate::arith::quantise`].
    fn quantise(x: &[i32], peak: u32, out: &mut [i8]);
    /// `gate = silu(gate) * up`, element by element.
    fn gate(gate: &mut [i32], up: &[i32]);
    /// [`crate::arith::mix_block`] on each whole block.
    fn mix_blocks(x: &mut [i32]);
    /// Rotates each head of `head_dim = 2 * cos.len()` elements.
    fn rotate_heads(heads: &mut [i32], cos: &[i32], sin: &[i32]);
    /// The sum of both, saturated to `max`.
    fn add(x: &mut [i32], y: &[i32], max: i32);
    /// The weights of a softmax from exact products; see `elementwise`.
    fn softmax(job: &mut Softmax<'_>);
}

/// One head's scores of a block of positions, on their way to weights.
pub(crate) struct Softmax<'a> {
    /// Exact products of the query with each key, turned into scores in place. Not empty.
    pub(crate) scores: &'a mut [i32],
    /// The peak of each key, and of each value: `[scores]`.
    pub(crate) key_peaks: &'a [u32],
    pub(crate) value_peaks: &'a [u32],
    /// What a unit of product times key peak is worth as a score.
    pub(crate) query: Factor,
    /// The weights of the quantised values: `[scores]`.
    pub(crate) weights: &'a mut [i16],
    /// What the block is worth beside others.
    pub(crate) share: Share,
}

/// What brings the weighted sums of several blocks of positions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Share {
    /// Weights are Q30 of 2 to this, which is at least the largest.
    pub(crate) exponent: i32,
    /// The sum of the weights: at least 2^29 unless nothing was weighed.
    pub(crate) sum: u64,
    /// A unit of the weighted sum of values is 2 to this.
    pub(crate) shift: u32,
}
