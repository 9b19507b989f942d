//! The weights of a checkpoint: one safetensors file, shards with an index, or a GGUF file. Read tensor by
//! tensor, or a range of rows at a time, so that a model never stands in memory in floating point.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;

use crate::adapter::Adapter;
use crate::encoding::Encoding;
use crate::error::ImportError;
use crate::folder::Folder;
use crate::gguf::Gguf;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// The largest models that the engine takes have some 1,200 tensors, in some 100 bytes each.
const INDEX_BYTES_MAX: u64 = 4 << 20;
/// As many tensors, in one header.
const HEADER_BYTES_MAX: u64 = 4 << 20;
/// Models of 70 billion parameters come in some 30 shards.
const SHARDS_MAX: usize = 512;

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Where a tensor stands.
#[derive(Debug)]
struct Entry {
    file: String,
    /// The type's name where it is none that is read.
    encoding: Result<Encoding, String>,
    shape: Vec<usize>,
    /// From the file's beginning.
    offset: u64,
    /// The width of a head whose rows stand in pairs, as llama.cpp turns them: row `i` of the first half, then
    /// row `i` of the second.
    paired: Option<usize>,
}

impl Entry {
    fn encoding(&self, name: &str) -> Result<Encoding, ImportError> {
        self.encoding.clone().map_err(|dtype| ImportError::Dtype {
            tensor: name.to_owned(),
            dtype,
        })
    }

    /// Where the row that is wanted stands.
    fn place(&self, row: usize) -> usize {
        let Some(head_dim) = self.paired else {
            return row;
        };
        let (head, row, half) = (row / head_dim, row % head_dim, head_dim / 2);
        let row = if row < half {
            2 * row
        } else {
            2 * (row - half) + 1
        };
        head * head_dim + row
    }
}

/// The tensors of a checkpoint, by name.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    folder: Folder,
    tensors: BTreeMap<String, Entry>,
    /// What is added to matrices as they are read.
    adapter: Option<Box<Adapter>>,
}

impl Checkpoint {
    /// Reads the headers of all files and holds them against the files' lengths and the index.
    pub(crate) fn open(folder: &Folder) -> Result<Self, ImportError> {
        let mut checkpoint = Self::empty(folder);
        if let Some(gguf) = folder.gguf() {
            checkpoint.add_gguf(gguf);
            return Ok(checkpoint);
        }
        if folder.has(SINGLE) {
            checkpoint.add_file(SINGLE)?;
            return Ok(checkpoint);
        }
        let index: Option<Index> = folder.json_if_there(INDEX, INDEX_BYTES_MAX)?;
        // Without either, reading the file says what is missing.
        let Some(index) = index else {
            if folder.has("pytorch_model.bin") || folder.has("pytorch_model.bin.index.json") {
                return Err(ImportError::OtherForm {
                    found: "pytorch_model.bin",
                    wanted: "model.safetensors",
                    remedy: "load it once with transformers and save it with save_pretrained",
                });
            }
            checkpoint.add_file(SINGLE)?;
            return Ok(checkpoint);
        };
        let mut files: Vec<&String> = index.weight_map.values().collect();
        files.sort_unstable();
        files.dedup();
        if files.len() > SHARDS_MAX {
            return Err(ImportError::corrupt(INDEX, "it names too many files"));
        }
        if let Some(file) = files.iter().find(|file| !is_plain_name(file)) {
            return Err(ImportError::LeavesFolder((*file).clone()));
        }
        for file in files {
            checkpoint.add_file(file)?;
        }
        for (tensor, file) in &index.weight_map {
            match checkpoint.tensors.get(tensor) {
                Some(entry) if entry.file == *file => {}
                _ => {
                    let reason = format!("{tensor} is not in {file}, where the index has it");
                    return Err(ImportError::corrupt(INDEX, reason));
                }
            }
        }
        Ok(checkpoint)
    }

    fn empty(folder: &Folder) -> Self {
        Self {
            folder: folder.clone(),
            tensors: BTreeMap::new(),
            adapter: None,
        }
    }

    /// Reads the header of one safetensors file.
    pub(crate) fn single(folder: &Folder, file: &str) -> Result<Self, ImportError> {
        let mut checkpoint = Self::empty(folder);
        checkpoint.add_file(file)?;
        Ok(checkpoint)
    }

    /// Merges an adapter into all matrices that are read from now on.
    pub(crate) fn adapt(&mut self, adapter: Adapter) -> Result<(), ImportError> {
        adapter.check(|name| Some(self.tensors.get(name)?.shape.as_slice()))?;
        self.adapter = Some(Box::new(adapter));
        Ok(())
    }

    /// The names of all tensors, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, tensor: &str) -> bool {
        self.tensors.contains_key(tensor)
    }

    /// The file was held against its head when it was opened.
    fn add_gguf(&mut self, gguf: &Gguf) {
        for (name, tensor) in gguf.tensors() {
            let entry = Entry {
                file: gguf.name().to_owned(),
                encoding: Ok(tensor.encoding),
                shape: tensor.shape.clone(),
                offset: tensor.offset,
                paired: gguf.paired(name),
            };
            self.tensors.insert(name.clone(), entry);
        }
    }

    fn add_file(&mut self, file: &str) -> Result<(), ImportError> {
        let (header, data_from) = self.header(file)?;
        for (name, info) in header.tensors() {
            let TensorInfo {
                dtype,
                shape,
                data_offsets,
            } = info;
            let entry = Entry {
                file: file.to_owned(),
                encoding: match dtype {
                    Dtype::F32 => Ok(Encoding::F32),
                    Dtype::F16 => Ok(Encoding::F16),
                    Dtype::BF16 => Ok(Encoding::BF16),
                    other => Err(format!("{other:?}")),
                },
                shape: shape.clone(),
                offset: data_from + data_offsets.0 as u64,
                paired: None,
            };
            if let Some(other) = self.tensors.insert(name.clone(), entry) {
                let reason = format!("{name} is in {} too", other.file);
                return Err(ImportError::corrupt(file, reason));
            }
        }
        Ok(())
    }

    /// A file's header, and where its data begins.
    fn header(&self, file: &str) -> Result<(Metadata, u64), ImportError> {
        let io = |error| self.folder.error(file, error);
        let mut opened = std::fs::File::open(self.folder.path(file)).map_err(io)?;
        let length = opened.metadata().map_err(io)?.len();
        let mut header_length = [0; 8];
        opened
            .read_exact(&mut header_length)
            .map_err(|_| ImportError::corrupt(file, "it is too short"))?;
        if header_length == *b"version " {
            return Err(ImportError::LfsPointer(file.to_owned()));
        }
        let header_length = u64::from_le_bytes(header_length);
        if header_length > HEADER_BYTES_MAX {
            return Err(ImportError::TooLong {
                file: format!("the header of {file}"),
                bytes: header_length,
                max: HEADER_BYTES_MAX,
            });
        }
        let mut header = Vec::new();
        opened
            .take(header_length)
            .read_to_end(&mut header)
            .map_err(io)?;
        // This also refuses offsets that overlap, leave gaps, or differ from type and shape.
        let header: Metadata =
            serde_json::from_slice(&header).map_err(|error| ImportError::corrupt(file, error))?;
        let data_from = 8 + header_length;
        if (header.data_len() as u64).checked_add(data_from) != Some(length) {
            return Err(ImportError::corrupt(
                file,
                "it is not as long as its header says",
            ));
        }
        Ok((header, data_from))
    }

    /// Holds the tensors against those that there must be, and refuses what is neither among these nor
    /// `ignored`.
    pub(crate) fn check(
        &self,
        expected: &BTreeMap<String, Vec<usize>>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<(), ImportError> {
        for (name, shape) in expected {
            let entry = self.entry(name)?;
            entry.encoding(name)?;
            if entry.shape != *shape {
                return Err(ImportError::Shape {
                    tensor: name.clone(),
                    expected: shape.clone(),
                    found: entry.shape.clone(),
                });
            }
        }
        let unknown = |name: &&String| !expected.contains_key(*name) && !ignored(name);
        match self.tensors.keys().find(unknown) {
            Some(name) => Err(ImportError::TensorExtra(name.clone())),
            None => Ok(()),
        }
    }

    /// All of a tensor, row after row. Costs four bytes an element, and its own size while reading.
    pub(crate) fn tensor(&self, name: &str) -> Result<Vec<f32>, ImportError> {
        let rows = self.entry(name)?.shape.first().copied().unwrap_or(1);
        self.rows(name, 0, rows)
    }

    /// Rows `first..first + count` of a tensor that was checked.
    pub(crate) fn rows(
        &self,
        name: &str,
        first: usize,
        count: usize,
    ) -> Result<Vec<f32>, ImportError> {
        let entry = self.entry(name)?;
        let encoding = entry.encoding(name)?;
        let columns: usize = entry.shape.iter().skip(1).product();
        let io = |error| self.folder.error(&entry.file, error);
        let whole_blocks = || ImportError::corrupt(&entry.file, format!("rows of {name}"));
        let mut file = std::fs::File::open(self.folder.path(&entry.file)).map_err(io)?;
        // A vector is one row, or as many as it has numbers.
        let (row_numbers, rows, skipped) = match entry.paired {
            Some(_) => (columns, first..first + count, 0),
            None => (count * columns, 0..1, first * columns),
        };
        let skipped = encoding.bytes(skipped).ok_or_else(whole_blocks)?;
        let row_bytes = encoding.bytes(row_numbers).ok_or_else(whole_blocks)?;
        // No more than the file has, by its header's check; in numbers, eight times that at most.
        let mut values = Vec::with_capacity(count * columns);
        let mut bytes = vec![0; row_bytes];
        for row in rows {
            let from = skipped + entry.place(row) * row_bytes;
            let from = SeekFrom::Start(entry.offset + from as u64);
            file.seek(from).map_err(io)?;
            file.read_exact(&mut bytes).map_err(io)?;
            encoding.decode(&bytes, &mut values);
        }
        let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
        let mut is_finite = finite(&values);
        if let Some(adapter) = self.adapter.as_deref().filter(|_| is_finite) {
            adapter.add(name, first, columns, &mut values)?;
            is_finite = finite(&values);
        }
        match is_finite {
            true => Ok(values),
            false => Err(ImportError::NotFinite(name.to_owned())),
        }
    }

    fn entry(&self, name: &str) -> Result<&Entry, ImportError> {
        let entry = self.tensors.get(name);
        entry.ok_or_else(|| ImportError::TensorMissing(name.to_owned()))
    }
}

/// Whether this names a file of a folder, and not another folder or a way out.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let plain = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    plain && parts.next().is_none() && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_files_of_the_folder() {
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for name in [
            "",
            ".",
            "..",
            "../a",
            "/etc/passwd",
            "a/b",
            "a/",
            "./a",
            "a\\b",
            "C:a",
        ] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
