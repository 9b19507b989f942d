//! What a miner keeps of a block: what the pool has published of it, and of the slices that it was divided over.
//!
//! The state is the only thing in it that changes, and that no check looks at.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, BlockStatement, BlockTerms, DivisionRule, LeafProof, PartProof, PartsRoot, PoolFee,
    SliceHeader, SliceLeaf, StatedPart, WindowLength, WindowTerms,
};
use dovetail_units::Msat;
use serde::{Deserialize, Serialize};

use crate::AgentError;
use crate::receipt_file::{file_error, read_bounded, write_whole};

/// The most slices of a window that is fetched or checked: 64 difficulties of slices of the usual size, eight times the
/// usual window.
pub const WINDOW_SLICES_MAX: u64 = 1 << 16;

/// The longest file: so many slices with an account in each of them, in the deepest trees, in hex.
pub const CREDIT_FILE_BYTES_MAX: u64 = 192 * 1024 * 1024;

const VERSION: u8 = 1;

/// A block's hash, in the byte order of its header. As text, the other way round, as explorers and nodes write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlockHash(pub [u8; 32]);

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .rev()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for BlockHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| "a block's hash has 64 hex digits".to_owned())?;
        bytes.reverse();
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for BlockHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<BlockHash> for String {
    fn from(hash: BlockHash) -> Self {
        hash.to_string()
    }
}

/// Where a block stood when it was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockState {
    /// The chain had not shown it yet.
    Submitted,
    /// The chain had it.
    Active,
    /// The chain had another one in its place.
    Orphaned,
    /// Its parts were credited.
    Matured,
    /// No chain took it.
    Refused,
}

impl BlockState {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Active => "active",
            Self::Orphaned => "orphaned",
            Self::Matured => "matured",
            Self::Refused => "refused",
        }
    }
}

/// Bytes, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HexBytes(#[serde(with = "hex")] pub Vec<u8>);

/// What a miner keeps of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditFile {
    /// Of this format: 1.
    pub version: u8,
    /// Whose part it is.
    pub account: String,
    /// The block.
    pub block: KeptBlock,
    /// What it was divided over; none if whoever found it has the rest.
    pub window: Option<KeptWindow>,
    /// What the pool has signed of the block; none of one that was divided before pools signed blocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<KeptStatement>,
}

/// A block, as its pool publishes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height.
    pub height: u32,
    /// Where it stood.
    pub state: BlockState,
    /// What its coinbase pays the pool.
    pub reward_msat: Msat,
    /// What the pool keeps of it ..
    pub fee_msat: Msat,
    /// .. and which part of the reward that is.
    pub fee_millionths: u32,
}

/// What the pool has signed of a block beside what it says there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptStatement {
    /// By which rule it was divided.
    pub rule: KeptRule,
    /// How many accounts have a part ..
    pub accounts: u32,
    /// .. and the top of the tree over these.
    #[serde(with = "hex")]
    pub parts_top: [u8; 32],
    /// Who signed.
    #[serde(with = "hex")]
    pub signer: [u8; 32],
    /// The signature.
    #[serde(with = "hex")]
    pub signature: [u8; 64],
    /// The account's encoded part; none if it gets nothing.
    pub part: Option<HexBytes>,
}

/// By which rule a block was divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptRule {
    /// Its finder has it.
    Solo,
    /// Over the newest work.
    Pplns,
}

/// The window, and what shows the account's part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptWindow {
    /// Its oldest slice.
    pub first_slice: u64,
    /// Its newest slice.
    pub last_slice: u64,
    /// How much it holds, once so much was mined.
    pub length_difficulties: u32,
    /// The headers of its slices, the oldest first.
    pub headers: Vec<HexBytes>,
    /// Who signed the newest slice's root.
    #[serde(with = "hex")]
    pub signer: [u8; 32],
    /// The signature.
    #[serde(with = "hex")]
    pub signature: [u8; 64],
    /// The account's leaves, the oldest first.
    pub leaves: Vec<KeptLeaf>,
    /// Whether the pool did not keep them any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaves_dropped: bool,
}

/// A leaf with its proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptLeaf {
    /// The slice that it stands in.
    pub slice: u64,
    /// The encoded proof.
    pub proof: HexBytes,
}

impl KeptBlock {
    /// What the rules say of it.
    ///
    /// # Errors
    /// What has not its form.
    pub fn terms(&self) -> Result<BlockTerms, String> {
        let fee_part = PoolFee::from_millionths(self.fee_millionths);
        Ok(BlockTerms {
            reward: self.reward_msat,
            fee: self.fee_msat,
            fee_part: fee_part.map_err(|error| error.to_string())?,
        })
    }
}

impl KeptWindow {
    pub(super) fn terms(&self) -> Result<WindowTerms, String> {
        let length = u16::try_from(self.length_difficulties).unwrap_or(u16::MAX);
        let length = WindowLength::new(length).map_err(|error| error.to_string())?;
        if self.first_slice > self.last_slice {
            return Err("the window ends before it begins".into());
        }
        if self.last_slice - self.first_slice >= WINDOW_SLICES_MAX {
            return Err(format!(
                "a window of more than {WINDOW_SLICES_MAX} slices is not checked"
            ));
        }
        Ok(WindowTerms {
            first: self.first_slice,
            last: self.last_slice,
            length,
        })
    }
}

impl CreditFile {
    /// What was fetched.
    pub(super) fn new(account: &str, block: KeptBlock, window: Option<KeptWindow>) -> Self {
        Self {
            version: VERSION,
            account: account.to_owned(),
            block,
            window,
            statement: None,
        }
    }

    /// What the pool has signed of the block, and of the account; `None` if it has signed nothing.
    ///
    /// # Errors
    /// What has not its form.
    pub fn statement(&self) -> Result<Option<(BlockStatement, Option<StatedPart>)>, String> {
        let Some(kept) = &self.statement else {
            return Ok(None);
        };
        let window = match &self.window {
            Some(window) => {
                let newest = window.headers.last().ok_or("the window has no headers")?;
                let newest = SliceHeader::decode(&newest.0);
                let newest = newest.map_err(|error| format!("a header: {error}"))?;
                Some((window.terms()?, newest.root()))
            }
            None => None,
        };
        let part = kept.part.as_ref().map(|part| StatedPart::decode(&part.0));
        let part = part
            .transpose()
            .map_err(|error| format!("the part: {error}"))?;
        let statement = BlockStatement {
            block: HeaderHash::from_bytes(self.block.hash.0),
            height: self.block.height,
            rule: match kept.rule {
                KeptRule::Solo => DivisionRule::Solo,
                KeptRule::Pplns => DivisionRule::Pplns,
            },
            terms: self.block.terms()?,
            window,
            parts: PartsRoot {
                accounts: kept.accounts,
                top: kept.parts_top,
            },
        };
        Ok(Some((statement, part)))
    }

    /// All that shows the account's part; `None` if the block has no window.
    ///
    /// # Errors
    /// What has not its form.
    pub fn part_proof(&self) -> Result<Option<PartProof>, String> {
        let terms = self.block.terms()?;
        let account = AccountId::new(&self.account).map_err(|error| error.to_string())?;
        let Some(kept) = &self.window else {
            return Ok(None);
        };
        let window = kept.terms()?;
        let header = |bytes: &HexBytes| {
            SliceHeader::decode(&bytes.0).map_err(|error| format!("a header: {error}"))
        };
        let leaf = |leaf: &KeptLeaf| {
            let proof = LeafProof::decode(&leaf.proof.0);
            let proof = proof.map_err(|error| format!("the leaf of slice {}: {error}", leaf.slice));
            proof.map(|proof| SliceLeaf {
                slice: leaf.slice,
                proof,
            })
        };
        let headers: Result<Vec<_>, String> = kept.headers.iter().map(header).collect();
        let leaves: Result<Vec<_>, String> = kept.leaves.iter().map(leaf).collect();
        Ok(Some(PartProof {
            terms,
            window,
            headers: headers?,
            signer: kept.signer,
            signature: kept.signature,
            account,
            leaves: leaves?,
        }))
    }

    /// As one line of JSON.
    ///
    /// # Errors
    /// [`AgentError::Protocol`], which does not happen.
    pub fn to_json(&self) -> Result<String, AgentError> {
        serde_json::to_string(self).map_err(|error| AgentError::Protocol(error.to_string()))
    }

    /// Writes the file whole or not at all.
    ///
    /// # Errors
    /// [`AgentError::File`].
    pub fn save(&self, path: &Path) -> Result<(), AgentError> {
        let mut json = self.to_json()?.into_bytes();
        json.push(b'\n');
        write_whole(path, &json).map_err(|error| file_error(path, error))
    }

    /// Reads what [`CreditFile::save`] wrote. Nothing is checked yet.
    ///
    /// # Errors
    /// [`AgentError::File`] and [`AgentError::NotACredit`].
    pub fn load(path: &Path) -> Result<Self, AgentError> {
        let bytes = read_bounded(path, CREDIT_FILE_BYTES_MAX);
        let bytes = bytes.map_err(|error| file_error(path, error))?;
        let refused = |reason: String| AgentError::NotACredit {
            path: path.to_owned(),
            reason,
        };
        let file: Self =
            serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        match file.version {
            VERSION => Ok(file),
            version => Err(refused(format!(
                "version {version} of the format is not known here"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> CreditFile {
        let block = KeptBlock {
            hash: BlockHash([7; 32]),
            height: 9,
            state: BlockState::Matured,
            reward_msat: Msat::new(5),
            fee_msat: Msat::ZERO,
            fee_millionths: 0,
        };
        let window = KeptWindow {
            first_slice: 3,
            last_slice: 3,
            length_difficulties: 8,
            headers: vec![HexBytes(vec![1, 2])],
            signer: [3; 32],
            signature: [4; 64],
            leaves: vec![KeptLeaf {
                slice: 3,
                proof: HexBytes(vec![]),
            }],
            leaves_dropped: false,
        };
        CreditFile::new("alice", block, Some(window))
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credit.json");
        file().save(&path).unwrap();
        assert_eq!(CreditFile::load(&path).unwrap(), file());
        let json = file().to_json().unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"account\"", "\"acount\""),
            ("\"matured\"", "\"mature\""),
            ("\"0102\"", "\"010\""),
        ] {
            assert!(json.contains(from));
            std::fs::write(&path, json.replace(from, to)).unwrap();
            let refused = CreditFile::load(&path).unwrap_err();
            assert!(
                matches!(refused, AgentError::NotACredit { .. }),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_block_is_named_as_explorers_name_it() {
        let mut bytes = [0; 32];
        bytes[0] = 0xab;
        let text = format!("{}ab", "00".repeat(31));
        assert_eq!(BlockHash(bytes).to_string(), text);
        assert_eq!(text.parse(), Ok(BlockHash(bytes)));
        assert!("ab".parse::<BlockHash>().is_err());
    }

    #[test]
    fn what_has_not_its_form_is_no_proof() {
        assert!(file().part_proof().unwrap_err().contains("a header"));
        let refused = |change: &dyn Fn(&mut CreditFile)| {
            let mut file = file();
            file.window.as_mut().unwrap().headers.clear();
            file.window.as_mut().unwrap().leaves.clear();
            assert!(file.part_proof().is_ok());
            change(&mut file);
            file.part_proof().is_err()
        };
        assert!(refused(&|file| file.account.clear()));
        assert!(refused(&|file| file.block.fee_millionths = 1_000_001));
        for length in [0, 1_025, 65_544] {
            assert!(refused(&|file| file
                .window
                .as_mut()
                .unwrap()
                .length_difficulties = length));
        }
        assert!(refused(
            &|file| file.window.as_mut().unwrap().first_slice = 4
        ));
        assert!(refused(
            &|file| file.window.as_mut().unwrap().last_slice = 3 + WINDOW_SLICES_MAX
        ));
    }
}
