//! A stand-in for a pool that answers what miners ask: honestly, or as a test has it.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use dovetail_api::codes::Code;
use dovetail_api::rewards_v1::{
    self as v1,
    rewards_server::{Rewards, RewardsServer},
};
use dovetail_rewards::{
    AccountId, CountedShare, OpenSlice, PoolFee, ShareId, SliceHeader, SliceRoot, SumTree, Weight,
    Weights, by_weight,
};
use dovetail_units::Msat;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

pub(crate) const REWARD: Msat = Msat::new(5_000_000_007);
pub(crate) const HASH: [u8; 32] = [0xb1; 32];
/// Slices of a quarter of a difficulty: the window of one is four of them.
const SLICES: usize = 7;
const FIRST: u64 = 3;

type Change = Box<dyn Fn(&mut Answers) + Send + Sync>;

/// What the pool answers with, before somebody changes it.
#[derive(Clone, Default)]
pub(crate) struct Answers {
    pub(crate) blocks: Vec<v1::Block>,
    pub(crate) slices: Vec<v1::Slice>,
    pub(crate) leaves: Vec<v1::Leaf>,
    pub(crate) next: u64,
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

fn slice(header: &SliceHeader) -> v1::Slice {
    let message = Message::from_digest(*header.root().as_bytes());
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, &keypair());
    v1::Slice {
        header: header.encode(),
        signer: pool_key().to_vec(),
        signature: signature.as_ref().to_vec(),
    }
}

/// A slice has three shares. alice finds all of them, but for the third of every second slice: that is bob's.
pub(crate) fn pool() -> Pool {
    let accounts = ["alice", "bob"].map(|name| AccountId::new(name).unwrap());
    let size = Weight::new(Weight::PER_DIFFICULTY.get() / 4).unwrap();
    let weight = Weight::new(size.get() / 3 + 1).unwrap();
    let mut open = OpenSlice::new(0, size).unwrap();
    let (mut answers, mut weights) = (Answers::default(), Weights::default());
    let mut before = SliceRoot::from_bytes([5; 32]);
    for n in 0..3 * SLICES {
        let id = ShareId(u128::try_from(n).unwrap().to_le_bytes());
        let finder = &accounts[usize::from(n % 6 == 2)];
        let Some(closed) = open.add(finder, &CountedShare { id, weight }).unwrap() else {
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
    }
    let fee = PoolFee::from_millionths(15_000).unwrap();
    let division = by_weight(REWARD, fee, &weights).unwrap();
    answers.blocks.push(v1::Block {
        block_hash: HASH.to_vec(),
        height: 700,
        state: v1::BlockState::Matured.into(),
        reward_msat: REWARD.get(),
        fee_msat: division.fee.get(),
        fee_millionths: fee.millionths(),
        window: Some(v1::Window {
            first_slice: FIRST,
            last_slice: SLICES as u64 - 1,
            length_difficulties: 1,
        }),
    });
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
}
