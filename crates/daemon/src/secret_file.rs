//! Who may read a file that holds a secret.

use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Permissions of anybody but the owner, of those outside the group, and to read as one of the group.
const OTHERS: u32 = 0o077;
const EVERYBODY: u32 = 0o007;
const GROUP_READ: u32 = 0o040;

/// A file that others than its owner may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    file: PathBuf,
    mode: u32,
}

/// Whether others may use this file than its owner. What root owns, its group may read too: so a file that is mounted for
/// a daemon, or managed for it, can be left to root. `None` too where it cannot be told; whoever reads the file will tell.
pub fn exposure(file: &Path) -> Option<Exposure> {
    let found = std::fs::metadata(file).ok()?;
    let mode = found.permissions().mode() & 0o777;
    let allowed = match found.uid() {
        0 => GROUP_READ,
        _ => 0,
    };
    (mode & OTHERS & !allowed != 0).then(|| Exposure {
        file: file.to_owned(),
        mode,
    })
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, mode) = (self.file.display(), self.mode);
        let others = match mode & EVERYBODY {
            0 => "the file's group",
            _ => "everybody on this machine",
        };
        write!(
            f,
            "{file} holds a secret, has mode {mode:04o} and may be used by {others}: chmod 600 {file}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};

    #[test]
    fn a_file_that_others_may_use_is_told_with_the_cure() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = file.path();
        let is_roots = std::fs::metadata(place).unwrap().uid() == 0;
        for (mode, others) in [
            (0o600, None),
            (0o400, None),
            (0o640, (!is_roots).then_some("the file's group")),
            (0o660, Some("the file's group")),
            (0o644, Some("everybody")),
            (0o604, Some("everybody")),
        ] {
            set_permissions(place, Permissions::from_mode(mode)).unwrap();
            let told = exposure(place).map(|exposure| exposure.to_string());
            assert_eq!(told.is_some(), others.is_some(), "{mode:o}: {told:?}");
            if let (Some(told), Some(others)) = (told, others) {
                let cure = format!("chmod 600 {}", place.display());
                assert!(told.contains(others) && told.ends_with(&cure), "{told}");
            }
        }
        assert_eq!(exposure(Path::new("/nonexistent/file")), None);
    }
}
