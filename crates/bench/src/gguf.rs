//! Writes GGUF files, version 3: metadata, the table of tensors, and tensors in the two types that a Q8_0 model
//! has.
//!
//! Rules: llama.cpp's `ggml/include/gguf.h`, and `quantize_row_q8_0_ref` of `ggml/src/ggml-quants.c`.

use std::io::{self, Write};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// `general.alignment`'s default, which the files here keep.
const ALIGNMENT: u64 = 32;
/// Weights that share a scale in Q8_0.
pub(crate) const BLOCK_WEIGHTS: usize = 32;
/// Bytes of such a block: the scale as a half, then a byte for each weight.
pub(crate) const BLOCK_BYTES: usize = 2 + BLOCK_WEIGHTS;

/// Pairs of metadata, as bytes.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) count: usize,
    pub(crate) bytes: Vec<u8>,
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `GGML_TYPE_F32`
    F32,
    /// `GGML_TYPE_Q8_0`
    Q8_0,
}

/// One line of the table of tensors.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    /// The name that llama.cpp looks for.
    pub(crate) name: String,
    /// The length of a row last.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
}

impl Pairs {
    /// Adds `GGUF_TYPE_UINT32`.
    pub(crate) fn whole(&mut self, key: &str, value: usize) -> anyhow::Result<()> {
        self.key(key, 4);
        let value = u32::try_from(value)?;
        self.bytes.extend(value.to_le_bytes());
        Ok(())
    }

    /// Adds `GGUF_TYPE_FLOAT32`.
    pub(crate) fn number(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds `GGUF_TYPE_STRING`.
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        text(&mut self.bytes, value);
    }

    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }
}

impl Tensor {
    /// Numbers in the tensor.
    pub(crate) fn numbers(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of its data, without the padding after them.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match self.kind {
            Kind::F32 => self.numbers() * 4,
            Kind::Q8_0 => self.numbers() / BLOCK_WEIGHTS * BLOCK_BYTES,
        };
        bytes as u64
    }
}

/// Zero bytes that follow `written` bytes, so that what comes next is aligned.
pub(crate) fn padding(written: u64) -> &'static [u8] {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    &ZEROS[..missing as usize]
}

/// Writes the head and the padding up to the first tensor's data. The caller writes the tensors' data after it, in this
/// order and with [`padding`] after each.
pub(crate) fn write_head(
    sink: &mut impl Write,
    pairs: &Pairs,
    tensors: &[Tensor],
) -> io::Result<()> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((pairs.count as u64).to_le_bytes());
    head.extend(&pairs.bytes);
    let mut offset = 0;
    for tensor in tensors {
        line(&mut head, tensor, offset);
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    sink.write_all(&head)?;
    sink.write_all(padding(head.len() as u64))
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

fn line(head: &mut Vec<u8>, tensor: &Tensor, offset: u64) {
    text(head, &tensor.name);
    // At most four, in files and here.
    head.extend((tensor.shape.len() as u32).to_le_bytes());
    for length in tensor.shape.iter().rev() {
        head.extend((*length as u64).to_le_bytes());
    }
    // The numbers of `enum ggml_type`.
    let kind: u32 = match tensor.kind {
        Kind::F32 => 0,
        Kind::Q8_0 => 8,
    };
    head.extend(kind.to_le_bytes());
    head.extend(offset.to_le_bytes());
}

/// A block of Q8_0 as llama.cpp rounds it: the largest becomes 127.
pub(crate) fn block(numbers: &[f32; BLOCK_WEIGHTS]) -> [u8; BLOCK_BYTES] {
    let most = numbers.iter().fold(0.0_f32, |most, n| most.max(n.abs()));
    let scale = most / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut block = [0; BLOCK_BYTES];
    block[..2].copy_from_slice(&half(scale).to_le_bytes());
    for (byte, number) in block[2..].iter_mut().zip(numbers) {
        *byte = ((number * inverse).round() as i8).cast_unsigned();
    }
    block
}

/// The half nearest to a number that is not negative, the even one of two.
fn half(number: f32) -> u16 {
    const GREATEST: f32 = 65_504.0;
    if number >= GREATEST {
        return 0x7bff;
    }
    // Subnormal: multiples of 2^-24.
    if number < 6.103_515_6e-5 {
        return (number * 16_777_216.0).round_ties_even() as u16;
    }
    let bits = number.to_bits();
    let rounded = bits + 0xfff + (bits >> 13 & 1);
    // The exponent's bias is 127 there and 15 here.
    ((rounded >> 13) - (112 << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_the_bytes_that_gguf_h_asks_for() {
        let tensors = [Tensor {
            name: "t".to_owned(),
            shape: vec![3, 32],
            kind: Kind::Q8_0,
        }];
        let mut pairs = Pairs::default();
        pairs.whole("k", 7).expect("it fits");
        let mut head = Vec::new();
        write_head(&mut head, &pairs, &tensors).expect("a Vec takes all");

        let mut expected = Vec::new();
        expected.extend_from_slice(b"GGUF\x03\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0k\x04\0\0\0\x07\0\0\0");
        expected.extend_from_slice(b"\x01\0\0\0\0\0\0\0t\x02\0\0\0");
        expected.extend_from_slice(b"\x20\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        expected.extend_from_slice(b"\x08\0\0\0\0\0\0\0\0\0\0\0");
        expected.resize(expected.len().next_multiple_of(32), 0);
        assert_eq!(head, expected);
        assert_eq!(tensors[0].bytes(), 3 * 34);
    }

    #[test]
    fn padding_reaches_the_next_multiple_of_the_alignment_and_no_further() {
        assert_eq!(padding(0).len(), 0);
        assert_eq!(padding(1).len(), 31);
        assert_eq!(padding(64).len(), 0);
    }

    #[test]
    fn halves_are_rounded_to_the_nearest_and_to_the_even_one_of_two() {
        let known = [
            (0.0, 0),
            (1.0, 0x3c00),
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (65_504.0, 0x7bff),
            (1e9, 0x7bff),
            (6.103_515_6e-5, 0x0400),
            (6.103_3e-5, 0x0400),
            (5.960_464_5e-8, 1),
            (8.940_697e-8, 2),
        ];
        for (number, bits) in known {
            assert_eq!(half(number), bits, "{number}");
        }
    }

    #[test]
    fn the_largest_of_a_block_becomes_127_and_its_scale_a_half() {
        let mut numbers = [0.0; BLOCK_WEIGHTS];
        numbers[0] = -254.0;
        numbers[1] = 3.0;
        let block = block(&numbers);
        assert_eq!(block[..4], [0x00, 0x40, 0x81, 2]);
        assert_eq!(super::block(&[0.0; BLOCK_WEIGHTS]), [0; BLOCK_BYTES]);
    }
}
