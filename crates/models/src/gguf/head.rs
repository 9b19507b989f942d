//! The head of a GGUF file: metadata and the table of tensors. Read with a budget of bytes, so that no number
//! in the file decides how much memory is taken.
//!
//! Rules: llama.cpp's `ggml/include/gguf.h`, versions 2 and 3.

use std::collections::BTreeMap;
use std::io::Read;

/// The largest vocabularies take some 20 MB: a quarter of a million tokens and half a million merges.
const HEAD_BYTES_MAX: u64 = 64 << 20;
/// Files in use have some 40 pairs.
const PAIRS_MAX: u64 = 4096;
/// Models of 128 layers have some 1,500.
const TENSORS_MAX: u64 = 4096;
/// Merges are the longest list that is needed.
const LIST_MAX: u64 = 1 << 20;
/// The format's own.
const KEY_BYTES_MAX: u64 = 65_535;
/// ggml's own, its final zero included.
const TENSOR_NAME_BYTES_MAX: u64 = 64;
/// A chat template is the longest string in use.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Magic, version, and the numbers of tensors and pairs stand before the pairs.
pub(super) const PAIRS_FROM: u64 = 24;
/// ggml's own.
const DIMENSIONS_MAX: u32 = 4;

/// A value in the metadata.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// A whole number of any width.
    Whole(i128),
    /// A number of 32 bits; one of 64 is rounded.
    Number(f32),
    /// `true` or `false`.
    Truth(bool),
    /// A string.
    Text(String),
    /// A list of strings.
    Texts(Vec<String>),
    /// A list of whole numbers of 32 bits.
    Wholes(Vec<i64>),
    /// A list of numbers of 32 bits.
    Numbers(Vec<f32>),
    /// A list that no model here needs. It was passed over.
    OtherList,
}

/// A line of the table of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    /// The length of a row first.
    pub(super) dimensions: Vec<u64>,
    pub(super) kind: u32,
    /// From the beginning of the data.
    pub(super) offset: u64,
}

/// What stands before the tensors' data.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) pairs: BTreeMap<String, Value>,
    pub(super) lines: Vec<Line>,
    /// Where the pairs end.
    pub(super) pairs_to: u64,
    /// How long it is.
    pub(super) bytes: u64,
}

/// Why a head is refused, in words.
pub(super) type Refusal = String;

impl Head {
    /// Reads a head from a file's beginning.
    pub(super) fn read(file: impl Read) -> Result<Self, Refusal> {
        let mut source = Source {
            file: file.take(HEAD_BYTES_MAX),
            read: 0,
        };
        if source.array()? != *b"GGUF" {
            return Err("it is no GGUF file".to_owned());
        }
        match u32::from_le_bytes(source.array()?) {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                return Err("it is one for big-endian machines".to_owned());
            }
            version => return Err(format!("its version is {version}; 2 and 3 are read")),
        }
        let tensors = within("tensors", source.u64()?, TENSORS_MAX)?;
        let count = within("keys", source.u64()?, PAIRS_MAX)?;
        let mut pairs = BTreeMap::new();
        for _ in 0..count {
            let key = source.text(KEY_BYTES_MAX)?;
            let kind = source.u32()?;
            let value = source.value(kind)?;
            if pairs.insert(key.clone(), value).is_some() {
                return Err(format!("the key {key:?} is there twice"));
            }
        }
        let pairs_to = source.read;
        let mut lines = Vec::new();
        for _ in 0..tensors {
            lines.push(source.line()?);
        }
        Ok(Self {
            pairs,
            lines,
            pairs_to,
            bytes: source.read,
        })
    }
}

/// A file that is read forwards.
struct Source<R> {
    file: std::io::Take<R>,
    read: u64,
}

impl<R: Read> Source<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Refusal> {
        let filled = self.file.read_exact(bytes);
        filled.map_err(|_| self.too_short())?;
        self.read += bytes.len() as u64;
        Ok(())
    }

    fn too_short(&self) -> Refusal {
        if self.file.limit() == 0 {
            format!("its head has more than {HEAD_BYTES_MAX} bytes")
        } else {
            "its head is cut off".to_owned()
        }
    }

    fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], Refusal> {
        let mut bytes = [0; BYTES];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Refusal> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Refusal> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self, max: u64) -> Result<String, Refusal> {
        let length = within("bytes in a string", self.u64()?, max)?;
        // Grows with what is read, not with what is promised.
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(length).read_to_end(&mut bytes);
        if read.map_err(|error| error.to_string())? as u64 != length {
            return Err(self.too_short());
        }
        self.read += length;
        String::from_utf8(bytes).map_err(|_| "a string in its head is no UTF-8".to_owned())
    }

    /// Passes over bytes.
    fn pass(&mut self, length: u64) -> Result<(), Refusal> {
        let mut passed = self.file.by_ref().take(length);
        let read = std::io::copy(&mut passed, &mut std::io::sink());
        if read.map_err(|error| error.to_string())? != length {
            return Err(self.too_short());
        }
        self.read += length;
        Ok(())
    }

    /// A value of one of the kinds of `enum gguf_type`.
    fn value(&mut self, kind: u32) -> Result<Value, Refusal> {
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Whole(self.u32()?.into()),
            5 => Value::Whole(i32::from_le_bytes(self.array()?).into()),
            6 => Value::Number(f32::from_le_bytes(self.array()?)),
            7 => match self.array()? {
                [0] => Value::Truth(false),
                [1] => Value::Truth(true),
                _ => return Err("a truth value in its head is neither 0 nor 1".to_owned()),
            },
            8 => Value::Text(self.text(TEXT_BYTES_MAX)?),
            9 => self.list()?,
            10 => Value::Whole(self.u64()?.into()),
            11 => Value::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Number(f64::from_le_bytes(self.array()?) as f32),
            _ => return Err(format!("a value in its head has the unknown type {kind}")),
        })
    }

    fn list(&mut self) -> Result<Value, Refusal> {
        let kind = self.u32()?;
        let length = within("members of a list", self.u64()?, LIST_MAX)?;
        let width = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            10..=12 => 8,
            6 => {
                let mut numbers = Vec::new();
                for _ in 0..length {
                    numbers.push(f32::from_le_bytes(self.array()?));
                }
                return Ok(Value::Numbers(numbers));
            }
            4 | 5 => {
                let mut wholes = Vec::new();
                for _ in 0..length {
                    let word = self.array()?;
                    let signed = || i32::from_le_bytes(word).into();
                    wholes.push(match kind {
                        4 => u32::from_le_bytes(word).into(),
                        _ => signed(),
                    });
                }
                return Ok(Value::Wholes(wholes));
            }
            8 => {
                let mut texts = Vec::new();
                for _ in 0..length {
                    texts.push(self.text(TEXT_BYTES_MAX)?);
                }
                return Ok(Value::Texts(texts));
            }
            _ => return Err(format!("a list in its head has members of type {kind}")),
        };
        self.pass(width * length)?;
        Ok(Value::OtherList)
    }

    fn line(&mut self) -> Result<Line, Refusal> {
        let name = self.text(TENSOR_NAME_BYTES_MAX)?;
        let count = self.u32()?;
        if !(1..=DIMENSIONS_MAX).contains(&count) {
            return Err(format!("the tensor {name} has {count} dimensions"));
        }
        let dimensions = (0..count).map(|_| self.u64());
        Ok(Line {
            name,
            dimensions: dimensions.collect::<Result<_, _>>()?,
            kind: self.u32()?,
            offset: self.u64()?,
        })
    }
}

fn within(what: &str, count: u64, max: u64) -> Result<u64, Refusal> {
    if count > max {
        return Err(format!(
            "its head names {count} {what}; at most {max} are taken"
        ));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn head(tensors: u64, pairs: u64, rest: &[u8]) -> Vec<u8> {
        let counts = [tensors.to_le_bytes(), pairs.to_le_bytes()].concat();
        [b"GGUF\x03\0\0\0".as_slice(), &counts, rest].concat()
    }

    fn refusal(bytes: &[u8]) -> String {
        Head::read(bytes).unwrap_err()
    }

    #[test]
    fn a_head_is_read_value_by_value() {
        let mut rest = text("whole");
        rest.extend([1, 0, 0, 0, 0xff]);
        rest.extend(text("list"));
        rest.extend([9, 0, 0, 0, 8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        rest.extend([text("a"), text("")].concat());
        rest.extend(text("other"));
        rest.extend([9, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        rest.extend(text("numbers"));
        rest.extend([
            9, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0,
        ]);
        rest.extend(text("t"));
        rest.extend([1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0]);
        rest.extend(64_u64.to_le_bytes());
        let bytes = head(1, 4, &rest);
        let head = Head::read(bytes.as_slice()).unwrap();
        assert_eq!(head.pairs["whole"], Value::Whole(-1));
        let list = Value::Texts(vec!["a".to_owned(), String::new()]);
        assert_eq!(head.pairs["list"], list);
        assert_eq!(head.pairs["other"], Value::OtherList);
        assert_eq!(head.pairs["numbers"], Value::Numbers(vec![-2.0]));
        let line = Line {
            name: "t".to_owned(),
            dimensions: vec![7],
            kind: 8,
            offset: 64,
        };
        assert_eq!((head.lines, head.bytes), (vec![line], bytes.len() as u64));
        for length in 0..bytes.len() {
            let words = refusal(&bytes[..length]);
            assert!(words.contains("cut off"), "{length}: {words}");
        }
    }

    #[test]
    fn numbers_of_a_head_are_held_to_their_bounds() {
        assert!(refusal(b"version https://git-lfs").contains("no GGUF"));
        assert!(refusal(b"GGUF\0\0\0\x03").contains("big-endian"));
        assert!(refusal(b"GGUF\x01\0\0\0").contains("version is 1"));
        assert!(refusal(&head(u64::MAX, 0, &[])).contains("tensors"));
        assert!(refusal(&head(0, u64::MAX, &[])).contains("keys"));
        let long = [&u64::MAX.to_le_bytes(), b"k".as_slice()].concat();
        assert!(refusal(&head(0, 1, &long)).contains("bytes in a string"));
        let list = [text("k"), vec![9, 0, 0, 0, 8, 0, 0, 0], vec![0xff; 8]].concat();
        assert!(refusal(&head(0, 1, &list)).contains("members"));
        let nested = [text("k"), vec![9, 0, 0, 0, 9, 0, 0, 0], vec![0; 8]].concat();
        assert!(refusal(&head(0, 1, &nested)).contains("type 9"));
        let twice = [text("k"), vec![7, 0, 0, 0, 1]].concat().repeat(2);
        assert!(refusal(&head(0, 2, &twice)).contains("twice"));
        let flat = [text("t"), vec![0; 4]].concat();
        assert!(refusal(&head(1, 0, &flat)).contains("0 dimensions"));
    }
}
