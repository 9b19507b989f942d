//! Files that are whole or not there.

use std::path::Path;

use anyhow::Context;

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
