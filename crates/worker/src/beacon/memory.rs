//! What a worker remembers of its pools' chains, in a small file beside its key: so a restart neither
//! forgets which steps were used nor goes back to a pool that broke its chain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dovetail_sv2::extension::BatchOutcome;
use dovetail_sv2::extension::codes::Code;
use serde::{Deserialize, Serialize};

use super::{Beacon, BeaconError, USED_MAX};

/// In place of a beacon's value where no audit took place.
const NO_AUDIT: [u8; 32] = [0; 32];
/// The longest file that is read: 64 pools with all their steps come to a quarter of it.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Pools that are remembered. A worker knows a handful.
const POOLS_MAX: usize = 64;

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BeaconFileError {
    /// It cannot be read or written.
    #[error("cannot use the beacon file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "the beacon file {path} is damaged; without it the worker cannot tell whether pools use a value twice. Move it away to begin anew"
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// What is remembered of one pool, as it stands in the file. Hashes are hex.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    #[serde(with = "hex_32")]
    tip: [u8; 32],
    #[serde(with = "hex_32")]
    known: [u8; 32],
    next_step: u32,
    used: BTreeSet<u32>,
    /// Why the pool was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broke: Option<String>,
}

impl Remembered {
    fn is_sound(&self) -> bool {
        let last = self.used.last().is_none_or(|last| *last < self.next_step);
        last && self.used.len() <= USED_MAX
    }
}

/// All chains that a worker knows, by its name for the pool.
#[derive(Debug)]
pub struct Beacons {
    path: PathBuf,
    pools: BTreeMap<String, Remembered>,
}

impl Beacons {
    /// Reads the file; there is none before the first pool.
    ///
    /// # Errors
    /// [`BeaconFileError`] for a file that cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, BeaconFileError> {
        let path = path.to_owned();
        let io = |source| BeaconFileError::Io {
            path: path.clone(),
            source,
        };
        let bytes = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pools = BTreeMap::new();
                return Ok(Self { path, pools });
            }
            Err(error) => return Err(io(error)),
            Ok(file) if file.len() > FILE_BYTES_MAX => {
                return Err(BeaconFileError::Content { path });
            }
            Ok(_) => fs::read(&path).map_err(io)?,
        };
        let pools: BTreeMap<String, Remembered> = serde_json::from_slice(&bytes)
            .map_err(|_| BeaconFileError::Content { path: path.clone() })?;
        if !pools.values().all(Remembered::is_sound) {
            return Err(BeaconFileError::Content { path });
        }
        Ok(Self { path, pools })
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the pool was left, if it was.
    pub fn left(&self, pool: &str) -> Option<&str> {
        self.pools.get(pool)?.broke.as_deref()
    }

    /// A session with the pool begins, which published this tip. Another tip than before is another
    /// chain: its tip was published before any share of this session, which is all that counts.
    pub fn meet(&mut self, pool: &str, tip: [u8; 32]) {
        let known = self.pools.get(pool);
        if known.is_some_and(|known| known.tip == tip) {
            return;
        }
        if known.is_some() {
            tracing::warn!(pool, "the pool has begun another beacon");
        }
        let is_new = known.is_none();
        if is_new && self.pools.len() >= POOLS_MAX {
            // Never one that was left.
            let dropped = self.pools.iter().find(|(_, known)| known.broke.is_none());
            if let Some(dropped) = dropped.map(|(name, _)| name.clone()) {
                self.pools.remove(&dropped);
            }
        }
        self.put(pool, &Beacon::new(tip));
        self.save();
    }

    /// One more than the newest step that the pool has revealed.
    pub fn next_step(&self, pool: &str) -> u32 {
        self.pools.get(pool).map_or(0, |known| known.next_step)
    }

    /// Checks a batch's outcome against the pool's chain, and remembers what it reveals, or that the pool
    /// broke its chain. `floor` is [`Self::next_step`] from before the share was submitted. `false` if there
    /// was no audit.
    ///
    /// # Errors
    /// The reason to leave the pool.
    pub fn check(
        &mut self,
        pool: &str,
        floor: u32,
        outcome: &BatchOutcome,
    ) -> Result<bool, BeaconError> {
        let Some(known) = self.pools.get(pool) else {
            return Ok(false);
        };
        let mut beacon = Beacon {
            tip: known.tip,
            known: known.known,
            next_step: known.next_step,
            used: known.used.clone(),
        };
        let audited = outcome.preimage != NO_AUDIT;
        let revealed = if audited {
            beacon.reveal(floor, outcome.beacon_step, &outcome.preimage)
        } else if outcome.accepted || is_no_mismatch(&outcome.code) {
            Ok(())
        } else {
            Err(BeaconError::Kept)
        };
        match revealed {
            Ok(()) if audited => self.put(pool, &beacon),
            Ok(()) => return Ok(false),
            Err(error) => {
                self.leave(pool, error);
                return Err(error);
            }
        }
        self.save();
        revealed.map(|()| true)
    }

    /// Remembers that the pool broke its word, and how.
    pub fn leave(&mut self, pool: &str, error: BeaconError) {
        if let Some(known) = self.pools.get_mut(pool) {
            known.broke = Some(error.to_string());
        }
        self.save();
    }

    fn put(&mut self, pool: &str, beacon: &Beacon) {
        let remembered = Remembered {
            tip: beacon.tip,
            known: beacon.known,
            next_step: beacon.next_step,
            used: beacon.used.clone(),
            broke: None,
        };
        self.pools.insert(pool.to_owned(), remembered);
    }

    /// Writes the file. One that cannot be written is said so and no reason to stop: what is in memory
    /// holds until a restart.
    fn save(&self) {
        if let Err(error) = self.write() {
            tracing::error!(path = %self.path.display(), %error, "cannot write the beacon file");
        }
    }

    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let mut file = File::create(&name)?;
        file.write_all(&serde_json::to_vec(&self.pools)?)?;
        // Whole or not at all, whatever happens to the machine.
        file.sync_all()?;
        fs::rename(&name, &self.path)
    }
}

/// Whether a refusal with this code says nothing about the output.
fn is_no_mismatch(code: &str) -> bool {
    matches!(
        Code::parse(code),
        Some(Code::AuditUnavailable | Code::Internal)
    )
}

mod hex_32 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(D::Error::custom)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dovetail_audit::HashChain;
    use dovetail_commitment::{BatchRoot, HeaderHash};

    fn outcome(chain: &HashChain, step: u32) -> BatchOutcome {
        BatchOutcome {
            root: BatchRoot::from_bytes([1; 32]),
            header_hash: HeaderHash::from_bytes([2; 32]),
            accepted: true,
            beacon_step: step,
            preimage: chain.preimage(step).unwrap(),
            code: String::new(),
            credit_msat: 1,
            held_msat: 1,
        }
    }

    #[test]
    fn a_restart_goes_on_with_the_chain_and_still_refuses_a_step_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data").join("worker.beacons");
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacons = Beacons::load(&path).unwrap();
        beacons.meet("pool", chain.tip());
        assert_eq!(beacons.check("pool", 0, &outcome(&chain, 4)), Ok(true));

        let mut beacons = Beacons::load(&path).unwrap();
        beacons.meet("pool", chain.tip());
        assert_eq!(beacons.next_step("pool"), 5);
        assert_eq!(beacons.check("pool", 5, &outcome(&chain, 6)), Ok(true));
        assert_eq!(beacons.left("pool"), None);
        assert_eq!(
            beacons.check("pool", 0, &outcome(&chain, 4)),
            Err(BeaconError::UsedBefore(4))
        );

        let beacons = Beacons::load(&path).unwrap();
        assert!(beacons.left("pool").unwrap().contains("step 4"));
        assert_eq!(beacons.left("another"), None);
    }

    #[test]
    fn a_mismatch_without_its_value_is_a_reason_to_leave_and_an_audit_that_was_not_done_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let chain = HashChain::from_seed([1; 32], 100);
        let mut beacons = Beacons::load(&dir.path().join("beacons")).unwrap();
        beacons.meet("pool", chain.tip());
        let mut without = outcome(&chain, 0);
        without.preimage = NO_AUDIT;
        assert_eq!(beacons.check("pool", 0, &without), Ok(false));
        without.accepted = false;
        without.code = "audit-unavailable".to_owned();
        assert_eq!(beacons.check("pool", 0, &without), Ok(false));
        without.code = "tokens".to_owned();
        assert_eq!(beacons.check("pool", 0, &without), Err(BeaconError::Kept));
        assert!(beacons.left("pool").is_some());
    }

    #[test]
    fn another_tip_is_another_chain() {
        let dir = tempfile::tempdir().unwrap();
        let mut beacons = Beacons::load(&dir.path().join("beacons")).unwrap();
        let (one, two) = (
            HashChain::from_seed([1; 32], 100),
            HashChain::from_seed([2; 32], 100),
        );
        beacons.meet("pool", one.tip());
        beacons.check("pool", 0, &outcome(&one, 9)).unwrap();
        beacons.meet("pool", two.tip());
        assert_eq!(beacons.next_step("pool"), 0);
        assert_eq!(beacons.check("pool", 0, &outcome(&two, 0)), Ok(true));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("beacons");
        for content in ["", "[]", r#"{"pool":{"tip":"00"}}"#] {
            fs::write(&path, content).unwrap();
            let refused = Beacons::load(&path);
            assert!(matches!(refused, Err(BeaconFileError::Content { .. })));
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
