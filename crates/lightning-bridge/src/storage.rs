//! The folder of a bridge: for one process at a time, and for one node for ever. Asked about another node's payments, a node
//! would say that there are none, and the bridge would call them failed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    rail: String,
    node_id: String,
}

/// The folder, held for this process.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    _lock: File,
}

impl Storage {
    /// Makes the folder, or takes the one that this node's bridge left.
    pub(crate) fn open(folder: &Path, rail: &str, node_id: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another bridge uses it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let owner = Owner {
            rail: rail.to_owned(),
            node_id: node_id.to_owned(),
        };
        let file = folder.join("node.json");
        match std::fs::read(&file) {
            Ok(bytes) if serde_json::from_slice::<Owner>(&bytes)? == owner => {}
            Ok(_) => {
                return Err(io::Error::other(
                    "it holds the payments of another node: give each node a folder of its own",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(folder, &file, &owner)?;
            }
            Err(error) => return Err(error),
        }
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// Where the records of payments are.
    pub(crate) fn attempts(&self) -> PathBuf {
        self.folder.join("attempts")
    }
}

fn write(folder: &Path, file: &Path, owner: &Owner) -> io::Result<()> {
    let partial = file.with_extension("partial");
    let mut handle = File::create(&partial)?;
    handle.write_all(&serde_json::to_vec(owner)?)?;
    handle.sync_all()?;
    std::fs::rename(&partial, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_nodes_and_one_processs() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("bridge");
        let open = |node| Storage::open(&place, "lnd", node);
        let storage = open("02aa").unwrap();
        open("02aa").unwrap_err();
        drop(storage);
        drop(open("02aa").unwrap());
        open("02bb").unwrap_err();
        Storage::open(&place, "core_lightning", "02aa").unwrap_err();
    }
}
