//! `dovetail credit sample`: what a pool shows of the shares that a block has chosen is looked at to the headers.

use std::time::Duration;

use dovetail_agent::AgentError;
use dovetail_agent::credit::{CreditClient, SampleCheck, SampleReport, SampleTerms};

use super::pool::{BITS, POINTS, pays, pool, pool_key};
use super::{Lie, run};

fn sample_terms() -> SampleTerms {
    SampleTerms {
        points: POINTS,
        pool_key: Some(pool_key()),
        tag: Some("Dovetail".to_owned()),
        scripts: vec![pays().script_pubkey()],
        bits: vec![BITS],
    }
}

async fn sample(url: &str, terms: &SampleTerms) -> Result<SampleReport, AgentError> {
    let client = CreditClient::connect(url).await.unwrap();
    client.sample(None, terms, Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_that_a_block_has_chosen_are_looked_at_to_their_headers() {
    let pool = pool();
    let url = pool.serve().await;
    let report = sample(&url, &sample_terms()).await.unwrap();
    assert!(report.verified, "{report:?}");
    assert_eq!((report.shown, report.points), (POINTS, POINTS));
    assert_eq!((report.accounts, report.bits["207fffff"]), (2, POINTS));
    assert!(
        (report.percent_found_with - 0.4528).abs() < 1e-3,
        "{report:?}"
    );
    let key = hex::encode(pool_key());
    let address = pays().to_string();
    let all = [
        "credit",
        "sample",
        "--k",
        "60",
        "--pool-key",
        &key,
        "--tag",
        "Dovetail",
        "--pays",
        &address,
        "--bits",
        "207fffff",
    ];
    let (code, stdout, stderr) = run(&url, &all).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.matches("  ok  ").count(), 7, "{stdout}");
    assert!(stdout.contains("60 of 60 shown"), "{stdout}");
    let (code, stdout, _) = run(&url, &["credit", "sample", "--k", "60"]).await;
    assert_eq!(
        (code, stdout.matches("skipped").count()),
        (Some(0), 2),
        "{stdout}"
    );
    let (code, stdout, _) = run(&url, &["credit", "sample", "--k", "60", "--tag", "Other"]).await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("does not hold: coinbase"), "{stdout}");
}

#[tokio::test]
async fn what_a_pool_cannot_show_is_counted_and_named() {
    use SampleCheck::{Bits, Coinbase, Window};
    let pool = pool();
    let url = pool.serve().await;
    let of = async |terms: SampleTerms| sample(&url, &terms).await.unwrap().first_failure;
    let terms = sample_terms();
    for (changed, check) in [
        (
            SampleTerms {
                pool_key: Some([1; 32]),
                ..terms.clone()
            },
            Window,
        ),
        (
            SampleTerms {
                bits: vec![1],
                ..terms.clone()
            },
            Bits,
        ),
        (
            SampleTerms {
                tag: Some("x".to_owned()),
                ..terms.clone()
            },
            Coinbase,
        ),
        (
            SampleTerms {
                scripts: vec![bitcoin::ScriptBuf::new()],
                ..terms.clone()
            },
            Coinbase,
        ),
    ] {
        assert_eq!(of(changed).await, Some(check));
    }
}

#[tokio::test]
async fn a_pool_that_shows_something_else_is_told_what_does_not_hold() {
    use SampleCheck::{Leaves, Shares, Statement};
    let pool = pool();
    let url = pool.serve().await;
    let terms = sample_terms();
    let lies: [(SampleCheck, Lie); 8] = [
        (Leaves, |it| {
            it.points.iter_mut().for_each(|point| point.shares.clear())
        }),
        (Leaves, |it| {
            it.points.iter_mut().for_each(|point| point.leaf.push(0))
        }),
        (Leaves, |it| {
            it.points
                .iter_mut()
                .for_each(|point| point.shares.truncate(31))
        }),
        (Leaves, |it| {
            it.points.iter_mut().for_each(|point| point.shares[0] ^= 1)
        }),
        (Shares, |it| {
            it.points
                .iter_mut()
                .for_each(|point| point.share_proof.clear())
        }),
        (Shares, |it| {
            it.points
                .iter_mut()
                .for_each(|point| point.share_proof[40] ^= 1)
        }),
        // The last bytes are the coinbase's.
        (Shares, |it| {
            it.points
                .iter_mut()
                .for_each(|point| *point.share_proof.last_mut().unwrap() ^= 1)
        }),
        (Statement, |it| {
            it.blocks.iter_mut().for_each(|block| block.height += 1)
        }),
    ];
    for (check, lie) in lies {
        pool.lie(lie);
        let report = sample(&url, &terms).await.unwrap();
        assert_eq!(
            (report.first_failure, report.shown),
            (Some(check), 0),
            "{report:?}"
        );
    }
}

#[tokio::test]
async fn one_point_that_fails_is_one_too_many() {
    let pool = pool();
    let url = pool.serve().await;
    let terms = sample_terms();
    pool.lie(|it| {
        for point in &mut it.points {
            if point.number == 17 {
                point.share_proof.clear();
            }
        }
    });
    let report = sample(&url, &terms).await.unwrap();
    assert!(!report.verified && report.shown == POINTS - 1);
    assert_eq!(report.failed[0].number, 17);
    for (words, lie) in [
        ("not go on", (|it| it.points.clear()) as Lie),
        ("out of turn", |it| {
            it.points.iter_mut().for_each(|point| point.number += 1)
        }),
    ] {
        pool.lie(lie);
        let refused = sample(&url, &terms).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{words}: {refused}");
    }
    pool.lie(|it| it.blocks.iter_mut().for_each(|block| block.window = None));
    let none = sample(&url, &terms).await.unwrap_err();
    assert!(matches!(none, AgentError::NoWindow { .. }), "{none}");
}
