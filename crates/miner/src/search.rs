//! The search for a header hash under a target, on the CPU. A plain loop: it serves
//! demonstrations and tests, and keeps hardware out of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bitcoin::Target;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use dovetail_commitment::block::merkle_root;

/// Nonces between two looks at the stop flag: well under a tenth of a second of hashing.
const NONCES_PER_LOOK: u64 = 1 << 15;
/// Where the nonce stands in the 80 bytes of a header.
const NONCE_AT: usize = 76;
const NTIME_AT: usize = 68;

/// A 256-bit target or hash as Sv2 sends it: little-endian.
pub type Hash256 = [u8; 32];

/// Whether a header hash (internal byte order) is at or under a target (little-endian).
pub fn meets(hash: &Hash256, target: &Hash256) -> bool {
    hash.iter().rev().cmp(target.iter().rev()).is_le()
}

/// The hashes that a target takes on average, for statistics.
pub(crate) fn hashes_of(target: Target) -> f64 {
    target
        .to_work()
        .to_be_bytes()
        .iter()
        .fold(0.0, |sum, byte| sum * 256.0 + f64::from(*byte))
}

/// The 80 bytes of a block header.
pub fn header_bytes(
    version: u32,
    prev_hash: &Hash256,
    merkle_root: &Hash256,
    ntime: u32,
    nbits: u32,
    nonce: u32,
) -> [u8; 80] {
    let mut header = [0; 80];
    header[..4].copy_from_slice(&version.to_le_bytes());
    header[4..36].copy_from_slice(prev_hash);
    header[36..68].copy_from_slice(merkle_root);
    header[NTIME_AT..72].copy_from_slice(&ntime.to_le_bytes());
    header[72..NONCE_AT].copy_from_slice(&nbits.to_le_bytes());
    header[NONCE_AT..].copy_from_slice(&nonce.to_le_bytes());
    header
}

/// The block hash of a header, in internal byte order.
pub fn header_hash(header: &[u8; 80]) -> Hash256 {
    sha256d::Hash::hash(header).to_byte_array()
}

/// Tries the nonces of a range and returns the first whose header hash meets the target. `None` at
/// the end of the range or when `stop` is set. `hashes` counts what was tried.
pub fn scan(
    header: &[u8; 80],
    nonces: std::ops::Range<u64>,
    target: &Hash256,
    stop: &AtomicBool,
    hashes: &AtomicU64,
) -> Option<u32> {
    let mut first_block = sha256::Hash::engine();
    first_block.input(&header[..64]);
    let mut tail: [u8; 16] = header[64..]
        .try_into()
        .expect("16 bytes follow the first 64");
    let mut next = nonces.start;
    while next < nonces.end && !stop.load(Ordering::Relaxed) {
        let end = nonces.end.min(next.saturating_add(NONCES_PER_LOOK));
        for nonce in next..end {
            let nonce = u32::try_from(nonce).ok()?;
            tail[12..].copy_from_slice(&nonce.to_le_bytes());
            let mut engine = first_block.clone();
            engine.input(&tail);
            let inner = sha256::Hash::from_engine(engine);
            let hash = sha256::Hash::hash(inner.as_byte_array()).to_byte_array();
            if meets(&hash, target) {
                return Some(nonce);
            }
        }
        hashes.fetch_add(end - next, Ordering::Relaxed);
        next = end;
    }
    None
}

/// A job as it is hashed on this machine.
#[derive(Debug, Clone)]
pub struct SearchJob {
    /// Block version.
    pub version: u32,
    /// Hash of the block before, internal byte order.
    pub prev_hash: Hash256,
    /// The smallest time that may stand in the header.
    pub min_ntime: u32,
    /// Network target, compact.
    pub nbits: u32,
    /// The coinbase without its witness, before what is rolled here of the extranonce ..
    pub coinbase_prefix: Vec<u8>,
    /// .. and after it.
    pub coinbase_suffix: Vec<u8>,
    /// Bytes of the extranonce that are rolled here.
    pub extranonce_size: usize,
    /// From the coinbase to the root.
    pub merkle_path: Vec<Hash256>,
    /// What a share must meet.
    pub target: Hash256,
}

/// A header that meets the target, and what of it is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The nonce.
    pub nonce: u32,
    /// The time.
    pub ntime: u32,
    /// What was rolled of the extranonce.
    pub extranonce: Vec<u8>,
    /// The whole header.
    pub header: [u8; 80],
    /// Its hash, internal byte order.
    pub hash: Hash256,
}

impl SearchJob {
    /// The header for one extranonce and time, with a nonce of 0.
    pub fn header(&self, extranonce: &[u8], ntime: u32) -> [u8; 80] {
        let coinbase = [&self.coinbase_prefix[..], extranonce, &self.coinbase_suffix].concat();
        let txid = sha256d::Hash::hash(&coinbase).to_byte_array();
        let root = merkle_root(txid, &self.merkle_path);
        header_bytes(self.version, &self.prev_hash, &root, ntime, self.nbits, 0)
    }

    /// Searches until a header meets the target or `stop` is set: nonces first, then extranonces
    /// from `counter` on; the time follows the clock from `min_ntime`, as shares must (5.3.11).
    pub fn search(&self, mut counter: u64, stop: &AtomicBool, hashes: &AtomicU64) -> Option<Found> {
        let started = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let elapsed = u32::try_from(started.elapsed().as_secs()).unwrap_or(0);
            let ntime = self.min_ntime.saturating_add(elapsed);
            let extranonce = extranonce_bytes(counter, self.extranonce_size);
            let header = self.header(&extranonce, ntime);
            if let Some(nonce) = scan(&header, 0..1 << 32, &self.target, stop, hashes) {
                let mut header = header;
                header[NONCE_AT..].copy_from_slice(&nonce.to_le_bytes());
                return Some(Found {
                    nonce,
                    ntime,
                    extranonce,
                    hash: header_hash(&header),
                    header,
                });
            }
            counter = counter.wrapping_add(1);
        }
        None
    }
}

/// The low `size` bytes of a counter, big enough for every size that is negotiated.
fn extranonce_bytes(counter: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let counter = counter.to_le_bytes();
    let shared = size.min(counter.len());
    bytes[..shared].copy_from_slice(&counter[..shared]);
    bytes
}

/// A search on a thread of its own, which ends when this is dropped.
#[derive(Debug)]
pub struct Search {
    found: tokio::sync::oneshot::Receiver<Option<Found>>,
    stop: Arc<AtomicBool>,
    hashes: Arc<AtomicU64>,
    started: Instant,
}

impl Search {
    /// Starts searching.
    pub fn start(job: SearchJob) -> Self {
        let (send, found) = tokio::sync::oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let hashes = Arc::new(AtomicU64::new(0));
        let (thread_stop, thread_hashes) = (stop.clone(), hashes.clone());
        tokio::task::spawn_blocking(move || {
            let first = rand::random::<u32>();
            let _ = send.send(job.search(u64::from(first), &thread_stop, &thread_hashes));
        });
        Self {
            found,
            stop,
            hashes,
            started: Instant::now(),
        }
    }

    /// The header that was found. Cancellation-safe; `None` only if the thread is gone.
    pub async fn found(&mut self) -> Option<Found> {
        (&mut self.found).await.ok().flatten()
    }

    /// How many hashes were tried and for how long, for a line in the log.
    pub fn effort(&self) -> (u64, Duration) {
        (self.hashes.load(Ordering::Relaxed), self.started.elapsed())
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The header of Bitcoin's block 1.
    const BLOCK_1: &str = "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299";

    fn block_1() -> [u8; 80] {
        hex::decode(BLOCK_1).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_scan_finds_the_nonce_of_a_known_block() {
        let header = block_1();
        let nonce = u32::from_le_bytes(header[NONCE_AT..].try_into().unwrap());
        let mut target = [0; 32];
        target[26..28].copy_from_slice(&[0xff, 0xff]);
        let around = u64::from(nonce) - 1000..u64::from(nonce) + 10;
        let (stop, hashes) = (AtomicBool::new(false), AtomicU64::new(0));
        assert_eq!(scan(&header, around, &target, &stop, &hashes), Some(nonce));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(scan(&header, 0..1 << 32, &target, &stop, &hashes), None);
    }

    #[test]
    fn a_hash_is_compared_as_a_little_endian_number() {
        let mut low = [0xff; 32];
        low[31] = 0;
        let mut high = [0; 32];
        high[31] = 1;
        assert!(meets(&low, &high));
        assert!(!meets(&high, &low));
        assert!(meets(&high, &high));
    }

    #[test]
    fn extranonces_have_exactly_the_negotiated_size() {
        assert_eq!(extranonce_bytes(0x0102, 3), vec![2, 1, 0]);
        assert_eq!(extranonce_bytes(u64::MAX, 12)[8..], [0; 4]);
    }
}
