//! `dovetail credit` against a stand-in for a pool, honest or not, over real gRPC on loopback.

#![allow(clippy::unwrap_used)]

mod pool;
mod samples;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use dovetail_agent::AgentError;
use dovetail_agent::credit::{
    BlockHash, CreditCheck, CreditClient, CreditFile, KeptRule, KeptStatement, check,
};
use dovetail_api::rewards_v1 as v1;
use dovetail_rewards::SliceHeader;
use dovetail_units::Msat;
use pool::{Answers, HASH, REWARD, pool, pool_key};
use serde_json::Value;

type Lie = fn(&mut Answers);

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
    assert_eq!((ok, skipped), (10, 3), "{stdout}");
    assert!(
        stdout.contains(&format!("stated      {}", pool.credits[1])),
        "{stdout}"
    );
    assert!(stdout.contains("The part holds."), "{stdout}");
    // bob has the third share of slices 4 and 6.
    assert!(stdout.contains("2 share(s) in 2 of 4 slice(s)"), "{stdout}");
    assert!(!stdout.contains("not full"), "{stdout}");
    assert!(stdout.contains(&block) && stdout.contains(&key), "{stdout}");

    for (wrong, check) in [
        (["--pool-key", &"11".repeat(32)], "pool-key"),
        (["--amount", &(pool.credits[1] + 2).to_string()], "amount"),
        (["--amount", &(pool.credits[1] - 2).to_string()], "amount"),
        // The pool has signed which of the two amounts that rounding allows it is.
        (["--amount", &(pool.credits[1] + 1).to_string()], "amount"),
        (["--amount", &(pool.credits[1] - 1).to_string()], "amount"),
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
    use CreditCheck::{Chain, Fee, Format, Leaves, PoolKey, Signature, Stated, Statement, Window};
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
    assert_eq!(of_window(&|window| drop(window.leaves.pop())), Some(Stated));
    let of_statement = |change: &dyn Fn(&mut KeptStatement)| {
        changed(&|file| change(file.statement.as_mut().unwrap()))
    };
    assert_eq!(changed(&|file| file.block.height += 1), Some(Statement));
    assert_eq!(changed(&|file| file.block.hash.0[0] ^= 1), Some(Statement));
    assert_eq!(of_statement(&|it| it.signer[0] ^= 1), Some(PoolKey));
    assert_eq!(of_statement(&|it| it.signature[0] ^= 1), Some(Statement));
    assert_eq!(
        of_statement(&|it| it.rule = KeptRule::Solo),
        Some(Statement)
    );
    assert_eq!(of_statement(&|it| it.accounts += 1), Some(Statement));
    assert_eq!(of_statement(&|it| it.parts_top[0] ^= 1), Some(Statement));
    // The part is what the rules say, so a pool that shows none has none signed.
    assert_eq!(of_statement(&|it| it.part = None), Some(Stated));
}

#[tokio::test]
async fn every_bit_of_every_header_leaf_and_part_counts() {
    use CreditCheck::{Chain, Format, Leaves, Signature, Stated};
    let pool = pool();
    let file = fetch(&pool.serve().await).await.unwrap();
    let amount = Msat::new(pool.credits[1]);
    let changed = |change: &dyn Fn(&mut CreditFile)| {
        let mut file = file.clone();
        change(&mut file);
        check(&file, Some(pool_key()), Some(amount)).first_failure
    };
    let of_window = |change: &dyn Fn(&mut dovetail_agent::credit::KeptWindow)| {
        changed(&|file| change(file.window.as_mut().unwrap()))
    };
    let of_statement = |change: &dyn Fn(&mut KeptStatement)| {
        changed(&|file| change(file.statement.as_mut().unwrap()))
    };
    let part = file.statement.as_ref().unwrap().part.as_ref().unwrap();
    for bit in 0..8 * part.0.len() {
        let failed = of_statement(&|it| it.part.as_mut().unwrap().0[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(failed, Some(Format | Stated)), "{bit}: {failed:?}");
    }
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
    let mut file = fetch(&url).await.unwrap();
    // What was signed was another block.
    let signed = check(&file, Some(pool_key()), None).first_failure;
    assert_eq!(signed, Some(CreditCheck::Statement));
    file.statement = None;
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
async fn a_block_from_before_pools_signed_blocks_is_checked_and_said_to_be_unsigned() {
    let pool = pool();
    let url = pool.serve().await;
    pool.lie(|answers| {
        answers
            .blocks
            .iter_mut()
            .for_each(|block| block.statement = None)
    });
    let file = fetch(&url).await.unwrap();
    let report = check(&file, Some(pool_key()), Some(Msat::new(pool.credits[1])));
    assert!(report.verified && report.stated.is_none());
    let json = serde_json::to_value(&report).unwrap();
    let unsigned = json["lines"].to_string().matches("not signed").count();
    assert_eq!(unsigned, 2, "{json}");
    // Such a file is what an earlier release wrote.
    assert!(!file.to_json().unwrap().contains("statement"));
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
    let mut pool = pool();
    pool.hangs = true;
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
    for (words, lie) in lies_about_blocks().into_iter().chain(lies_about_slices()) {
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

fn lies_about_blocks() -> [(&'static str, Lie); 10] {
    [
        ("no rule", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.statement.as_mut().unwrap().rule = 7)
        }),
        ("signature of a block", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.statement.as_mut().unwrap().signature.clear())
        }),
        ("parts_top", |it| {
            it.blocks
                .iter_mut()
                .for_each(|block| block.statement.as_mut().unwrap().parts_top.push(0))
        }),
        ("part is too long", |it| it.part = vec![0; 1_807]),
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
    ]
}

fn lies_about_slices() -> [(&'static str, Lie); 9] {
    [
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
    ]
}
