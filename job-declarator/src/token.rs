//! Tokens that the pool can check by itself: what a miner got from the declarator and shows in
//! `SetCustomMiningJob`. A token says what it is for, ends by itself, and carries a MAC over the
//! account it was given to and over all that was declared, under a key that only the declarator and
//! the pool have. So neither a miner nor whoever can write to the ledger's database makes a job
//! that the pool takes, and either daemon may restart. That a token is good only once is the
//! ledger's to say.

use std::fmt;

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use dovetail_ledger::DeclaredJob;
use dovetail_templates::Payout;

/// The version of what follows.
const VERSION: u8 = 1;
/// What keeps these MACs apart from any other use of the key.
const DOMAIN: &[u8] = b"dovetail/job-token/1";
/// Version and kind, the random id, the end, the MAC.
const TOKEN_BYTES: usize = 2 + ID_BYTES + 8 + MAC_BYTES;
const ID_BYTES: usize = 16;
const MAC_BYTES: usize = 32;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A job in coinbase-only mode, which nobody has seen yet.
    CoinbaseOnly,
    /// A job that was declared with its transactions.
    Declared,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the bytes of a token of this version.
    #[error("it is no token of this pool's declarator")]
    Malformed,
    /// The MAC is not that of this key over this account and job.
    #[error(
        "its MAC is of another account, job, token_key or payout: compare token_key, payout_address, \
         payout_first_height and payout_script of the pool and the declarator"
    )]
    Forged,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
}

/// A parsed token. Nothing about it is to be believed before [`TokenKey::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobToken {
    /// What it is for.
    pub kind: TokenKind,
    /// Random; what is spent.
    pub id: [u8; ID_BYTES],
    /// When it ends, in Unix seconds.
    pub expires_at_unix: u64,
    mac: [u8; MAC_BYTES],
}

impl JobToken {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let bytes: &[u8; TOKEN_BYTES] = bytes.try_into().map_err(|_| TokenError::Malformed)?;
        let (&[version, kind], rest) = bytes.split_first_chunk().ok_or(TokenError::Malformed)?;
        let (id, rest) = rest.split_first_chunk().ok_or(TokenError::Malformed)?;
        let (end, mac) = rest.split_first_chunk().ok_or(TokenError::Malformed)?;
        if version != VERSION {
            return Err(TokenError::Malformed);
        }
        Ok(Self {
            kind: match kind {
                1 => TokenKind::CoinbaseOnly,
                2 => TokenKind::Declared,
                _ => return Err(TokenError::Malformed),
            },
            id: *id,
            expires_at_unix: u64::from_le_bytes(*end),
            mac: mac.try_into().map_err(|_| TokenError::Malformed)?,
        })
    }

    /// The token's bytes: version, kind, id, end (little-endian), MAC.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.head().to_vec();
        bytes.extend_from_slice(&self.mac);
        bytes
    }

    fn head(&self) -> [u8; TOKEN_BYTES - MAC_BYTES] {
        let mut head = [0; TOKEN_BYTES - MAC_BYTES];
        head[0] = VERSION;
        head[1] = match self.kind {
            TokenKind::CoinbaseOnly => 1,
            TokenKind::Declared => 2,
        };
        head[2..2 + ID_BYTES].copy_from_slice(&self.id);
        head[2 + ID_BYTES..].copy_from_slice(&self.expires_at_unix.to_le_bytes());
        head
    }
}

/// The key that the declarator and the pool share. Its `Debug` shows nothing.
#[derive(Clone)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new token for `account`, over `content`: [`coinbase_only_content`] or
    /// [`declared_content`].
    pub fn make(
        &self,
        kind: TokenKind,
        account: &str,
        content: &[u8; 32],
        expires_at_unix: u64,
    ) -> JobToken {
        let mut token = JobToken {
            kind,
            id: rand::random(),
            expires_at_unix,
            mac: [0; MAC_BYTES],
        };
        token.mac = self.mac(&token, account, content);
        token
    }

    /// Checks a token that `account` shows for `content` at `now_unix`.
    ///
    /// # Errors
    /// [`TokenError::Forged`] or [`TokenError::Expired`].
    pub fn verify(
        &self,
        token: &JobToken,
        account: &str,
        content: &[u8; 32],
        now_unix: u64,
    ) -> Result<(), TokenError> {
        let expected = self.mac(token, account, content);
        // All bytes are compared, whichever differs: the time tells nothing.
        let difference = expected
            .iter()
            .zip(&token.mac)
            .fold(0, |sum, (a, b)| sum | (a ^ b));
        if difference != 0 {
            return Err(TokenError::Forged);
        }
        if token.expires_at_unix <= now_unix {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    fn mac(&self, token: &JobToken, account: &str, content: &[u8; 32]) -> [u8; MAC_BYTES] {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
        engine.input(DOMAIN);
        engine.input(&token.head());
        put(&mut engine, account.as_bytes());
        engine.input(content);
        Hmac::from_engine(engine).to_byte_array()
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// What a token of coinbase-only mode is for: what the job will have to pay.
pub fn coinbase_only_content(payout: &Payout) -> [u8; 32] {
    sha256::Hash::hash(&payout.identity()).to_byte_array()
}

/// What a declared job's token is for: everything that was declared but the token and the account.
pub fn declared_content(job: &DeclaredJob, payout: &Payout) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    put(&mut engine, &payout.identity());
    put(
        &mut engine,
        job.batch_root
            .as_ref()
            .map_or(&[], |root| root.as_bytes().as_slice()),
    );
    put(&mut engine, &job.coinbase_prefix);
    put(&mut engine, &job.coinbase_suffix);
    engine.input(&job.version.to_le_bytes());
    engine.input(&job.prev_hash);
    engine.input(&job.nbits.to_le_bytes());
    for ids in [&job.txids, &job.wtxids] {
        put(&mut engine, ids.as_flattened());
    }
    engine.input(&job.pool_value_sat.to_le_bytes());
    engine.input(&job.expires_at_unix.to_le_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// A field with its length before it, so that two fields cannot pass bytes to each other.
fn put(engine: &mut impl HashEngine, field: &[u8]) {
    engine.input(&(field.len() as u64).to_le_bytes());
    engine.input(field);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::ScriptBuf;
    use dovetail_commitment::BatchRoot;
    use proptest::prelude::*;

    const NOW: u64 = 1_700_000_000;

    fn key() -> TokenKey {
        TokenKey::from_bytes([1; 32])
    }

    fn payout() -> Payout {
        Payout::one(ScriptBuf::from(vec![0x51]))
    }

    fn job() -> DeclaredJob {
        DeclaredJob {
            token: vec![],
            identity: "alice".into(),
            batch_root: Some(BatchRoot::from_bytes([9; 32])),
            coinbase_prefix: vec![1, 2],
            coinbase_suffix: vec![3],
            version: 4,
            prev_hash: [5; 32],
            nbits: 6,
            txids: vec![[7; 32]],
            wtxids: vec![[8; 32]],
            pool_value_sat: 9,
            expires_at_unix: 10,
        }
    }

    #[test]
    fn a_token_is_good_for_its_account_its_content_its_key_and_its_time() {
        let content = coinbase_only_content(&payout());
        let token = key().make(TokenKind::CoinbaseOnly, "alice", &content, NOW + 10);
        let read = JobToken::parse(&token.to_bytes()).unwrap();
        assert_eq!(read, token);
        assert_eq!(key().verify(&read, "alice", &content, NOW), Ok(()));
        assert_eq!(
            key().verify(&read, "alice", &content, NOW + 10),
            Err(TokenError::Expired)
        );
        let forged = Err(TokenError::Forged);
        assert_eq!(key().verify(&read, "bob", &content, NOW), forged);
        assert_eq!(key().verify(&read, "alice", &[0; 32], NOW), forged);
        let other = TokenKey::from_bytes([2; 32]);
        assert_eq!(other.verify(&read, "alice", &content, NOW), forged);
    }

    #[test]
    fn every_field_of_a_declaration_is_under_the_mac() {
        let script = payout();
        let whole = declared_content(&job(), &script);
        let changes: [fn(&mut DeclaredJob); 10] = [
            |job| job.batch_root = None,
            |job| job.coinbase_prefix.push(3),
            |job| job.coinbase_suffix.clear(),
            |job| job.version += 1,
            |job| job.prev_hash[31] ^= 1,
            |job| job.nbits += 1,
            |job| job.txids.clear(),
            |job| job.wtxids[0][0] ^= 1,
            |job| job.pool_value_sat += 1,
            |job| job.expires_at_unix += 1,
        ];
        for change in changes {
            let mut changed = job();
            change(&mut changed);
            assert_ne!(declared_content(&changed, &script), whole);
        }
        assert_ne!(
            declared_content(&job(), &Payout::one(ScriptBuf::new())),
            whole
        );
    }

    #[test]
    fn bytes_do_not_move_from_one_field_into_the_next() {
        let mut moved = job();
        moved.coinbase_prefix = vec![1];
        moved.coinbase_suffix = vec![2, 3];
        assert_ne!(
            declared_content(&moved, &payout()),
            declared_content(&job(), &payout())
        );
    }

    proptest! {
        #[test]
        fn any_changed_byte_spoils_a_token(at in 0..TOKEN_BYTES, change in 1..=255_u8) {
            let content = [3; 32];
            let token = key().make(TokenKind::Declared, "alice", &content, u64::MAX / 2);
            let mut bytes = token.to_bytes();
            bytes[at] ^= change;
            if let Ok(changed) = JobToken::parse(&bytes) {
                prop_assert_eq!(
                    key().verify(&changed, "alice", &content, NOW),
                    Err(TokenError::Forged)
                );
            }
        }

        #[test]
        fn junk_is_no_token(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(token) = JobToken::parse(&bytes) {
                prop_assert!(key().verify(&token, "alice", &[3; 32], NOW).is_err());
            }
        }
    }
}
