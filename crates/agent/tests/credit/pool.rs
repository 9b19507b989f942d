//! A stand-in for a pool that answers what miners ask: honestly, or as a test has it.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bitcoin::absolute::LockTime;
use bitcoin::address::NetworkUnchecked;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use bitcoin::{
    Address, Amount, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, transaction,
};
use dovetail_api::codes::Code;
use dovetail_api::rewards_v1::{
    self as v1,
    rewards_server::{Rewards, RewardsServer},
};
use dovetail_commitment::HeaderHash;
use dovetail_rewards::{
    AccountId, BlockStatement, BlockTerms, CountedShare, Division, DivisionRule, OpenSlice,
    PartsTree, PoolFee, ShareId, ShareProof, ShareTerms, SliceHeader, SliceRoot, SumTree, Weight,
    Weights, WindowLength, WindowTerms, by_weight, locate, points,
};
use dovetail_units::{Msat, Work};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub(crate) const REWARD: Msat = Msat::new(5_000_000_007);
pub(crate) const HASH: [u8; 32] = [0xb1; 32];
/// Slices of a quarter of a difficulty: the window of one is four of them.
const SLICES: usize = 7;
const FIRST: u64 = 3;
/// Half of all hashes are blocks.
pub(crate) const BITS: u32 = 0x207f_ffff;
/// More than one answer has.
pub(crate) const POINTS: u32 = 60;

type Change = Box<dyn Fn(&mut Answers) + Send + Sync>;

/// What the pool answers with, before somebody changes it.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub(crate) blocks: Vec<v1::Block>,
    pub(crate) slices: Vec<v1::Slice>,
    pub(crate) leaves: Vec<v1::Leaf>,
    pub(crate) next: u64,
    pub(crate) part: Vec<u8>,
    pub(crate) points: Vec<v1::ShownPoint>,
}

#[derive(Clone, Default)]
pub(crate) struct Pool {
    honest: Answers,
    /// Applied to each answer.
    change: Arc<Mutex<Option<Change>>>,
    /// Calls that are refused for now.
    pub(crate) refusals: Arc<AtomicU32>,
    /// Answers never.
    pub(crate) hangs: bool,
    /// alice's and bob's parts.
    pub(crate) credits: Vec<i64>,
}

fn keypair() -> Keypair {
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    Keypair::from_secret_key(SECP256K1, &secret)
}

pub(crate) fn pool_key() -> [u8; 32] {
    keypair().x_only_public_key().0.serialize()
}

fn signed(hash: &[u8; 32]) -> Vec<u8> {
    let message = Message::from_digest(*hash);
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &keypair());
    signature.as_ref().to_vec()
}

fn slice(header: &SliceHeader) -> v1::Slice {
    v1::Slice {
        header: header.encode(),
        signer: pool_key().to_vec(),
        signature: signed(header.root().as_bytes()),
    }
}

/// A share that was mined where half of all hashes are blocks, so that it weighs a third of a slice: its job collects less than
/// the pool's own.
fn mined(number: usize, value_sat: u64, reference_sat: u64) -> (CountedShare, ShareProof) {
    let script = [&b"\x03abc Dovetail "[..], &number.to_le_bytes()].concat();
    let coinbase = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::from_bytes(script),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(value_sat),
            script_pubkey: pays().script_pubkey(),
        }],
    };
    let mut header = Header {
        version: Version::TWO,
        prev_blockhash: BlockHash::from_byte_array([4; 32]),
        merkle_root: TxMerkleNode::from_byte_array(coinbase.compute_txid().to_byte_array()),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    };
    while header.validate_pow(header.target()).is_err() {
        header.nonce += 1;
    }
    let work = Work::from_be_bytes(header.target().to_work().to_be_bytes());
    let terms = ShareTerms {
        work,
        block_work: work,
        value_sat,
        reference_sat,
    };
    let hash = HeaderHash::from_bytes(header.block_hash().to_byte_array());
    let counted = CountedShare {
        id: ShareId::of(&hash),
        weight: terms.weight().unwrap(),
    };
    let proof = ShareProof {
        work,
        value_sat,
        reference_sat,
        header: serialize(&header).try_into().unwrap(),
        merkle_path: Vec::new(),
        coinbase: serialize(&coinbase),
    };
    (counted, proof)
}

/// What its blocks pay.
pub(crate) fn pays() -> Address {
    let address: Address<NetworkUnchecked> = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"
        .parse()
        .unwrap();
    address.assume_checked()
}

/// What an honest pool shows for the points that its block draws.
fn shown_points(
    trees: &[SumTree],
    newest: &SliceRoot,
    shares: &[(u64, AccountId, CountedShare, ShareProof)],
) -> Vec<v1::ShownPoint> {
    let totals = || trees.iter().map(|tree| tree.slice().total());
    let total: u128 = totals().map(Weight::get).sum();
    let block = HeaderHash::from_bytes(HASH);
    let drawn = points(&block, newest, Weight::new(total).unwrap(), POINTS);
    let shown = drawn.zip(0..).map(|(point, number)| {
        let place = locate(point, totals()).unwrap();
        let slice = trees[place.index].slice();
        let tallies = slice.accounts().values().map(|tally| tally.weight);
        let leaf = locate(place.offset, tallies).unwrap();
        let (account, _) = slice.accounts().iter().nth(leaf.index).unwrap();
        let of_leaf: Vec<_> = shares
            .iter()
            .filter(|(of, by, ..)| *of == slice.number() && by == account)
            .collect();
        let weights = of_leaf.iter().map(|(_, _, share, _)| share.weight);
        let share = locate(leaf.offset, weights).unwrap();
        let shares = of_leaf.iter().flat_map(|(_, _, share, _)| share.encode());
        v1::ShownPoint {
            number,
            slice: slice.number(),
            leaf: trees[place.index].proof(account).unwrap().encode(),
            shares: shares.collect(),
            share_proof: of_leaf[share.index].3.encode(),
        }
    });
    shown.collect()
}

/// What the pool says of its block.
fn block(division: &Division, fee_part: PoolFee, newest: SliceRoot) -> v1::Block {
    let parts = PartsTree::new(division);
    let window = WindowTerms {
        first: FIRST,
        last: SLICES as u64 - 1,
        length: WindowLength::new(1).unwrap(),
    };
    let statement = BlockStatement {
        block: HeaderHash::from_bytes(HASH),
        height: 700,
        rule: DivisionRule::Pplns,
        terms: BlockTerms {
            reward: REWARD,
            fee: division.fee,
            fee_part,
        },
        window: Some((window, newest)),
        parts: parts.root(),
    };
    v1::Block {
        block_hash: HASH.to_vec(),
        height: 700,
        state: v1::BlockState::Matured.into(),
        reward_msat: REWARD.get(),
        fee_msat: division.fee.get(),
        fee_millionths: fee_part.millionths(),
        window: Some(v1::Window {
            first_slice: FIRST,
            last_slice: SLICES as u64 - 1,
            length_difficulties: 1,
        }),
        statement: Some(v1::Statement {
            rule: v1::DivisionRule::Pplns.into(),
            accounts: statement.parts.accounts,
            parts_top: statement.parts.top.to_vec(),
            signer: pool_key().to_vec(),
            signature: signed(&statement.hash()),
        }),
    }
}

/// A slice has three shares. alice finds all of them, but for the third of every second slice: that is bob's.
pub(crate) fn pool() -> Pool {
    let accounts = ["alice", "bob"].map(|name| AccountId::new(name).unwrap());
    let size = Weight::new(Weight::PER_DIFFICULTY.get() / 4).unwrap();
    // A third of a slice, and a little more.
    let (value, reference) = (84, 1_000);
    let (mut trees, mut shares) = (Vec::new(), Vec::new());
    let mut open = OpenSlice::new(0, size).unwrap();
    let (mut answers, mut weights) = (Answers::default(), Weights::default());
    let mut before = SliceRoot::from_bytes([5; 32]);
    for n in 0..3 * SLICES {
        let (counted, shown) = mined(n, value, reference);
        let finder = &accounts[usize::from(n % 6 == 2)];
        shares.push((open.number(), finder.clone(), counted, shown));
        let Some(closed) = open.add(finder, &counted).unwrap() else {
            continue;
        };
        let number = closed.number();
        if number >= FIRST {
            for (account, tally) in closed.accounts() {
                weights.add(account, tally.weight).unwrap();
            }
        }
        let tree = SumTree::new(closed);
        let header = tree.header(before);
        before = header.root();
        answers.slices.push(slice(&header));
        if let Some(proof) = tree.proof(&accounts[1]) {
            let proof = proof.encode();
            answers.leaves.push(v1::Leaf {
                slice: number,
                proof,
            });
        }
        if number >= FIRST {
            trees.push(tree);
        }
    }
    let fee = PoolFee::from_millionths(15_000).unwrap();
    let division = by_weight(REWARD, fee, &weights).unwrap();
    let parts = PartsTree::new(&division);
    answers.part = parts.part(&accounts[1]).unwrap().encode();
    answers.blocks.push(block(&division, fee, before));
    answers.points = shown_points(&trees, &before, &shares);
    let credits = division.credits.iter().map(|credit| credit.amount.get());
    Pool {
        honest: answers,
        credits: credits.collect(),
        ..Pool::default()
    }
}

impl Pool {
    pub(crate) async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server =
            tonic::transport::Server::builder().add_service(RewardsServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }

    /// From now on, every answer is changed like this.
    pub(crate) fn lie(&self, change: impl Fn(&mut Answers) + Send + Sync + 'static) {
        *self.change.lock().unwrap() = Some(Box::new(change));
    }

    async fn answer(&self, answers: Answers) -> Result<Answers, Status> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let is_refused = self
            .refusals
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if is_refused.is_ok() {
            return Err(Code::RewardsFull.status("full"));
        }
        let mut answers = answers;
        if let Some(change) = &*self.change.lock().unwrap() {
            change(&mut answers);
        }
        Ok(answers)
    }
}

#[tonic::async_trait]
impl Rewards for Pool {
    async fn list_blocks(
        &self,
        request: Request<v1::ListBlocksRequest>,
    ) -> Result<Response<v1::ListBlocksResponse>, Status> {
        let wanted = request.into_inner().block_hash;
        let is_wanted = |block: &v1::Block| wanted.is_empty() || block.block_hash == wanted;
        let blocks = self.honest.blocks.iter().filter(|block| is_wanted(block));
        let answers = Answers {
            blocks: blocks.cloned().collect(),
            ..Answers::default()
        };
        let blocks = self.answer(answers).await?.blocks;
        Ok(Response::new(v1::ListBlocksResponse { blocks }))
    }

    async fn list_slices(
        &self,
        request: Request<v1::ListSlicesRequest>,
    ) -> Result<Response<v1::ListSlicesResponse>, Status> {
        let asked = request.into_inner();
        let from = usize::try_from(asked.from).unwrap_or(usize::MAX);
        let slices = self
            .honest
            .slices
            .iter()
            .skip(from)
            .take(asked.limit as usize);
        let answers = Answers {
            slices: slices.cloned().collect(),
            ..Answers::default()
        };
        let slices = self.answer(answers).await?.slices;
        Ok(Response::new(v1::ListSlicesResponse { slices }))
    }

    async fn list_leaves(
        &self,
        request: Request<v1::ListLeavesRequest>,
    ) -> Result<Response<v1::ListLeavesResponse>, Status> {
        let asked = request.into_inner();
        assert_eq!(asked.account, "bob");
        // One at a time, as a slow pool does.
        let leaf = self
            .honest
            .leaves
            .iter()
            .find(|leaf| leaf.slice >= asked.from);
        let answers = Answers {
            leaves: leaf.cloned().into_iter().collect(),
            next: leaf.map_or(SLICES as u64, |leaf| leaf.slice + 1),
            ..Answers::default()
        };
        let Answers { leaves, next, .. } = self.answer(answers).await?;
        Ok(Response::new(v1::ListLeavesResponse { leaves, next }))
    }

    async fn get_part(
        &self,
        request: Request<v1::GetPartRequest>,
    ) -> Result<Response<v1::GetPartResponse>, Status> {
        let asked = request.into_inner();
        assert_eq!((&*asked.block_hash, &*asked.account), (&HASH[..], "bob"));
        let answers = Answers {
            part: self.honest.part.clone(),
            ..Answers::default()
        };
        let part = self.answer(answers).await?.part;
        Ok(Response::new(v1::GetPartResponse { part }))
    }

    async fn show_points(
        &self,
        request: Request<v1::ShowPointsRequest>,
    ) -> Result<Response<v1::ShowPointsResponse>, Status> {
        let asked = request.into_inner();
        let wanted = asked.from..asked.from + asked.limit;
        let points = self.honest.points.iter();
        let points = points.filter(|point| wanted.contains(&point.number));
        let answers = Answers {
            // Few at a time, as a slow pool does.
            points: points.take(5).cloned().collect(),
            ..Answers::default()
        };
        let points = self.answer(answers).await?.points;
        let next = points.last().map_or(asked.from, |point| point.number + 1);
        Ok(Response::new(v1::ShowPointsResponse { points, next }))
    }
}
