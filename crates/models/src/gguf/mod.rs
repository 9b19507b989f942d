//! A GGUF file, llama.cpp's own format, as a checkpoint: its tensors by the names that Hugging Face's layout has
//! for them, and the files of that layout which its metadata stand for. From there the import is the same.

mod config;
mod head;
mod parts;
mod pieces;
mod tokenizer;

pub use parts::GgufParts;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::encoding::Encoding;
use crate::error::ImportError;
use crate::folder::LFS_POINTER;
use head::{Head, Line, Value};

/// What tensors' places are multiples of, where the file says nothing.
const ALIGNMENT_DEFAULT: i128 = 32;
/// Files in use have 32, some 4,096.
const ALIGNMENT_MAX: i128 = 1 << 16;
/// Divisors of the rotary frequencies: they are none of the layers' tensors.
const ROPE_DIVISORS: &str = "rope_freqs.weight";
/// Half of the widest head.
const ROPE_DIVISORS_MAX: usize = 128;
const HEAD: &str = "output.weight";

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) encoding: Encoding,
    /// The length of a row last.
    pub(crate) shape: Vec<usize>,
    /// From the file's beginning.
    pub(crate) offset: u64,
}

/// A file whose head was read and held against its length.
#[derive(Debug)]
pub(crate) struct Gguf {
    name: String,
    /// By Hugging Face's names.
    tensors: BTreeMap<String, Tensor>,
    files: BTreeMap<&'static str, Vec<u8>>,
    rope_divisors: Vec<f64>,
    /// The width of a head, where llama.cpp turned the rows of queries and keys.
    paired_head_dim: Option<usize>,
}

impl Gguf {
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let (name, mut file, head, length) = open(path)?;
        let corrupt = |reason: String| ImportError::corrupt(&name, reason);
        let metadata = Metadata(head.pairs);
        let mut tensors = place(&metadata, &head.lines, head.bytes, length, &corrupt)?;
        let divisors_at = tensors.remove(ROPE_DIVISORS);
        let rope_divisors = divisors(&mut file, divisors_at.as_ref())?;
        let shape = config::Shape::read(&metadata)?;
        let tokens = tokenizer::Tokens::read(&metadata)?;
        let tied = !tensors.contains_key(HEAD);
        let config = shape.config_json(tokens.count(), tied, &tokens.end_tokens()?);
        let files = BTreeMap::from([
            ("config.json", config),
            ("tokenizer.json", tokens.tokenizer_json()?),
            ("tokenizer_config.json", tokens.config_json()?),
        ]);
        let paired_head_dim = shape.paired_head_dim();
        let mut named = BTreeMap::new();
        for (name, tensor) in tensors {
            let translated = translated(&name);
            if named.insert(translated, tensor).is_some() {
                return Err(corrupt(format!("two tensors serve as {name}")));
            }
        }
        Ok(Self {
            name,
            tensors: named,
            files,
            rope_divisors,
            paired_head_dim,
        })
    }

    /// The file's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A file of Hugging Face's layout, made from the metadata.
    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// What the frequency of each pair of a head is divided by; empty where by nothing.
    pub(crate) fn rope_divisors(&self) -> &[f64] {
        &self.rope_divisors
    }

    /// The width of a head, for a tensor whose rows llama.cpp turned.
    pub(crate) fn paired(&self, tensor: &str) -> Option<usize> {
        let turned = [".q_proj.weight", ".k_proj.weight"];
        let turned = turned.iter().any(|end| tensor.ends_with(end));
        self.paired_head_dim.filter(|_| turned)
    }
}

/// A file's name, itself, its head and its length.
fn open(path: &Path) -> Result<(String, File, Head, u64), ImportError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let io = |source| ImportError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    let mut beginning = Vec::new();
    let pointer = LFS_POINTER.len() as u64;
    let read = file.by_ref().take(pointer).read_to_end(&mut beginning);
    read.map_err(io)?;
    if beginning == LFS_POINTER {
        return Err(ImportError::LfsPointer(name.into_owned()));
    }
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let head = Head::read(BufReader::new(&mut file));
    let head = head.map_err(|reason| ImportError::corrupt(&name, reason))?;
    Ok((name.into_owned(), file, head, length))
}

/// The pairs of a file's metadata.
struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    fn refusal(key: &str, reason: impl Into<String>) -> ImportError {
        ImportError::Metadata {
            key: key.to_owned(),
            reason: reason.into(),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&str>, ImportError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Self::refusal(key, "is no string")),
        }
    }

    fn truth(&self, key: &str) -> Result<Option<bool>, ImportError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Truth(truth)) => Ok(Some(*truth)),
            Some(_) => Err(Self::refusal(key, "is neither true nor false")),
        }
    }

    /// A count or a number of something, in the bounds of 32 bits.
    fn count(&self, key: &str) -> Result<Option<u32>, ImportError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Whole(whole)) => u32::try_from(*whole)
                .map(Some)
                .map_err(|_| Self::refusal(key, "is out of bounds")),
            Some(_) => Err(Self::refusal(key, "is no whole number")),
        }
    }

    /// A number as people write it: 1e-5, and not the nearest one of 32 bits.
    fn number(&self, key: &str) -> Result<Option<f64>, ImportError> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Number(number)) if number.is_finite() => {
                Ok(number.to_string().parse().ok())
            }
            Some(_) => Err(Self::refusal(key, "is no finite number")),
        }
    }

    fn texts(&self, key: &str) -> Result<&[String], ImportError> {
        match self.0.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            Some(_) => Err(Self::refusal(key, "is no list of strings")),
            None => Err(Self::refusal(key, "is missing")),
        }
    }
}

/// Where the tensors stand: inside the file, none over another.
fn place(
    metadata: &Metadata,
    lines: &[Line],
    head_bytes: u64,
    length: u64,
    corrupt: &dyn Fn(String) -> ImportError,
) -> Result<BTreeMap<String, Tensor>, ImportError> {
    let key = "general.alignment";
    let alignment = match metadata.0.get(key) {
        None => ALIGNMENT_DEFAULT,
        Some(Value::Whole(alignment)) => *alignment,
        Some(_) => 0,
    };
    let alignment = match u64::try_from(alignment) {
        Ok(a) if a.is_power_of_two() && alignment <= ALIGNMENT_MAX => a,
        _ => return Err(Metadata::refusal(key, "is no power of two up to 65536")),
    };
    let data_from = head_bytes.next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    let mut places = Vec::new();
    for line in lines {
        let name = &line.name;
        let encoding = encoding(line)?;
        let (shape, bytes) = size(line, encoding)
            .ok_or_else(|| corrupt(format!("the tensor {name} has a shape that cannot be")))?;
        let end = line.offset.checked_add(bytes);
        let end = end.and_then(|end| end.checked_add(data_from));
        let Some(end) = end.filter(|end| *end <= length) else {
            return Err(corrupt(format!("the tensor {name} reaches beyond its end")));
        };
        if !line.offset.is_multiple_of(alignment) {
            return Err(corrupt(format!("the tensor {name} is not aligned")));
        }
        let offset = data_from + line.offset;
        places.push((offset, end, name));
        let tensor = Tensor {
            encoding,
            shape,
            offset,
        };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(corrupt(format!("the tensor {name} is there twice")));
        }
    }
    places.sort_unstable();
    if let Some([a, b]) = places.array_windows().find(|[a, b]| a.1 > b.0) {
        let (a, b) = (a.2, b.2);
        return Err(corrupt(format!("the tensors {a} and {b} overlap")));
    }
    Ok(tensors)
}

/// A tensor's shape, rows first, and its bytes; `None` where it has no numbers, too many, or rows that are not
/// whole blocks.
fn size(line: &Line, encoding: Encoding) -> Option<(Vec<usize>, u64)> {
    let shape = line.dimensions.iter().rev();
    let shape: Option<Vec<usize>> = shape.map(|length| usize::try_from(*length).ok()).collect();
    let shape = shape?;
    let row = encoding.bytes(*shape.last()?)?;
    let rows = shape.iter().rev().skip(1);
    let bytes = rows.copied().try_fold(row, usize::checked_mul)?;
    // Numbers take more memory than their blocks, by a factor of 8 at most.
    let fits = bytes > 0 && bytes.checked_mul(8).is_some();
    fits.then_some((shape, bytes as u64))
}

/// The types of `enum ggml_type` that are read.
fn encoding(line: &Line) -> Result<Encoding, ImportError> {
    Ok(match line.kind {
        0 => Encoding::F32,
        1 => Encoding::F16,
        2 => Encoding::Q4_0,
        3 => Encoding::Q4_1,
        6 => Encoding::Q5_0,
        7 => Encoding::Q5_1,
        8 => Encoding::Q8_0,
        12 => Encoding::Q4_K,
        13 => Encoding::Q5_K,
        14 => Encoding::Q6_K,
        30 => Encoding::BF16,
        other => {
            return Err(ImportError::Dtype {
                tensor: line.name.clone(),
                dtype: kind_name(other),
            });
        }
    })
}

/// The names of types that people have files of.
fn kind_name(kind: u32) -> String {
    let name = match kind {
        10 => "Q2_K",
        11 => "Q3_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("number {other} of GGUF's"),
    };
    name.to_owned()
}

/// The divisors of the rotary frequencies; empty where there are none.
fn divisors(file: &mut File, tensor: Option<&Tensor>) -> Result<Vec<f64>, ImportError> {
    let Some(tensor) = tensor else {
        return Ok(Vec::new());
    };
    let refusal = |reason: &str| ImportError::Rope(format!("{ROPE_DIVISORS} {reason}"));
    let [length] = tensor.shape[..] else {
        return Err(refusal("is no vector"));
    };
    if length > ROPE_DIVISORS_MAX || tensor.encoding != Encoding::F32 {
        return Err(refusal("is too long or not in F32"));
    }
    let mut bytes = vec![0; 4 * length];
    file.seek(SeekFrom::Start(tensor.offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|_| refusal("cannot be read"))?;
    let mut divisors = Vec::new();
    tensor.encoding.decode(&bytes, &mut divisors);
    let divisors: Vec<f64> = divisors.into_iter().map(f64::from).collect();
    if !divisors
        .iter()
        .all(|divisor| (1e-6..=1e6).contains(divisor))
    {
        return Err(refusal("has a number that is out of bounds"));
    }
    Ok(divisors)
}

/// A tensor's name in Hugging Face's layout. One that has none keeps its own, which is refused later.
fn translated(name: &str) -> String {
    let outside = match name {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        HEAD => Some("lm_head.weight"),
        _ => None,
    };
    if let Some(name) = outside {
        return name.to_owned();
    }
    let part = name.strip_prefix("blk.").and_then(|rest| {
        let (layer, part) = rest.split_once('.')?;
        let (part, kind) = part.split_once('.')?;
        let part = match part {
            "attn_norm" => "input_layernorm",
            "ffn_norm" => "post_attention_layernorm",
            "attn_q" => "self_attn.q_proj",
            "attn_k" => "self_attn.k_proj",
            "attn_v" => "self_attn.v_proj",
            "attn_output" => "self_attn.o_proj",
            "ffn_gate" => "mlp.gate_proj",
            "ffn_up" => "mlp.up_proj",
            "ffn_down" => "mlp.down_proj",
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{part}.{kind}"))
    });
    part.unwrap_or_else(|| name.to_owned())
}
