//! A file that is being gathered. It is locked, so that two processes never write one, and its head is
//! checked as soon as it is there, so that no more is taken of a file that cannot be the model.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dovetail_commitment::ModelId;
use dovetail_engine::{EngineError, Head};

use super::FetchError;

/// The file and what is known of it.
pub(super) struct PartialFile {
    path: PathBuf,
    file: File,
    id: ModelId,
    bytes: u64,
    /// The whole file's length, once the head was checked.
    whole_bytes: Option<u64>,
}

impl PartialFile {
    /// Goes on with what lies at `path`, where it can be the beginning of this model.
    pub(super) fn open(path: &Path, id: ModelId) -> Result<Self, FetchError> {
        let fault = |source| FetchError::file(path, source);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fault)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FetchError::Busy(path.to_owned()),
            TryLockError::Error(source) => fault(source),
        })?;
        let bytes = file.metadata().map_err(fault)?.len();
        let mut partial = Self {
            path: path.to_owned(),
            file,
            id,
            bytes,
            whole_bytes: None,
        };
        let begins_right = partial.check_head().is_ok();
        let fits = partial.whole_bytes.is_none_or(|whole| bytes <= whole);
        if !begins_right || !fits {
            partial.restart()?;
        }
        Ok(partial)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> ModelId {
        self.id
    }

    /// How much is there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_whole(&self) -> bool {
        self.whole_bytes == Some(self.bytes)
    }

    /// Adds what comes next of a file that is said to be so long.
    ///
    /// # Errors
    /// [`FetchError::NotTheModel`] where the head is another's or says another length; the file is gone then.
    pub(super) fn append(&mut self, data: &[u8], file_bytes: u64) -> Result<(), FetchError> {
        if self.bytes.saturating_add(data.len() as u64) > file_bytes {
            return Err(FetchError::Protocol("it sent more than the file has"));
        }
        self.file
            .seek(SeekFrom::Start(self.bytes))
            .and_then(|_| self.file.write_all(data))
            .map_err(|source| FetchError::file(&self.path, source))?;
        self.bytes += data.len() as u64;
        let checked = self.check_against(file_bytes);
        checked.map_err(|source| {
            self.discard();
            FetchError::NotTheModel {
                id: self.id,
                source,
            }
        })
    }

    /// Whether what is there can be the beginning of the model in a file of this length.
    fn check_against(&mut self, file_bytes: u64) -> Result<(), EngineError> {
        self.check_head()?;
        match self.whole_bytes {
            Some(whole) if whole != file_bytes => Err(EngineError::Format(
                "the file is not as long as its header says",
            )),
            None if self.bytes == file_bytes => Err(EngineError::Format("no safetensors header")),
            _ => Ok(()),
        }
    }

    /// Looks at the head, if it is there and was not looked at.
    fn check_head(&mut self) -> Result<(), EngineError> {
        if self.whole_bytes.is_some() || !self.has_head()? {
            return Ok(());
        }
        self.file.rewind()?;
        let head = Head::read(&mut self.file)?;
        if head.id() != self.id {
            return Err(EngineError::Format("it is another model"));
        }
        self.whole_bytes = Some(head.file_bytes());
        Ok(())
    }

    /// Whether as much is there as the first eight bytes say that the head has.
    fn has_head(&mut self) -> Result<bool, EngineError> {
        let mut length = [0; 8];
        if self.bytes < length.len() as u64 {
            return Ok(false);
        }
        self.file.rewind()?;
        std::io::Read::read_exact(&mut self.file, &mut length)?;
        let head = u64::from_le_bytes(length).saturating_add(8);
        // One that is too long is refused without waiting for it.
        Ok(self.bytes >= head || head > Head::BYTES_MAX)
    }

    /// Begins again with nothing.
    pub(super) fn restart(&mut self) -> Result<(), FetchError> {
        let emptied = self.file.set_len(0);
        emptied.map_err(|source| FetchError::file(&self.path, source))?;
        self.bytes = 0;
        self.whole_bytes = None;
        Ok(())
    }

    /// Gives the file its name. It lasts once this returns.
    pub(super) fn publish(self, file: &Path) -> Result<(), FetchError> {
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, file))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|source| FetchError::file(file, source))
    }

    /// Leaves nothing behind of what is of no use.
    pub(super) fn discard(&mut self) {
        // If it stays, the next attempt finds out about it again.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_engine::{Model, tiny};

    fn model() -> (Vec<u8>, ModelId) {
        let file = tiny::generate(1);
        let id = Model::from_bytes(&file).unwrap().id();
        (file, id)
    }

    #[test]
    fn what_lies_there_is_gone_on_with_only_if_it_begins_like_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.partial");
        let (file, id) = model();
        let longer = [file.as_slice(), b"x"].concat();
        for (there, kept) in [
            (&file[..5], 5),
            (&file[..50_000], 50_000),
            (&file[..], file.len()),
            (&longer[..], 0),
            (&[0xff; 100][..], 0),
            (&tiny::generate(2)[..50_000], 0),
        ] {
            std::fs::write(&path, there).unwrap();
            let partial = PartialFile::open(&path, id).unwrap();
            assert_eq!(partial.bytes(), kept as u64);
            assert_eq!(partial.is_whole(), kept == file.len());
        }
    }

    #[test]
    fn two_processes_do_not_gather_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.partial");
        let (_, id) = model();
        let _first = PartialFile::open(&path, id).unwrap();
        let second = PartialFile::open(&path, id);
        assert!(matches!(second, Err(FetchError::Busy(_))));
    }

    #[test]
    fn another_model_is_refused_with_its_head_and_junk_with_its_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.partial");
        let (file, id) = model();
        let length = file.len() as u64;
        for wrong in [&tiny::generate(2)[..10_000], &[0xff; 100][..]] {
            let mut partial = PartialFile::open(&path, id).unwrap();
            let refused = partial.append(wrong, length);
            assert!(matches!(refused, Err(FetchError::NotTheModel { .. })));
            assert!(!path.exists());
        }
        let mut partial = PartialFile::open(&path, id).unwrap();
        let refused = partial.append(&file, length + 1);
        assert!(matches!(refused, Err(FetchError::NotTheModel { .. })));
    }
}
