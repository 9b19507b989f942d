//! The head of a GGUF file, version 3: metadata and the table of tensors. Not their data, which the
//! caller writes after it, in the table's order and with [`padding`] after each tensor.
//!
//! Rules: llama.cpp's `ggml/include/gguf.h`. Only the types that a Q8_0 Llama needs are here.

use std::io::{self, Write};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;
/// `general.alignment`'s default, which the files here keep.
const ALIGNMENT: u64 = 32;

/// A value in the metadata.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// `GGUF_TYPE_UINT32`
    U32(u32),
    /// `GGUF_TYPE_FLOAT32`
    F32(f32),
    /// `GGUF_TYPE_STRING`
    Text(&'a str),
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `GGML_TYPE_F32`
    F32,
    /// `GGML_TYPE_Q8_0`: blocks of an f16 scale and 32 weights of 8 bits
    Q8_0,
}

/// One line of the table of tensors.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The name that llama.cpp looks for.
    pub name: String,
    /// Length of a row, in numbers: contiguous in the file.
    pub columns: u32,
    /// Number of rows; `None` for a vector.
    pub rows: Option<u32>,
    /// How the numbers are stored.
    pub kind: Kind,
}

impl Tensor {
    /// Numbers in the tensor.
    pub fn len(&self) -> u64 {
        u64::from(self.columns) * u64::from(self.rows.unwrap_or(1))
    }

    /// Bytes of its data, without the padding after them.
    pub fn bytes(&self) -> u64 {
        match self.kind {
            Kind::F32 => self.len() * 4,
            Kind::Q8_0 => self.len() / 32 * 34,
        }
    }
}

/// Zero bytes that follow `written` bytes, so that what comes next is aligned.
pub fn padding(written: u64) -> &'static [u8] {
    const ZEROS: [u8; ALIGNMENT as usize] = [0; ALIGNMENT as usize];
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    &ZEROS[..missing as usize]
}

/// Writes the head and the padding up to the first tensor's data.
///
/// # Errors
/// The sink's.
pub fn write_head(
    sink: &mut impl Write,
    metadata: &[(&str, Value<'_>)],
    tensors: &[Tensor],
) -> io::Result<()> {
    let mut head = Vec::new();
    head.extend_from_slice(MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut head, key);
        entry(&mut head, *value);
    }
    let mut offset = 0;
    for tensor in tensors {
        line(&mut head, tensor, offset);
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    sink.write_all(&head)?;
    sink.write_all(padding(head.len() as u64))
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend_from_slice(&(text.len() as u64).to_le_bytes());
    head.extend_from_slice(text.as_bytes());
}

fn entry(head: &mut Vec<u8>, value: Value<'_>) {
    // The numbers of `enum gguf_type`.
    match value {
        Value::U32(number) => {
            head.extend_from_slice(&4_u32.to_le_bytes());
            head.extend_from_slice(&number.to_le_bytes());
        }
        Value::F32(number) => {
            head.extend_from_slice(&6_u32.to_le_bytes());
            head.extend_from_slice(&number.to_le_bytes());
        }
        Value::Text(string) => {
            head.extend_from_slice(&8_u32.to_le_bytes());
            text(head, string);
        }
    }
}

fn line(head: &mut Vec<u8>, tensor: &Tensor, offset: u64) {
    text(head, &tensor.name);
    let dimensions: u32 = if tensor.rows.is_some() { 2 } else { 1 };
    head.extend_from_slice(&dimensions.to_le_bytes());
    head.extend_from_slice(&u64::from(tensor.columns).to_le_bytes());
    if let Some(rows) = tensor.rows {
        head.extend_from_slice(&u64::from(rows).to_le_bytes());
    }
    // The numbers of `enum ggml_type`.
    let kind: u32 = match tensor.kind {
        Kind::F32 => 0,
        Kind::Q8_0 => 8,
    };
    head.extend_from_slice(&kind.to_le_bytes());
    head.extend_from_slice(&offset.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_the_bytes_that_gguf_h_asks_for() {
        let tensors = [Tensor {
            name: "t".to_owned(),
            columns: 32,
            rows: Some(3),
            kind: Kind::Q8_0,
        }];
        let mut head = Vec::new();
        write_head(&mut head, &[("k", Value::U32(7))], &tensors).expect("a Vec takes all");

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
}
