//! Files that are whole or not there, and what they are known by.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use bitcoin::hashes::{Hash, HashEngine, sha256};

/// Writes the file under its name only once it is whole.
pub(super) fn write_whole(
    path: &Path,
    write: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let partial = path.with_added_extension("partial");
    let written = write(&partial).and_then(|()| Ok(std::fs::rename(&partial, path)?));
    if written.is_err() {
        // Half a file is of no use; that it may not be there is no second error.
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// The SHA-256 of a file, in hexadecimal digits as `sha256sum` prints it.
pub(super) fn sha256(path: &Path) -> anyhow::Result<String> {
    let about = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(about)?;
    let mut engine = sha256::Hash::engine();
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece).with_context(about)? {
            0 => return Ok(sha256::Hash::from_engine(engine).to_string()),
            read => engine.input(&piece[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_whole_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("model");
        let half = |path: &Path| {
            std::fs::write(path, "half")?;
            anyhow::bail!("the disk is full")
        };
        let error = write_whole(&out, half).unwrap_err();
        assert!(format!("{error:#}").contains("the disk is full"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
