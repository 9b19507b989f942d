//! Where hash shares wait while Postgres is away: a file of JSON lines, synced before a share is
//! acknowledged, emptied once its shares are in the ledger. Reading it twice is harmless, since a
//! header hash is one share.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use dovetail_commitment::HeaderHash;
use serde::{Deserialize, Serialize};

use crate::{Msat, Share, ShareKind};

/// How many shares may wait: at a thousand shares a second, a quarter of an hour.
const SHARES_MAX: usize = 1_000_000;
/// A line is far shorter; a longer one was not written by us.
const LINE_BYTES_MAX: usize = 4_096;

#[derive(Serialize, Deserialize)]
struct Line {
    header_hash: HeaderHash,
    account: String,
    /// As text: JSON numbers are not that wide.
    work: String,
    is_block: bool,
    credit_msat: Msat,
}

/// The spool's file and the hashes in it.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    hashes: HashSet<HeaderHash>,
}

/// What became of a share that was to be spooled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spooled {
    /// On disk after the next [`Spool::sync`].
    Queued,
    /// It waits there already.
    Duplicate,
    /// No room.
    Full,
}

impl Spool {
    /// Opens the spool in `dir`, with what an earlier run left in it.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("shares.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)?;
        File::open(dir)?.sync_all()?;
        let mut spool = Self {
            file,
            path,
            hashes: HashSet::new(),
        };
        spool.hashes = spool
            .read()?
            .into_iter()
            .map(|share| share.header_hash)
            .collect();
        if !spool.hashes.is_empty() {
            tracing::warn!(shares = spool.hashes.len(), "shares wait in the spool");
            // A line that a crash cut off must not swallow the next one.
            spool.file.write_all(b"\n")?;
        }
        Ok(spool)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Appends a hash share. It is durable only after [`Spool::sync`].
    pub(crate) fn append(&mut self, share: &Share) -> io::Result<Spooled> {
        if self.hashes.contains(&share.header_hash) {
            return Ok(Spooled::Duplicate);
        }
        if self.hashes.len() >= SHARES_MAX {
            return Ok(Spooled::Full);
        }
        let line = Line {
            header_hash: share.header_hash,
            account: share.account.clone(),
            work: share.work.to_string(),
            is_block: share.is_block,
            credit_msat: share.credit,
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.hashes.insert(share.header_hash);
        Ok(Spooled::Queued)
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Every whole line. Lines that a crash cut off were never acknowledged and are passed over.
    pub(crate) fn read(&mut self) -> io::Result<Vec<Share>> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut shares = Vec::new();
        let mut line = Vec::new();
        while shares.len() <= SHARES_MAX {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if line.len() <= LINE_BYTES_MAX
                && let Some(share) = parse(&line)
            {
                shares.push(share);
            }
        }
        Ok(shares)
    }

    /// Empties the spool: its shares are in the ledger.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.sync_data()?;
        self.hashes.clear();
        Ok(())
    }
}

fn parse(line: &[u8]) -> Option<Share> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Share {
        header_hash: line.header_hash,
        account: line.account,
        work: line.work.parse().ok()?,
        kind: ShareKind::Hash,
        is_block: line.is_block,
        credit: line.credit_msat,
        batch: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn share(n: u8) -> Share {
        Share {
            header_hash: HeaderHash::from_bytes([n; 32]),
            account: "alice".into(),
            work: u128::MAX,
            kind: ShareKind::Hash,
            is_block: false,
            credit: Msat::new(7),
            batch: None,
        }
    }

    #[test]
    fn what_was_synced_is_there_after_a_restart_and_duplicates_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.append(&share(1)).unwrap(), Spooled::Queued);
        assert_eq!(spool.append(&share(1)).unwrap(), Spooled::Duplicate);
        spool.sync().unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(spool.append(&share(1)).unwrap(), Spooled::Duplicate);
        assert_eq!(spool.append(&share(2)).unwrap(), Spooled::Queued);
        assert_eq!(spool.read().unwrap(), vec![share(1), share(2)]);
        spool.clear().unwrap();
        assert!(spool.is_empty() && spool.read().unwrap().is_empty());
    }

    #[test]
    fn a_line_that_a_crash_cut_off_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.append(&share(1)).unwrap();
        spool.file.write_all(b"{\"header_hash\":\"01").unwrap();
        drop(spool);
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.append(&share(2)).unwrap();
        assert_eq!(spool.read().unwrap(), vec![share(1), share(2)]);
    }
}
