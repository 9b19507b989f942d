//! Where hash shares wait while Postgres is away: a file of JSON lines, synced before a share is
//! acknowledged, emptied once its shares are in the ledger. Reading it twice is harmless, since a
//! header hash is one share. It blocks: callers run it away from the runtime's threads.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use dovetail_commitment::HeaderHash;
use dovetail_units::{Msat, Work};
use serde::{Deserialize, Serialize};

use crate::{Share, ShareKind};

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
    #[serde(default)]
    coinbase_only: bool,
}

/// The spool's file and the hashes in it.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    path: PathBuf,
    /// Lines that the ledger will never take, kept for a person.
    rejected: PathBuf,
    hashes: HashSet<HeaderHash>,
    /// The length up to which every line is whole and synced.
    synced_bytes: u64,
    /// How much of it is in the ledger. Not kept on disk: moving a share twice is harmless.
    moved_bytes: u64,
    /// The file's tail could not be taken back after a failed write: nothing may follow it.
    broken: bool,
}

/// What became of a share that was to be spooled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spooled {
    /// On disk, synced.
    Durable,
    /// It waits there already.
    Duplicate,
    /// No room.
    Full,
}

/// Some shares of the spool, in their order.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) shares: Vec<Share>,
    /// What [`Spool::moved`] is told once they are in the ledger.
    end_bytes: u64,
}

impl Spool {
    /// Opens the spool in `dir`, with what an earlier run left in it. One process at a time.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("shares.jsonl");
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process uses this spool"),
            TryLockError::Error(error) => error,
        })?;
        File::open(dir)?.sync_all()?;
        let mut spool = Self {
            file,
            path,
            rejected: dir.join("rejected.jsonl"),
            hashes: HashSet::new(),
            synced_bytes: 0,
            moved_bytes: 0,
            broken: false,
        };
        spool.recover()?;
        Ok(spool)
    }

    /// Learns what waits, and cuts off a last line that a crash left unfinished: it was never
    /// acknowledged, and must not swallow the next one.
    fn recover(&mut self) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(&self.path)?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            self.synced_bytes += read as u64;
            if let Some(share) = parse(&line) {
                self.hashes.insert(share.header_hash);
            }
        }
        self.file.set_len(self.synced_bytes)?;
        self.file.sync_all()?;
        if self.synced_bytes > 0 {
            tracing::warn!(shares = self.hashes.len(), "shares wait in the spool");
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.synced_bytes == 0
    }

    /// Appends hash shares and syncs them. On an error none of them is in the spool.
    pub(crate) fn append(&mut self, shares: &[Share]) -> io::Result<Vec<Spooled>> {
        if self.broken {
            return Err(io::Error::other("the spool is damaged until a restart"));
        }
        let mut bytes = Vec::new();
        let mut added = Vec::new();
        let mut outcomes = Vec::with_capacity(shares.len());
        for share in shares {
            outcomes.push(if self.hashes.contains(&share.header_hash) {
                Spooled::Duplicate
            } else if self.hashes.len() >= SHARES_MAX {
                Spooled::Full
            } else {
                write_line(&mut bytes, share)?;
                self.hashes.insert(share.header_hash);
                added.push(share.header_hash);
                Spooled::Durable
            });
        }
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.synced_bytes += bytes.len() as u64;
                Ok(outcomes)
            }
            Err(error) => {
                // What is refused now must not be credited later, and half a line must not stay.
                for hash in added {
                    self.hashes.remove(&hash);
                }
                self.broken = self.take_back().is_err();
                Err(error)
            }
        }
    }

    fn take_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.synced_bytes)?;
        self.file.sync_all()
    }

    /// The next shares to be moved, at most `max`; `None` once all have been. Lines that do not
    /// parse are set aside: a damaged disk must not hold up the shares behind them.
    pub(crate) fn next(&mut self, max: usize) -> io::Result<Option<Chunk>> {
        if self.moved_bytes >= self.synced_bytes {
            return Ok(None);
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.moved_bytes))?;
        let mut reader = BufReader::new(file);
        let mut chunk = Chunk {
            shares: Vec::new(),
            end_bytes: self.moved_bytes,
        };
        let mut line = Vec::new();
        while chunk.shares.len() < max && chunk.end_bytes < self.synced_bytes {
            line.clear();
            let read = reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                return Err(io::Error::other("the spool is shorter than it was"));
            }
            chunk.end_bytes += read as u64;
            match parse(&line) {
                Some(share) => chunk.shares.push(share),
                None => {
                    tracing::error!(bytes = read, "a line of the spool does not parse");
                    self.append_rejected(&line)?;
                }
            }
        }
        Ok(Some(chunk))
    }

    /// The chunk's shares are in the ledger, but for the `refused` ones, which are set aside.
    pub(crate) fn moved(&mut self, chunk: &Chunk, refused: &[Share]) -> io::Result<()> {
        let mut lines = Vec::new();
        for share in refused {
            write_line(&mut lines, share)?;
        }
        if !lines.is_empty() {
            self.append_rejected(&lines)?;
        }
        self.moved_bytes = chunk.end_bytes;
        Ok(())
    }

    fn append_rejected(&self, lines: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.rejected)?;
        file.write_all(lines)?;
        file.sync_all()
    }

    /// Empties the spool: all its shares have been moved.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        assert!(
            self.moved_bytes >= self.synced_bytes,
            "shares that still wait are never thrown away"
        );
        self.file.set_len(0)?;
        self.file.sync_all()?;
        self.synced_bytes = 0;
        self.moved_bytes = 0;
        self.hashes.clear();
        Ok(())
    }
}

fn write_line(bytes: &mut Vec<u8>, share: &Share) -> io::Result<()> {
    let line = Line {
        header_hash: share.header_hash,
        account: share.account.clone(),
        work: share.work.get().to_string(),
        is_block: share.is_block,
        credit_msat: share.credit,
        coinbase_only: share.is_coinbase_only,
    };
    serde_json::to_writer(&mut *bytes, &line)?;
    bytes.push(b'\n');
    Ok(())
}

fn parse(line: &[u8]) -> Option<Share> {
    if line.len() > LINE_BYTES_MAX {
        return None;
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    let share = Share {
        header_hash: line.header_hash,
        account: line.account,
        work: Work::new(line.work.parse().ok()?),
        kind: ShareKind::Hash,
        is_block: line.is_block,
        credit: line.credit_msat,
        is_coinbase_only: line.coinbase_only,
        batch: None,
    };
    share.check().is_ok().then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(n: u8) -> Share {
        Share {
            header_hash: HeaderHash::from_bytes([n; 32]),
            account: "ali\"ce".into(),
            work: Work::new(u128::MAX),
            kind: ShareKind::Hash,
            is_block: false,
            credit: Msat::new(7),
            is_coinbase_only: n.is_multiple_of(2),
            batch: None,
        }
    }

    fn waiting(spool: &mut Spool) -> Vec<Share> {
        spool
            .next(100)
            .unwrap()
            .map_or(Vec::new(), |chunk| chunk.shares)
    }

    #[test]
    fn what_was_acknowledged_is_there_after_a_restart_and_duplicates_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(
            spool.append(&[share(1), share(1)]).unwrap(),
            [Spooled::Durable, Spooled::Duplicate]
        );
        drop(spool);
        let mut spool = Spool::open(dir.path()).unwrap();
        assert_eq!(
            spool.append(&[share(1), share(2)]).unwrap(),
            [Spooled::Duplicate, Spooled::Durable]
        );
        assert_eq!(waiting(&mut spool), [share(1), share(2)]);
    }

    #[test]
    fn shares_are_moved_in_order_and_the_file_is_emptied_after_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.append(&[share(1), share(2), share(3)]).unwrap();
        let first = spool.next(2).unwrap().unwrap();
        assert_eq!(first.shares, [share(1), share(2)]);
        spool.moved(&first, &[]).unwrap();
        spool.append(&[share(4)]).unwrap();
        let second = spool.next(2).unwrap().unwrap();
        assert_eq!(second.shares, [share(3), share(4)]);
        spool.moved(&second, &[]).unwrap();
        assert!(spool.next(2).unwrap().is_none());
        spool.clear().unwrap();
        assert!(spool.is_empty());
        assert_eq!(spool.append(&[share(1)]).unwrap(), [Spooled::Durable]);
    }

    #[test]
    fn a_line_that_a_crash_cut_off_does_not_swallow_the_next() {
        for before in [vec![], vec![share(1)]] {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = Spool::open(dir.path()).unwrap();
            spool.append(&before).unwrap();
            spool.file.write_all(b"{\"header_hash\":\"01").unwrap();
            drop(spool);
            let mut spool = Spool::open(dir.path()).unwrap();
            spool.append(&[share(2)]).unwrap();
            drop(spool);
            let mut spool = Spool::open(dir.path()).unwrap();
            let expected: Vec<Share> = before.into_iter().chain([share(2)]).collect();
            assert_eq!(waiting(&mut spool), expected);
        }
    }

    #[test]
    fn a_damaged_line_is_set_aside_and_holds_up_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shares.jsonl");
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.append(&[share(1)]).unwrap();
        drop(spool);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"\xff not ours\n");
        std::fs::write(&path, bytes).unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        spool.append(&[share(2)]).unwrap();
        assert_eq!(waiting(&mut spool), [share(1), share(2)]);
        let rejected = std::fs::read(dir.path().join("rejected.jsonl")).unwrap();
        assert_eq!(rejected, b"\xff not ours\n");
    }

    #[test]
    fn a_spool_that_is_in_use_is_refused_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let held = Spool::open(dir.path()).unwrap();
        assert!(Spool::open(dir.path()).is_err());
        drop(held);
        assert!(Spool::open(dir.path()).is_ok());
    }
}
