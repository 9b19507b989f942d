//! The shape of a Llama: the numbers that decide how much a decoded token costs.

use anyhow::{Result, ensure};

/// Weights that share a scale in Q8_0; a row is a whole number of such blocks.
pub(crate) const BLOCK_WEIGHTS: u32 = 32;

/// A shape that llama.cpp can hold in Q8_0: [`Shape::checked`] has been asked.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Shape {
    /// Transformer blocks
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub layers: u32,
    /// Width of the residual stream: a multiple of 32 and of --heads
    #[arg(long, value_parser = clap::value_parser!(u32).range(32..=65_536))]
    pub dim: u32,
    /// Width of the feed-forward layers: a multiple of 32
    #[arg(long, value_parser = clap::value_parser!(u32).range(32..=262_144))]
    pub hidden: u32,
    /// Attention heads
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub heads: u32,
    /// Key and value heads: a divisor of --heads
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub kv_heads: u32,
    /// Tokens in the vocabulary
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub vocabulary: u32,
    /// Positions in the key-value cache, in tokens
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    pub context: u32,
}

impl Shape {
    /// The same shape, once its numbers fit each other.
    ///
    /// # Errors
    /// Names the number that does not fit, and what it has to fit.
    pub fn checked(self) -> Result<Self> {
        let Self {
            dim,
            hidden,
            heads,
            kv_heads,
            ..
        } = self;
        ensure!(
            dim.is_multiple_of(BLOCK_WEIGHTS),
            "--dim {dim} is no multiple of {BLOCK_WEIGHTS}, a Q8_0 block"
        );
        ensure!(
            hidden.is_multiple_of(BLOCK_WEIGHTS),
            "--hidden {hidden} is no multiple of {BLOCK_WEIGHTS}, a Q8_0 block"
        );
        ensure!(
            heads.is_multiple_of(kv_heads),
            "--heads {heads} is no multiple of --kv-heads {kv_heads}"
        );
        ensure!(
            dim.is_multiple_of(2 * heads),
            "--dim {dim} is no multiple of twice --heads {heads}: rotary embeddings turn pairs within a head"
        );
        Ok(self)
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> u32 {
        self.dim / self.heads
    }

    /// Width of the keys, and of the values, of one position in one layer.
    pub fn kv_dim(&self) -> u32 {
        self.head_dim() * self.kv_heads
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As small as a Q8_0 Llama with grouped heads gets.
    pub(crate) const SMALL: Shape = Shape {
        layers: 2,
        dim: 64,
        hidden: 96,
        heads: 4,
        kv_heads: 2,
        vocabulary: 50,
        context: 64,
    };

    #[test]
    fn a_shape_whose_numbers_fit_is_kept() {
        let shape = SMALL.checked().expect("it fits");
        assert_eq!((shape.head_dim(), shape.kv_dim()), (16, 32));
    }

    #[test]
    fn a_shape_is_refused_by_the_name_of_what_does_not_fit() {
        let refused = |shape: Shape| shape.checked().expect_err("it does not fit").to_string();
        assert!(refused(Shape { dim: 72, ..SMALL }).starts_with("--dim 72"));
        assert!(
            refused(Shape {
                hidden: 100,
                ..SMALL
            })
            .starts_with("--hidden 100")
        );
        assert!(
            refused(Shape {
                kv_heads: 3,
                ..SMALL
            })
            .starts_with("--heads 4")
        );
        assert!(refused(Shape { heads: 64, ..SMALL }).contains("twice --heads 64"));
    }
}
