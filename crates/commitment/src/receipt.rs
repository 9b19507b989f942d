//! A receipt: the proof, checkable offline and by anyone, that a transcript was committed to
//! before work was done on it, and of what it cost, signed by the pool that replayed the audit's sample.

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1};
use bitcoin::{Target, Transaction};
use dovetail_units::{Msat, TokenPrices};
use serde::{Deserialize, Serialize};

use crate::block::merkle_root;
use crate::coinbase;
use crate::constraint::Constraint;
use crate::ids::{BatchRoot, HeaderHash, LeafHash};
use crate::merkle::{InclusionProof, PROOF_STEPS_MAX};
use crate::prompt::{EncodedPrompt, prompt_commitment};
use crate::signature::is_signed;
use crate::stop::StopSequences;
use crate::tagged_hash::tagged_hash;
use crate::transcript::{Transcript, output_digest};

/// The version of the format.
const VERSION: u8 = 2;
/// The longest merkle path of a block: blocks have fewer than 2^16 transactions.
const MERKLE_PATH_MAX: usize = 16;

/// What a receipt shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptParts {
    /// The completion.
    pub transcript: Transcript,
    /// Its way to the batch root.
    pub leaf_proof: InclusionProof,
    /// The share's coinbase, without witness.
    pub coinbase: Vec<u8>,
    /// From the coinbase to the header's merkle root.
    pub merkle_path: Vec<[u8; 32]>,
    /// The share's header.
    pub header: [u8; 80],
    /// The target that the share met, little-endian.
    pub share_target: [u8; 32],
    /// When the pool signed, in Unix seconds.
    pub issued_at_unix: u64,
    /// The public key of the function that draws the pool's samples.
    pub vrf_key: [u8; 32],
    /// How many tokens of input are paid for.
    pub input_tokens: u32,
    /// What the model's tokens cost.
    pub prices: TokenPrices,
    /// What the task has cost, and has earned its worker.
    pub price: Msat,
}

/// A receipt as it is stored and sent: JSON, byte strings in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The version of the format: 2.
    pub version: u8,
    /// The encoded transcript.
    #[serde(with = "hex::serde")]
    pub transcript: Vec<u8>,
    /// Its way to the batch root.
    pub leaf_proof: InclusionProof,
    /// The share's coinbase, without witness.
    #[serde(with = "hex::serde")]
    pub coinbase: Vec<u8>,
    /// From the coinbase to the header's merkle root.
    pub merkle_path: Vec<LeafHash>,
    /// The share's header, 80 bytes.
    #[serde(with = "hex::serde")]
    pub header: Vec<u8>,
    /// The target that the share met, little-endian.
    #[serde(with = "hex::serde")]
    pub share_target: [u8; 32],
    /// When the pool signed, in Unix seconds.
    pub issued_at_unix: u64,
    /// The public key of the function that draws the pool's samples. With it, whoever has a batch's proof can check that
    /// nobody chose its sample.
    #[serde(with = "hex::serde")]
    pub vrf_key: [u8; 32],
    /// How many tokens of input are paid for; how many of output stands in the transcript.
    pub input_tokens: u32,
    /// What the model's tokens cost.
    pub prices: TokenPrices,
    /// What the task has cost, and has earned its worker. It is the value that the audit weighed the transcript with.
    pub price_msat: Msat,
    /// The pool's x-only key.
    #[serde(with = "hex::serde")]
    pub pool_key: [u8; 32],
    /// The pool's BIP-340 signature over everything above.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
}

/// What a good receipt proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedReceipt {
    /// The completion that was committed to.
    pub transcript: Transcript,
    /// The batch it stood in.
    pub batch_root: BatchRoot,
    /// The hash of the share's header.
    pub header_hash: HeaderHash,
    /// How many tokens of input were paid for.
    pub input_tokens: u32,
    /// What the model's tokens cost.
    pub prices: TokenPrices,
    /// What they came to.
    pub price: Msat,
    /// Who signed.
    pub pool_key: [u8; 32],
}

/// The first thing that does not hold, in the order in which they are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// A field is too long, too short or does not decode.
    #[error("format: {0}")]
    Format(&'static str),
    /// The signature is not one of the named key over these fields.
    #[error("signature: it is not the named pool key's signature over this receipt")]
    Signature,
    /// Signed by another pool than expected.
    #[error("pool key: the receipt is signed by another key than the expected one")]
    PoolKey,
    /// The coinbase carries no commitment.
    #[error("batch root in coinbase: the coinbase carries no well-formed commitment")]
    Commitment,
    /// The transcript is not in the batch that the coinbase commits to.
    #[error("leaf in batch: the transcript is not part of the batch in the coinbase")]
    Leaf,
    /// The coinbase is not in the block.
    #[error("coinbase in merkle root: the path does not lead to the header's merkle root")]
    MerklePath,
    /// The header does not meet the target.
    #[error("header meets target: its hash is above the share's target")]
    Target,
    /// The price is another one.
    #[error("price: it is not what so many tokens cost at these prices")]
    Price,
    /// The prompt is another one.
    #[error("prompt: its text or its tokens are not those that the transcript commits to")]
    Prompt,
    /// Other tokens of input were paid for than the prompt has.
    #[error("input tokens: the price counts another number of them than the prompt has")]
    InputTokens,
    /// The output is another one.
    #[error("output: it is not the one that the transcript commits to")]
    Output,
}

impl Receipt {
    /// Signs a receipt.
    pub fn sign(parts: ReceiptParts, pool: &Keypair) -> Self {
        let mut receipt = Self {
            version: VERSION,
            transcript: parts.transcript.encode(),
            leaf_proof: parts.leaf_proof,
            coinbase: parts.coinbase,
            merkle_path: parts
                .merkle_path
                .into_iter()
                .map(LeafHash::from_bytes)
                .collect(),
            header: parts.header.to_vec(),
            share_target: parts.share_target,
            issued_at_unix: parts.issued_at_unix,
            vrf_key: parts.vrf_key,
            input_tokens: parts.input_tokens,
            prices: parts.prices,
            price_msat: parts.price,
            pool_key: pool.x_only_public_key().0.serialize(),
            signature: [0; 64],
        };
        let message = Message::from_digest(receipt.digest());
        receipt.signature = SECP256K1
            .sign_schnorr_no_aux_rand(&message, pool)
            .serialize();
        receipt
    }

    /// Checks everything that can be checked without knowing the prompt or the output.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify(
        &self,
        expected_pool_key: Option<[u8; 32]>,
    ) -> Result<VerifiedReceipt, ReceiptError> {
        let (transcript, header, transaction) = self.parse()?;
        self.verify_signature()?;
        if expected_pool_key.is_some_and(|expected| expected != self.pool_key) {
            return Err(ReceiptError::PoolKey);
        }
        let batch_root = coinbase::find_commitment(&transaction.output)
            .ok()
            .flatten()
            .ok_or(ReceiptError::Commitment)?;
        if !self.leaf_proof.verify(transcript.leaf(), batch_root) {
            return Err(ReceiptError::Leaf);
        }
        let txid = transaction.compute_txid().to_byte_array();
        let path = self.merkle_path.iter().map(LeafHash::as_bytes);
        if header.merkle_root.to_byte_array() != merkle_root(txid, path) {
            return Err(ReceiptError::MerklePath);
        }
        let hash = header.block_hash();
        if !Target::from_le_bytes(self.share_target).is_met_by(hash) {
            return Err(ReceiptError::Target);
        }
        let price = self.prices.of(self.input_tokens, transcript.output_tokens);
        if price != self.price_msat {
            return Err(ReceiptError::Price);
        }
        Ok(VerifiedReceipt {
            transcript,
            batch_root,
            header_hash: HeaderHash::from_bytes(hash.to_byte_array()),
            input_tokens: self.input_tokens,
            prices: self.prices,
            price,
            pool_key: self.pool_key,
        })
    }

    fn parse(&self) -> Result<(Transcript, Header, Transaction), ReceiptError> {
        if self.version != VERSION {
            return Err(ReceiptError::Format("unknown version"));
        }
        if self.leaf_proof.siblings.len() > PROOF_STEPS_MAX {
            return Err(ReceiptError::Format("the leaf's proof is too long"));
        }
        if self.merkle_path.len() > MERKLE_PATH_MAX {
            return Err(ReceiptError::Format("the merkle path is too long"));
        }
        let transcript = Transcript::decode(&self.transcript)
            .map_err(|_| ReceiptError::Format("the transcript does not decode"))?;
        let header = deserialize(&self.header)
            .map_err(|_| ReceiptError::Format("the header does not decode"))?;
        let transaction = coinbase::parse(&self.coinbase)
            .map_err(|_| ReceiptError::Format("the coinbase does not decode"))?;
        Ok((transcript, header, transaction))
    }

    fn verify_signature(&self) -> Result<(), ReceiptError> {
        match is_signed(&self.pool_key, &self.digest(), &self.signature) {
            true => Ok(()),
            false => Err(ReceiptError::Signature),
        }
    }

    /// What is signed: every field in order, those of variable length behind their length.
    fn digest(&self) -> [u8; 32] {
        let mut bytes = vec![self.version];
        put(&mut bytes, &self.transcript);
        bytes.extend_from_slice(&self.leaf_proof.index.to_le_bytes());
        bytes.extend_from_slice(&self.leaf_proof.count.to_le_bytes());
        put(&mut bytes, &flatten(&self.leaf_proof.siblings));
        put(&mut bytes, &self.coinbase);
        put(&mut bytes, &flatten(&self.merkle_path));
        put(&mut bytes, &self.header);
        bytes.extend_from_slice(&self.share_target);
        bytes.extend_from_slice(&self.issued_at_unix.to_le_bytes());
        bytes.extend_from_slice(&self.vrf_key);
        bytes.extend_from_slice(&self.input_tokens.to_le_bytes());
        bytes.extend_from_slice(&self.prices.input_msat_per_million().to_le_bytes());
        bytes.extend_from_slice(&self.prices.output_msat_per_million().to_le_bytes());
        bytes.extend_from_slice(&self.price_msat.get().to_le_bytes());
        bytes.extend_from_slice(&self.pool_key);
        tagged_hash("dovetail/receipt", &[&bytes])
    }
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
    bytes.extend_from_slice(field);
}

fn flatten(nodes: &[LeafHash]) -> Vec<u8> {
    nodes.iter().flat_map(|node| node.to_bytes()).collect()
}

impl VerifiedReceipt {
    /// Checks that as many tokens of input were paid for as the agent's own copy of the prompt has.
    ///
    /// # Errors
    /// [`ReceiptError::InputTokens`].
    pub fn verify_input_tokens(&self, prompt: &EncodedPrompt) -> Result<(), ReceiptError> {
        match usize::try_from(self.input_tokens) == Ok(prompt.tokens().len()) {
            true => Ok(()),
            false => Err(ReceiptError::InputTokens),
        }
    }
}

/// Checks the agent's own copy of prompt, stop sequences, constraint and output against a transcript.
///
/// # Errors
/// [`ReceiptError::Prompt`] or [`ReceiptError::Output`].
pub fn verify_content(
    transcript: &Transcript,
    salt: &[u8; 32],
    stop: &StopSequences,
    constraint: Option<&Constraint>,
    prompt: &EncodedPrompt,
    output_tokens: &[u32],
) -> Result<(), ReceiptError> {
    if prompt_commitment(salt, stop, constraint, prompt) != transcript.prompt_commitment {
        return Err(ReceiptError::Prompt);
    }
    if output_tokens.len() != transcript.output_tokens as usize
        || output_digest(output_tokens) != transcript.output_digest
    {
        return Err(ReceiptError::Output);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Batch;
    use crate::transcript::tests::{example, prompt};
    use bitcoin::block::Version;
    use bitcoin::consensus::serialize;
    use bitcoin::hashes::{HashEngine, sha256d};
    use bitcoin::secp256k1::SecretKey;
    use bitcoin::{BlockHash, CompactTarget, TxMerkleNode};

    fn pool() -> Keypair {
        Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[8; 32]).unwrap())
    }

    fn parts() -> ReceiptParts {
        let batch = Batch::new(vec![example(1).leaf(), example(2).leaf()]).unwrap();
        let transaction = coinbase::tests::example(vec![coinbase::commitment_output(batch.root())]);
        let sibling = [3; 32];
        let mut engine = sha256d::Hash::engine();
        engine.input(&transaction.compute_txid().to_byte_array());
        engine.input(&sibling);
        let header = Header {
            version: Version::TWO,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::from_byte_array(
                sha256d::Hash::from_engine(engine).to_byte_array(),
            ),
            time: 0,
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        ReceiptParts {
            transcript: example(1),
            leaf_proof: batch.proof(0).unwrap(),
            coinbase: serialize(&transaction),
            merkle_path: vec![sibling],
            header: serialize(&header).try_into().unwrap(),
            share_target: [0xff; 32],
            issued_at_unix: 1,
            vrf_key: [9; 32],
            // 3 * 0.4 + 3 * 2 = 7.2 msat.
            input_tokens: 3,
            prices: TokenPrices::new(400_000, 2_000_000).unwrap(),
            price: Msat::new(8),
        }
    }

    #[test]
    fn a_receipt_verifies_also_after_json() {
        let receipt = Receipt::sign(parts(), &pool());
        let json = serde_json::to_string(&receipt).unwrap();
        let receipt: Receipt = serde_json::from_str(&json).unwrap();
        let verified = receipt.verify(Some(receipt.pool_key)).unwrap();
        assert_eq!(verified.transcript, example(1));
        assert_eq!(
            verify_content(
                &verified.transcript,
                &[4; 32],
                &StopSequences::default(),
                None,
                &prompt(),
                &[1, 2, 3]
            ),
            Ok(())
        );
    }

    #[test]
    fn the_first_thing_that_does_not_hold_is_named() {
        let sign = |change: fn(&mut ReceiptParts)| {
            let mut parts = parts();
            change(&mut parts);
            Receipt::sign(parts, &pool()).verify(None)
        };
        assert_eq!(sign(|p| p.transcript = example(2)), Err(ReceiptError::Leaf));
        assert_eq!(sign(|p| p.leaf_proof.index = 1), Err(ReceiptError::Leaf));
        assert_eq!(
            sign(|p| p.merkle_path.clear()),
            Err(ReceiptError::MerklePath)
        );
        assert_eq!(
            sign(|p| p.share_target = [0; 32]),
            Err(ReceiptError::Target)
        );
        assert_eq!(
            sign(|p| p.coinbase.push(0)),
            Err(ReceiptError::Format("the coinbase does not decode"))
        );
        let mut tampered = Receipt::sign(parts(), &pool());
        tampered.issued_at_unix += 1;
        assert_eq!(tampered.verify(None), Err(ReceiptError::Signature));
        let mut tampered = Receipt::sign(parts(), &pool());
        tampered.vrf_key[0] ^= 1;
        assert_eq!(tampered.verify(None), Err(ReceiptError::Signature));
        // Prices at which the same tokens cost the same.
        let mut tampered = Receipt::sign(parts(), &pool());
        tampered.prices = TokenPrices::new(400_001, 2_000_000).unwrap();
        assert_eq!(tampered.verify(None), Err(ReceiptError::Signature));
        let receipt = Receipt::sign(parts(), &pool());
        assert_eq!(receipt.verify(Some([1; 32])), Err(ReceiptError::PoolKey));
    }

    #[test]
    fn a_price_that_its_tokens_do_not_come_to_is_named_although_the_pool_signed_it() {
        let changes: [fn(&mut ReceiptParts); 6] = [
            |p| p.price = Msat::new(7),
            |p| p.price = Msat::new(9),
            |p| p.price = Msat::new(-8),
            |p| p.input_tokens = 2,
            |p| p.input_tokens = 6,
            |p| p.prices = TokenPrices::FREE,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            let mut parts = parts();
            change(&mut parts);
            let refused = Receipt::sign(parts, &pool()).verify(None);
            assert_eq!(refused, Err(ReceiptError::Price), "change {n}");
        }
    }

    #[test]
    fn other_tokens_of_input_than_the_prompt_has_are_named() {
        let verified = Receipt::sign(parts(), &pool()).verify(None).unwrap();
        assert_eq!(verified.price, Msat::new(8));
        assert_eq!(verified.verify_input_tokens(&prompt()), Ok(()));
        for tokens in [vec![256, 112], vec![256, 112, 114, 1]] {
            let other = EncodedPrompt::new(b"prompt", tokens).unwrap();
            let refused = verified.verify_input_tokens(&other);
            assert_eq!(refused, Err(ReceiptError::InputTokens));
        }
    }

    /// Computed by a program of its own from what `docs/receipts.md` says of the signature.
    #[test]
    fn what_is_signed_in_version_2_never_changes() {
        let digest = Receipt::sign(parts(), &pool()).digest();
        let expected = "6da0f4f6d5c12bb4122c3d56d248bcfbf0d8d79603cf895845955087b9e2a135";
        assert_eq!(hex::encode(digest), expected);
    }

    #[test]
    fn another_prompt_or_output_is_named() {
        let transcript = example(1);
        let none = StopSequences::default();
        let some = StopSequences::new(vec![b"prompt".to_vec()]).unwrap();
        let tokens = prompt().tokens().to_vec();
        let other_text = EncodedPrompt::new(b"other", tokens.clone()).unwrap();
        let other_tokens = [tokens, vec![111]].concat();
        let other_tokens = EncodedPrompt::new(b"prompt", other_tokens).unwrap();
        for (stop, prompt) in [
            (&none, &other_text),
            (&none, &other_tokens),
            (&some, &prompt()),
        ] {
            assert_eq!(
                verify_content(&transcript, &[4; 32], stop, None, prompt, &[1, 2, 3]),
                Err(ReceiptError::Prompt)
            );
        }
        for other in [&[1, 2][..], &[1, 2, 4], &[1, 2, 3, 4]] {
            assert_eq!(
                verify_content(&transcript, &[4; 32], &none, None, &prompt(), other),
                Err(ReceiptError::Output)
            );
        }
    }
}
