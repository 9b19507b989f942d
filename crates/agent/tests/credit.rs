//! `dovetail credit` against a stand-in for a pool, honest or not, over real gRPC on loopback.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bitcoin::secp256k1::{Keypair, Message, SECP256K1, SecretKey};
use dovetail_agent::AgentError;
use dovetail_agent::credit::{BlockHash, CreditCheck, CreditClient, CreditFile, check};
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
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const REWARD: Msat = Msat::new(5_000_000_007);
const HASH: [u8; 32] = [0xb1; 32];
/// Slices of a quarter of a difficulty: the window of one is four of them.
const SLICES: usize = 7;
const FIRST: u64 = 3;

type Change = Box<dyn Fn(&mut Answers) + Send + Sync>;

/// What the pool answers with, before somebody changes it.
#[derive(Clone, Default)]
struct Answers {
    blocks: Vec<v1::Block>,
    slices: Vec<v1::Slice>,
    leaves: Vec<v1::Leaf>,
    next: u64,
}

#[derive(Clone, Default)]
struct Pool {
    honest: Answers,
    /// Applied to each answer.
    change: Arc<Mutex<Option<Change>>>,
    /// Calls that are refused for now.
    refusals: Arc<AtomicU32>,
    /// Answers never.
    hangs: bool,
    /// alice's and bob's parts.
    credits: Vec<i64>,
}

fn keypair() -> Keypair {
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    Keypair::from_secret_key(SECP256K1, &secret)
}

fn pool_key() -> [u8; 32] {
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

/// alice finds two shares of each slice, and bob one of every second slice, and one more.
fn pool() -> Pool {
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
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server =
            tonic::transport::Server::builder().add_service(RewardsServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        url
    }

    /// From now on, every answer is changed like this.
    fn lie(&self, change: impl Fn(&mut Answers) + Send + Sync + 'static) {
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

async fn fetch(url: &str) -> Result<CreditFile, AgentError> {
    let client = CreditClient::connect(url).await.unwrap();
    client.fetch("bob", None, Duration::from_secs(60)).await
}

fn dovetail(url: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dovetail"))
        .args(arguments)
        .env("DOVETAIL_POOL", url)
        .env_remove("DOVETAIL_POOL_KEY")
        .output()
        .unwrap()
}

/// Runs the command beside the pool's tasks; its exit code, and what it printed on either side.
async fn run(url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = url.to_owned();
    let arguments: Vec<String> = arguments
        .iter()
        .map(|&argument| argument.to_owned())
        .collect();
    let running = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        dovetail(&url, &arguments)
    });
    let output = running.await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn path(folder: &Path, name: &str) -> (PathBuf, String) {
    let path = folder.join(name);
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miner_fetches_its_part_and_checks_it_offline() {
    let pool = pool();
    let url = pool.serve().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, name) = path(folder.path(), "credit.json");
    let (code, stdout, stderr) = run(&url, &["credit", "get", "bob", "--into", &name]).await;
    assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
    let block = BlockHash(HASH).to_string();
    assert!(
        stderr.contains(&block) && stderr.contains("matured"),
        "{stderr}"
    );

    let key = hex::encode(pool_key());
    let nowhere = "http://127.0.0.1:1";
    let amount = pool.credits[1].to_string();
    let holds = [
        "credit",
        "verify",
        &name,
        "--pool-key",
        &key,
        "--amount",
        &amount,
    ];
    let (code, stdout, _) = run(nowhere, &holds).await;
    assert_eq!(code, Some(0), "{stdout}");
    let (ok, skipped) = (
        stdout.matches("  ok  ").count(),
        stdout.matches("skipped").count(),
    );
    // What only the chain, the miner's own count and older slices tell is never said to be checked.
    assert_eq!((ok, skipped), (8, 3), "{stdout}");
    assert!(stdout.contains("The part holds."), "{stdout}");
    // bob has the third share of slices 4 and 6.
    assert!(stdout.contains("2 share(s) in 2 of 4 slice(s)"), "{stdout}");
    assert!(stdout.contains(&block) && stdout.contains(&key), "{stdout}");

    for (wrong, check) in [
        (["--pool-key", &"11".repeat(32)], "pool-key"),
        (["--amount", &(pool.credits[1] + 2).to_string()], "amount"),
        (["--amount", &(pool.credits[1] - 2).to_string()], "amount"),
    ] {
        let arguments = [&["credit", "verify", &name, "--json"][..], &wrong].concat();
        let (code, stdout, _) = run(nowhere, &arguments).await;
        let report: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &report["first_failure"]), (Some(1), &check.into()));
        assert_eq!(report["verified"], false);
    }
    let (code, stdout, _) = run(&url, &["credit", "get", "bob", "--block", &block]).await;
    assert_eq!(
        (code, &*stdout),
        (Some(0), &*std::fs::read_to_string(&file).unwrap())
    );
    let (code, _, stderr) = run(&url, &["credit", "get", "bob", "--block", &"12".repeat(32)]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("has divided no block 1212"), "{stderr}");
    let (code, _, stderr) = run(nowhere, &["credit", "get", "bob"]).await;
    assert!(code == Some(1) && stderr.contains("hint:"), "{stderr}");
}

#[tokio::test]
async fn whatever_is_changed_in_a_file_is_found() {
    let pool = pool();
    let file = fetch(&pool.serve().await).await.unwrap();
    let amount = Msat::new(pool.credits[1]);
    let checked = |file: &CreditFile| check(file, Some(pool_key()), Some(amount)).first_failure;
    assert_eq!(checked(&file), None);
    let changed = |change: &dyn Fn(&mut CreditFile)| {
        let mut file = file.clone();
        change(&mut file);
        checked(&file)
    };
    let window = |file: &mut CreditFile,
                  change: &dyn Fn(&mut dovetail_agent::credit::KeptWindow)| {
        change(file.window.as_mut().unwrap());
    };
    let of_window = |change: &dyn Fn(&mut dovetail_agent::credit::KeptWindow)| {
        changed(&|file| window(file, change))
    };
    use CreditCheck::{Amount, Chain, Fee, Format, Leaves, PoolKey, Signature, Window};
    assert_eq!(changed(&|file| file.account.clear()), Some(Format));
    assert_eq!(changed(&|file| file.account.push('b')), Some(Leaves));
    assert_eq!(
        changed(&|file| file.block.fee_msat = Msat::new(7)),
        Some(Fee)
    );
    assert_eq!(changed(&|file| file.block.fee_millionths += 1), Some(Fee));
    assert_eq!(
        changed(&|file| file.block.reward_msat = Msat::new(7)),
        Some(Fee)
    );
    assert_eq!(of_window(&|window| window.signer[0] ^= 1), Some(PoolKey));
    assert_eq!(
        of_window(&|window| window.signature[0] ^= 1),
        Some(Signature)
    );
    assert_eq!(
        of_window(&|window| window.length_difficulties = 2),
        Some(Window)
    );
    assert_eq!(
        of_window(&|window| window.length_difficulties = 0),
        Some(Format)
    );
    assert_eq!(of_window(&|window| window.first_slice += 1), Some(Chain));
    assert_eq!(of_window(&|window| window.last_slice += 1), Some(Chain));
    assert_eq!(
        of_window(&|window| drop(window.headers.remove(1))),
        Some(Chain)
    );
    assert_eq!(
        of_window(&|window| window.leaves[0].slice -= 1),
        Some(Leaves)
    );
    assert_eq!(of_window(&|window| window.leaves.reverse()), Some(Leaves));
    // A leaf that is left out is an amount that is not the account's.
    assert_eq!(of_window(&|window| drop(window.leaves.pop())), Some(Amount));
    // Every bit of every header and leaf counts.
    let kept = file.window.as_ref().unwrap();
    for bit in 0..8 * SliceHeader::ENCODED_LEN {
        for at in [0, 3] {
            let failed = of_window(&|window| window.headers[at].0[bit / 8] ^= 1 << (bit % 8));
            assert!(
                matches!(failed, Some(Format | Chain | Signature)),
                "{bit}: {failed:?}"
            );
        }
    }
    for bit in 0..8 * kept.leaves[1].proof.0.len() {
        let failed = of_window(&|window| window.leaves[1].proof.0[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(failed, Some(Format | Leaves)), "{bit}: {failed:?}");
    }
}

#[tokio::test]
async fn a_block_without_a_window_is_its_finders() {
    let pool = pool();
    let url = pool.serve().await;
    pool.lie(|answers| {
        answers
            .blocks
            .iter_mut()
            .for_each(|block| block.window = None)
    });
    let file = fetch(&url).await.unwrap();
    let rest = REWARD.get() - file.block.fee_msat.get();
    let verified = |amount| check(&file, Some(pool_key()), amount).verified;
    assert!(verified(None) && verified(Some(Msat::new(rest))) && verified(Some(Msat::ZERO)));
    assert!(!verified(Some(Msat::new(rest - 1))));
    let mut changed = file.clone();
    changed.block.fee_msat = Msat::ZERO;
    assert_eq!(
        check(&changed, None, None).first_failure,
        Some(CreditCheck::Fee)
    );
}

#[tokio::test]
async fn a_pool_that_is_busy_is_asked_again() {
    let pool = pool();
    pool.refusals.store(2, SeqCst);
    let file = fetch(&pool.serve().await).await.unwrap();
    assert!(check(&file, None, None).verified);
}

#[tokio::test]
async fn a_pool_that_keeps_a_miner_waiting_does_so_for_a_time() {
    let pool = Pool {
        hangs: true,
        ..pool()
    };
    let client = CreditClient::connect(&pool.serve().await).await.unwrap();
    let late = client.fetch("bob", None, Duration::from_millis(100)).await;
    assert!(
        matches!(late, Err(AgentError::CreditLate { .. })),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_pool_that_lies_in_its_answers_is_told_so() {
    let pool = pool();
    let url = pool.serve().await;
    let lies: [(&str, fn(&mut Answers)); 15] = [
        ("state", |it| {
            it.blocks.iter_mut().for_each(|block| block.state = 0)
        }),
        ("block_hash", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.block_hash.clear())
        }),
        ("more blocks", |it| {
            it.blocks = vec![v1::Block::default(); 129]
        }),
        ("before it begins", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.window.as_mut().unwrap().first_slice = 9)
        }),
        ("never", |it| {
            for block in &mut it.blocks {
                let window = block.window.as_mut().unwrap();
                (window.first_slice, window.last_slice) = (u64::MAX, u64::MAX);
            }
        }),
        ("more than 65536 slices", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.window.as_mut().unwrap().last_slice = 1 << 40)
        }),
        ("not have the slices", |it| drop(it.slices.pop())),
        ("not have the slices", |it| {
            it.slices.extend(it.slices.first().cloned())
        }),
        ("no header", |it| it.slices.reverse()),
        ("no header", |it| {
            it.slices.iter_mut().for_each(|slice| slice.header.push(0))
        }),
        ("signer", |it| {
            it.slices.iter_mut().for_each(|slice| slice.signer.push(0))
        }),
        ("signature", |it| {
            it.slices
                .iter_mut()
                .for_each(|slice| slice.signature.clear())
        }),
        ("not go on", |it| it.next = 0),
        ("out of turn", |it| {
            it.leaves.iter_mut().for_each(|leaf| leaf.slice = 0)
        }),
        ("too long", |it| {
            it.leaves
                .iter_mut()
                .for_each(|leaf| leaf.proof = vec![0; 1_087])
        }),
    ];
    for (words, lie) in lies {
        pool.lie(lie);
        let refused = fetch(&url).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    pool.lie(|answers| answers.blocks.clear());
    let none = fetch(&url).await.unwrap_err();
    assert!(
        matches!(none, AgentError::BlockUnknown { wanted: None }),
        "{none}"
    );
    assert!(none.hint().is_some());
}
