//! The files of attempts. What a file pays is in its name as well, so that one that cannot be read still says which payment
//! hash must not be paid again.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dovetail_lightning::Hash32;

use super::{Record, State, Target};

/// Behind an offer's attempt, in place of a payment hash.
const OFFER: &str = "offer";
/// A file that was not written to its end.
const PARTIAL: &str = "partial";

/// All records of the folder, which is made if it is not there.
pub(super) fn read_all(folder: &Path) -> io::Result<Vec<Record>> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut records = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((attempt, target)) = named(&name) else {
            if path.extension().is_some_and(|end| end == PARTIAL) {
                std::fs::remove_file(&path)?;
            }
            continue;
        };
        records.push(match read(&path, attempt, target) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "a payment's record cannot be read: it needs review");
                damaged(attempt, target)
            }
        });
    }
    Ok(records)
}

/// What is left of a damaged record. An invoice's payment may be found at the node all the same.
fn damaged(attempt: Hash32, target: Target) -> Record {
    Record {
        attempt,
        number: 0,
        target,
        amount_msat: 0,
        sent_hash: match target {
            Target::Invoice { payment_hash } => Some(payment_hash),
            Target::Offer { .. } | Target::Unreadable => None,
        },
        state: State::Review,
    }
}

fn read(path: &Path, attempt: Hash32, named: Target) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&std::fs::read(path)?)?;
    let is_as_named = match named {
        Target::Unreadable => matches!(record.target, Target::Offer { .. }),
        named => record.target == named,
    };
    if record.attempt == attempt && is_as_named {
        return Ok(record);
    }
    Err(io::Error::other("it is another attempt's"))
}

/// Writes the record whole, and syncs it and its place in the folder.
pub(super) fn write(folder: &Path, record: &Record) -> io::Result<()> {
    let path = path(folder, record);
    let partial = path.with_extension(PARTIAL);
    // Preimages are proofs of payment: for our eyes only.
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(&partial, &path)?;
    File::open(folder)?.sync_all()
}

/// Copies all records, also those that cannot be read. Returns how many.
pub(super) fn copy_all(folder: &Path, to: &Path) -> io::Result<usize> {
    let mut copied = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if named(&entry.file_name().to_string_lossy()).is_some() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            copied += 1;
        }
    }
    Ok(copied)
}

fn path(folder: &Path, record: &Record) -> PathBuf {
    let pays = match record.target {
        Target::Invoice { payment_hash } => hex::encode(payment_hash.0),
        Target::Offer { .. } | Target::Unreadable => OFFER.to_owned(),
    };
    // No dot in the name but the last one: `partial` takes its place.
    folder.join(format!("{}-{pays}.json", hex::encode(record.attempt.0)))
}

/// What a file's name says of its attempt.
fn named(name: &str) -> Option<(Hash32, Target)> {
    let (attempt, pays) = name.strip_suffix(".json")?.split_once('-')?;
    let target = match pays {
        OFFER => Target::Unreadable,
        hash => Target::Invoice {
            payment_hash: hash32(hash)?,
        },
    };
    Some((hash32(attempt)?, target))
}

fn hash32(text: &str) -> Option<Hash32> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(Hash32(bytes))
}
