//! How a tensor's numbers are stored, and how they become 32-bit floats: as they are in safetensors, or in the
//! blocks of GGUF files.
//!
//! Rules: llama.cpp's `ggml/src/ggml-quants.c` (`dequantize_row_*`). Each number takes one product or a product
//! and a difference, in 32 bits and in this order, so that every machine gets the same bits.

/// The types that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(non_camel_case_types)] // The names that people know.
pub(crate) enum Encoding {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Numbers in a block of the older types.
const SMALL: usize = 32;
/// Numbers in a block of the `_K` types.
const LARGE: usize = 256;

impl Encoding {
    /// Numbers in a block. A row is whole blocks.
    pub(crate) fn block_numbers(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => SMALL,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => LARGE,
        }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
        }
    }

    /// Bytes of this many numbers, which are whole blocks; `None` where they are not, or too many.
    pub(crate) fn bytes(self, numbers: usize) -> Option<usize> {
        if !numbers.is_multiple_of(self.block_numbers()) {
            return None;
        }
        (numbers / self.block_numbers()).checked_mul(self.block_bytes())
    }

    /// Appends the numbers of whole blocks.
    pub(crate) fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::F32 => blocks(bytes, out, |word, out| out.push(f32::from_le_bytes(*word))),
            Self::F16 => blocks(bytes, out, |half, out| out.push(from_half(*half))),
            Self::BF16 => blocks(bytes, out, |half, out| {
                out.push(f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16));
            }),
            Self::Q4_0 => blocks(bytes, out, q4_0),
            Self::Q4_1 => blocks(bytes, out, q4_1),
            Self::Q5_0 => blocks(bytes, out, q5_0),
            Self::Q5_1 => blocks(bytes, out, q5_1),
            Self::Q8_0 => blocks(bytes, out, q8_0),
            Self::Q4_K => blocks(bytes, out, q4_k),
            Self::Q5_K => blocks(bytes, out, q5_k),
            Self::Q6_K => blocks(bytes, out, q6_k),
        }
    }
}

fn blocks<const BYTES: usize>(
    bytes: &[u8],
    out: &mut Vec<f32>,
    block: fn(&[u8; BYTES], &mut Vec<f32>),
) {
    for bytes in bytes.as_chunks::<BYTES>().0 {
        block(bytes, out);
    }
}

fn q4_0(block: &[u8; 18], out: &mut Vec<f32>) {
    let scale = from_half([block[0], block[1]]);
    let steps = nibbles(&block[2..]).map(|step| f32::from(step) - 8.0);
    out.extend(steps.map(|step| scale * step));
}

fn q4_1(block: &[u8; 20], out: &mut Vec<f32>) {
    let (scale, least) = halves(block);
    out.extend(nibbles(&block[4..]).map(|step| scale * f32::from(step) + least));
}

fn q5_0(block: &[u8; 22], out: &mut Vec<f32>) {
    let scale = from_half([block[0], block[1]]);
    let steps = fives(&block[2..]).map(|step| f32::from(step) - 16.0);
    out.extend(steps.map(|step| scale * step));
}

fn q5_1(block: &[u8; 24], out: &mut Vec<f32>) {
    let (scale, least) = halves(block);
    out.extend(fives(&block[4..]).map(|step| scale * f32::from(step) + least));
}

fn q8_0(block: &[u8; 34], out: &mut Vec<f32>) {
    let scale = from_half([block[0], block[1]]);
    let steps = block[2..].iter();
    out.extend(steps.map(|step| f32::from(step.cast_signed()) * scale));
}

fn q4_k(block: &[u8; 144], out: &mut Vec<f32>) {
    let steps = &block[16..];
    for part in 0..8 {
        let (scale, least) = scale_and_least(block, part);
        let shift = 4 * (part % 2);
        let steps = steps[part / 2 * 32..][..32].iter();
        out.extend(steps.map(|step| scale * f32::from(step >> shift & 15) - least));
    }
}

fn q5_k(block: &[u8; 176], out: &mut Vec<f32>) {
    let (fifths, steps) = (&block[16..48], &block[48..]);
    for part in 0..8 {
        let (scale, least) = scale_and_least(block, part);
        let shift = 4 * (part % 2);
        let steps = steps[part / 2 * 32..][..32].iter().zip(fifths);
        let steps = steps.map(|(step, fifth)| step >> shift & 15 | (fifth >> part & 1) << 4);
        out.extend(steps.map(|step| scale * f32::from(step) - least));
    }
}

fn q6_k(block: &[u8; 210], out: &mut Vec<f32>) {
    let (fours, twos, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let scale = from_half([block[208], block[209]]);
    for part in 0..8 {
        // Two halves of four parts each. The first two parts of a half have the lower bits of its bytes.
        let (half, quarter) = (part / 4, part % 4);
        let fours = &fours[64 * half + 32 * (quarter % 2)..][..32];
        let twos = &twos[32 * half..][..32];
        for (at, (four, two)) in fours.iter().zip(twos).enumerate() {
            let step = four >> (4 * (quarter / 2)) & 15 | (two >> (2 * quarter) & 3) << 4;
            let scale = scale * f32::from(scales[2 * part + at / 16].cast_signed());
            out.push(scale * (f32::from(step) - 32.0));
        }
    }
}

/// The scale and the subtrahend of a part of a `_K` block: two halves, each times one of sixteen numbers of
/// 6 bits that stand in 12 bytes.
fn scale_and_least(block: &[u8], part: usize) -> (f32, f32) {
    let (scale, least) = halves(block);
    let packed = &block[4..16];
    let (of_scale, of_least) = if part < 4 {
        (packed[part] & 63, packed[part + 4] & 63)
    } else {
        let low = packed[part + 4];
        (
            low & 15 | packed[part - 4] >> 6 << 4,
            low >> 4 | packed[part] >> 6 << 4,
        )
    };
    (scale * f32::from(of_scale), least * f32::from(of_least))
}

/// Two halves at the beginning of a block.
fn halves(block: &[u8]) -> (f32, f32) {
    (
        from_half([block[0], block[1]]),
        from_half([block[2], block[3]]),
    )
}

/// The lower 4 bits of each byte, then the upper ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let lower = bytes.iter().map(|byte| byte & 15);
    lower.chain(bytes.iter().map(|byte| byte >> 4))
}

/// Numbers of 5 bits: the fifth bits of all stand in the first 4 bytes.
fn fives(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let fifths = bytes[..4].iter();
    let fifths = fifths.flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
    nibbles(&bytes[4..])
        .zip(fifths)
        .map(|(step, fifth)| step | fifth << 4)
}

/// An IEEE 754 half: 1 bit of sign, 5 of exponent, 10 of fraction. All of them are exact in 32 bits.
fn from_half(half: [u8; 2]) -> f32 {
    let half = u16::from_le_bytes(half);
    let (exponent, fraction) = (u32::from(half >> 10 & 31), u32::from(half & 1023));
    let size = match exponent {
        // Subnormal: the fraction times 2^-24. Below 2^10, so exact.
        0 => fraction as f32 / 16_777_216.0,
        31 if fraction == 0 => f32::INFINITY,
        31 => f32::NAN,
        _ => f32::from_bits((exponent + 127 - 15) << 23 | fraction << 13),
    };
    if half >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        bytes: String,
        values: String,
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
        let pairs = text.as_bytes().as_chunks::<2>().0.iter();
        pairs.map(|[a, b]| digit(*a) << 4 | digit(*b)).collect()
    }

    #[test]
    fn blocks_are_read_as_the_python_package_gguf_reads_them() {
        let golden: BTreeMap<String, Golden> =
            serde_json::from_str(include_str!("../tests/golden/blocks.json")).unwrap();
        let encodings = [
            Encoding::F32,
            Encoding::F16,
            Encoding::BF16,
            Encoding::Q4_0,
            Encoding::Q4_1,
            Encoding::Q5_0,
            Encoding::Q5_1,
            Encoding::Q8_0,
            Encoding::Q4_K,
            Encoding::Q5_K,
            Encoding::Q6_K,
        ];
        assert_eq!(golden.len(), encodings.len());
        for encoding in encodings {
            let golden = &golden[&format!("{encoding:?}")];
            let bytes = unhex(&golden.bytes);
            let mut values = Vec::new();
            encoding.decode(&bytes, &mut values);
            assert_eq!(encoding.bytes(values.len()), Some(bytes.len()));
            let ours: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert!(ours == unhex(&golden.values), "{encoding:?}");
        }
    }

    #[test]
    fn a_row_is_whole_blocks() {
        assert_eq!(Encoding::Q4_0.bytes(64), Some(36));
        assert_eq!(Encoding::Q4_0.bytes(48), None);
        assert_eq!(Encoding::Q6_K.bytes(512), Some(420));
        assert_eq!(Encoding::F32.bytes(usize::MAX), None);
    }

    #[test]
    fn halves_are_read_exactly() {
        let known: [(u16, f32); 7] = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0400, 6.103_515_6e-5),
            (0x03ff, 6.097_555e-5),
            (0x0001, 5.960_464_5e-8),
        ];
        for (bits, value) in known {
            assert_eq!(from_half(bits.to_le_bytes()), value, "{bits:#x}");
        }
        let half = |bits: u16| from_half(bits.to_le_bytes());
        assert!(half(0x8000).is_sign_negative());
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }
}
