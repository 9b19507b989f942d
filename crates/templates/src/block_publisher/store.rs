//! The folder of solved blocks that nobody has judged yet: a synced file for each. It blocks: callers run it away
//! from the runtime's threads.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use bitcoin::BlockHash;
use dovetail_units::consensus::BLOCK_BYTES_MAX;

use super::record::Record;
use super::solved_block::SolvedBlock;

/// Blocks that may wait at a time, of up to 8 MB of file each. A pool that has more of them within a day mines a
/// test network.
pub(super) const WAITING_MAX: usize = 64;
/// Files that are kept of blocks that need nothing any more, in each folder for them.
const ASIDE_MAX: usize = 64;
/// A whole block in hex, its parts besides, and room.
const FILE_BYTES_MAX: u64 = 2 * BLOCK_BYTES_MAX as u64 + 1_000_000;

/// Where a file goes that is not sent (again).
#[derive(Debug, Clone, Copy)]
pub(super) enum Aside {
    /// The node refused the block, or it is too deep to matter.
    Judged,
    /// The block cannot be put together: a person has to look at it.
    Broken,
    /// The file is damaged.
    Damaged,
}

impl Aside {
    fn folder(self) -> &'static str {
        match self {
            Self::Judged => "judged",
            Self::Broken => "broken",
            Self::Damaged => "damaged",
        }
    }
}

/// The folder.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// The folder itself, locked for as long as this process uses it.
    locked: OnceLock<File>,
}

impl Store {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            locked: OnceLock::new(),
        }
    }

    /// The blocks of an earlier run with the times at which they were found, the oldest first. What is no block is
    /// set aside, and so are the oldest where there are too many.
    pub(super) fn load(&self) -> io::Result<Vec<(SolvedBlock, u64)>> {
        fs::create_dir_all(&self.dir)?;
        let is_alone = self.lock()?;
        let mut blocks = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                // A crash left it half-written; its block was not written down yet. Or another process is writing it.
                if is_alone {
                    fs::remove_file(&path)?;
                }
            } else if path.is_file() {
                match read(&path) {
                    Ok(block) => blocks.push(block),
                    Err(reason) => {
                        tracing::error!(path = %path.display(), reason, "a damaged file of a solved block is set aside");
                        self.move_aside(&path, Aside::Damaged)?;
                    }
                }
            }
        }
        blocks.sort_by_key(|(_, found_at_unix)| *found_at_unix);
        let surplus = blocks.len().saturating_sub(WAITING_MAX);
        for (block, _) in blocks.drain(..surplus) {
            tracing::error!(hash = %block.hash(), "too many blocks wait; the oldest is set aside");
            self.set_aside(block.hash(), Aside::Judged)?;
        }
        Ok(blocks)
    }

    /// Whether no other process uses the folder. Where one does, both send its blocks, which is harmless.
    fn lock(&self) -> io::Result<bool> {
        let dir = File::open(&self.dir)?;
        match dir.try_lock() {
            Ok(()) => {
                // Nobody else loads this store.
                let _ = self.locked.set(dir);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => {
                tracing::error!(dir = %self.dir.display(), "another process uses this folder of solved blocks: give each its own");
                Ok(false)
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Writes a block down; when this returns it survives a crash. One that is there already is replaced.
    pub(super) fn put(&self, hash: BlockHash, record: &Record) -> io::Result<()> {
        write(&self.dir, &self.path(hash), record)
    }

    /// Keeps a block that cannot be put together.
    pub(super) fn put_broken(&self, hash: BlockHash, record: &Record) -> io::Result<()> {
        let dir = self.dir.join(Aside::Broken.folder());
        write(&dir, &dir.join(file_name(hash)), record)?;
        prune(&dir)
    }

    /// The block needs nothing any more.
    pub(super) fn remove(&self, hash: BlockHash) -> io::Result<()> {
        // It could not be written, or a person has taken it away.
        gone(fs::remove_file(self.path(hash)))
    }

    /// The block is not sent any more, but a person may want to look at it.
    pub(super) fn set_aside(&self, hash: BlockHash, why: Aside) -> io::Result<()> {
        let path = self.path(hash);
        match path.exists() {
            true => self.move_aside(&path, why),
            false => Ok(()),
        }
    }

    fn move_aside(&self, path: &Path, why: Aside) -> io::Result<()> {
        let dir = self.dir.join(why.folder());
        fs::create_dir_all(&dir)?;
        let name = path.file_name().unwrap_or_default();
        fs::rename(path, dir.join(name))?;
        prune(&dir)
    }

    fn path(&self, hash: BlockHash) -> PathBuf {
        self.dir.join(file_name(hash))
    }
}

fn file_name(hash: BlockHash) -> String {
    format!("{hash}.json")
}

fn read(path: &Path) -> Result<(SolvedBlock, u64), String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    let (block, found_at_unix) = Record::parse(&bytes).map_err(|error| error.to_string())?;
    match path
        .file_name()
        .is_some_and(|name| name == file_name(block.hash()).as_str())
    {
        true => Ok((block, found_at_unix)),
        false => Err("its name is not its block's".to_owned()),
    }
}

/// Writes beside the file first, so that a crash leaves a whole file or none.
fn write(dir: &Path, path: &Path, record: &Record) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let bytes = record.to_bytes()?;
    let new = path.with_extension("new");
    let written = File::create(&new)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| File::open(dir)?.sync_all());
    if written.is_err() {
        // What a full disk left of it; that it cannot be removed either changes nothing.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Keeps the newest files of a folder.
fn prune(dir: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Another block's files may be pruned at the same time.
        if let Ok(metadata) = entry.metadata() {
            files.push((metadata.modified()?, entry.path()));
        }
    }
    files.sort();
    let surplus = files.len().saturating_sub(ASIDE_MAX);
    files
        .drain(..surplus)
        .try_for_each(|(_, path)| gone(fs::remove_file(path)))
}

/// A file that is not there any more is removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
