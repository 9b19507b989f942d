//! The sources through their handles, and the server and client over loopback.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::serialize;
use bitcoin::hashes::Hash;
use dovetail_sv2::AuthorityKeys;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::snapshot::WorkSnapshot;
use crate::test_work::{EASY_BITS, block, coinbase, mined, search, solution};
use crate::{BlockRejection, SourceConfig, TemplateError, TemplateHandle, start, tdp_server};

const PATIENCE: Duration = Duration::from_secs(20);

/// The first work at or above a height.
pub(crate) async fn work_at(handle: &TemplateHandle, height: u32) -> Arc<WorkSnapshot> {
    let mut work = handle.subscribe();
    let reached = work.wait_for(|work| work.as_ref().is_some_and(|work| work.height() >= height));
    let work = timeout(PATIENCE, reached).await.unwrap().unwrap();
    work.clone().unwrap()
}

fn embedded(stop: &CancellationToken) -> TemplateHandle {
    start(SourceConfig::embedded_with_bits(EASY_BITS), stop.clone()).unwrap()
}

/// An embedded chain behind a server, and a client of it.
struct Pair {
    server: TemplateHandle,
    client: TemplateHandle,
    address: String,
    keys: AuthorityKeys,
    /// Ends the server, but not the chain.
    stop_server: CancellationToken,
    stop: CancellationToken,
}

impl Pair {
    async fn start() -> Self {
        let stop = CancellationToken::new();
        let server = embedded(&stop);
        let keys = AuthorityKeys::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop_server = stop.child_token();
        tokio::spawn(tdp_server::serve(
            listener,
            keys,
            server.clone(),
            stop_server.clone(),
        ));
        let config = SourceConfig::template_provider(address.clone(), Some(keys.public()));
        let client = start(config, stop.clone()).unwrap();
        Self {
            server,
            client,
            address,
            keys,
            stop_server,
            stop,
        }
    }
}

#[test]
fn a_source_is_named_by_its_kind_and_unknown_keys_are_refused() {
    let source: SourceConfig = toml::from_str("kind = \"embedded\"").unwrap();
    assert_eq!(source, SourceConfig::embedded());
    let source: SourceConfig =
        toml::from_str("kind = \"bitcoin-core\"\nsocket = \"/run/node.sock\"").unwrap();
    assert_eq!(source, SourceConfig::bitcoin_core("/run/node.sock"));
    let provider = "kind = \"template-provider\"\naddress = \"127.0.0.1:8442\"\n\
        authority_public_key = \"9auqWEzQDVyd2oe1JVGFLMLHZtCo2FFqZwtKA5gd9xbuEu7PH72\"";
    assert!(toml::from_str::<SourceConfig>(provider).is_ok());
    assert!(toml::from_str::<SourceConfig>("kind = \"embedded\"\nbit = 1").is_err());
}

#[tokio::test]
async fn sources_that_cannot_exist_are_refused_at_the_start() {
    let stop = CancellationToken::new();
    let mainnet = SourceConfig::Embedded {
        bits: EASY_BITS,
        network: bitcoin::Network::Bitcoin,
    };
    assert!(matches!(
        start(mainnet, stop.clone()),
        Err(TemplateError::Chain(_))
    ));
    let old_core = SourceConfig::BitcoinCore {
        socket: "/nowhere".into(),
        version: 29,
        fee_threshold_sat: 0,
        interval_min_s: 0,
        stale_after_s: 120,
    };
    assert!(matches!(
        start(old_core, stop),
        Err(TemplateError::Config(_))
    ));
}

#[tokio::test]
async fn the_embedded_chain_serves_work_and_takes_solutions_and_blocks() {
    let stop = CancellationToken::new();
    let handle = embedded(&stop);
    let first = handle.current().expect("the first work is there at once");
    assert_eq!((first.height(), first.sequence), (1, 1));
    let data = handle.transaction_data(first.template_id()).await.unwrap();
    assert!(data.transactions.is_empty());

    let solved = mined(&first);
    let message = solution(first.template_id(), &solved);
    handle.submit_solution(message.clone()).await.unwrap();
    let second = work_at(&handle, 2).await;
    assert_eq!(second.prev_hash(), solved.block_hash().to_byte_array());
    let late = handle.submit_solution(message).await;
    assert!(matches!(late, Err(TemplateError::StaleTemplate(id)) if id == first.template_id()));

    handle
        .submit_block(serialize(&mined(&second)))
        .await
        .unwrap();
    work_at(&handle, 3).await;
    let junk = handle.submit_block(vec![0; 80]).await;
    assert!(matches!(
        junk,
        Err(TemplateError::Rejected(BlockRejection::Malformed))
    ));
    let unknown = handle.transaction_data(999).await;
    assert!(matches!(unknown, Err(TemplateError::UnknownTemplate(999))));

    stop.cancel();
    timeout(PATIENCE, handle.stopped()).await.unwrap();
    let after = handle.transaction_data(1).await;
    assert!(matches!(after, Err(TemplateError::Stopped)));
    assert!(handle.current().is_some(), "the last work stands");
}

#[tokio::test]
async fn blocks_found_by_a_client_reach_the_chain_and_come_back_as_new_work() {
    let pair = Pair::start().await;
    for height in 1..=5 {
        let work = work_at(&pair.client, height).await;
        assert!(!work.template.future_template);
        assert_eq!(work.prev_hash.template_id, work.template_id());
        let data = pair.client.transaction_data(work.template_id()).await;
        assert!(data.unwrap().transactions.is_empty());
        let message = solution(work.template_id(), &mined(&work));
        pair.client.submit_solution(message).await.unwrap();
    }
    assert_eq!(work_at(&pair.server, 6).await.height(), 6);
    pair.stop.cancel();
    timeout(PATIENCE, pair.client.stopped()).await.unwrap();
}

#[tokio::test]
async fn many_clients_are_told_of_one_anothers_blocks() {
    let pair = Pair::start().await;
    let others: Vec<TemplateHandle> = (0..5)
        .map(|_| {
            let config = SourceConfig::template_provider(pair.address.clone(), None);
            start(config, pair.stop.clone()).unwrap()
        })
        .collect();
    let work = work_at(&others[0], 1).await;
    let message = solution(work.template_id(), &mined(&work));
    others[0].submit_solution(message).await.unwrap();
    for other in &others {
        assert_eq!(work_at(other, 2).await.height(), 2);
    }
    pair.stop.cancel();
}

#[tokio::test]
async fn a_block_of_a_known_template_is_sent_as_its_solution_and_another_is_refused() {
    let pair = Pair::start().await;
    let work = work_at(&pair.client, 1).await;
    let mut foreign = block(&work, coinbase(&work));
    foreign.header.merkle_root = bitcoin::hashes::Hash::from_byte_array([9; 32]);
    search(&mut foreign, true);
    let refused = pair.client.submit_block(serialize(&foreign)).await;
    assert!(matches!(refused, Err(TemplateError::Unsupported)));
    let junk = pair.client.submit_block(vec![1, 2, 3]).await;
    assert!(matches!(junk, Err(TemplateError::MalformedBlock(_))));
    pair.client
        .submit_block(serialize(&mined(&work)))
        .await
        .unwrap();
    work_at(&pair.client, 2).await;
    pair.stop.cancel();
}

#[tokio::test]
async fn transactions_of_an_unknown_template_are_refused_by_the_client_itself() {
    let pair = Pair::start().await;
    work_at(&pair.client, 1).await;
    let unknown = pair.client.transaction_data(u64::MAX).await;
    assert!(matches!(unknown, Err(TemplateError::UnknownTemplate(_))));
    pair.stop.cancel();
}

#[tokio::test]
async fn the_last_work_stands_while_the_provider_is_away_and_counts_when_it_is_back() {
    let pair = Pair::start().await;
    let before = work_at(&pair.client, 1).await;
    pair.stop_server.cancel();
    let away = async {
        while pair.client.is_connected() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, away).await.unwrap();
    assert_eq!(
        pair.client.current().unwrap().template_id(),
        before.template_id()
    );
    let message = solution(before.template_id(), &mined(&before));
    let refused = pair.client.submit_solution(message.clone()).await;
    assert!(matches!(refused, Err(TemplateError::Unavailable)));

    let listener = TcpListener::bind(&pair.address).await.unwrap();
    tokio::spawn(tdp_server::serve(
        listener,
        pair.keys,
        pair.server.clone(),
        pair.stop.clone(),
    ));
    let mut work = pair.client.subscribe();
    let newer = work.wait_for(|work| {
        work.as_ref()
            .is_some_and(|work| work.sequence > before.sequence)
    });
    timeout(PATIENCE, newer).await.unwrap().unwrap();
    // Found before the loss, submitted after it.
    pair.client.submit_solution(message).await.unwrap();
    work_at(&pair.client, 2).await;
    pair.stop.cancel();
}

#[tokio::test]
async fn a_provider_with_another_authority_key_is_not_believed() {
    let pair = Pair::start().await;
    let config = SourceConfig::template_provider(
        pair.address.clone(),
        Some(AuthorityKeys::generate().public()),
    );
    let client = start(config, pair.stop.clone()).unwrap();
    work_at(&pair.client, 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!client.is_connected());
    assert!(client.current().is_none());
    pair.stop.cancel();
}

#[tokio::test]
async fn a_target_and_an_earlier_time_on_the_same_tip_reach_clients_and_a_later_time_does_not() {
    let stop = CancellationToken::new();
    let (source, mut port) = crate::handle::channel();
    let chain = crate::RegtestChain::new(bitcoin::Network::Regtest, EASY_BITS).unwrap();
    let (template, tip) = chain.template(1, 1_900_000_000);
    port.publisher
        .publish(template.clone(), tip.clone())
        .unwrap();
    let keys = AuthorityKeys::generate();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(tdp_server::serve(listener, keys, source, stop.clone()));
    let config = SourceConfig::template_provider(address, Some(keys.public()));
    let client = start(config, stop.clone()).unwrap();
    let mut work = client.subscribe();
    for (sequence, bits, time, told) in [
        (1, EASY_BITS, 1_900_000_000, 1_900_000_000),
        (2, EASY_BITS, 1_900_000_100, 1_900_000_000),
        (3, 0x1d00_ffff, 1_900_001_201, 1_900_001_201),
        (4, 0x1d00_ffff, 1_800_000_000, 1_800_000_000),
    ] {
        if sequence > 1 {
            let mut tip = tip.clone();
            (tip.n_bits, tip.header_timestamp) = (bits, time);
            port.publisher.publish(template.clone(), tip).unwrap();
        }
        let newest =
            work.wait_for(|work| work.as_ref().is_some_and(|work| work.sequence == sequence));
        let newest = timeout(PATIENCE, newest).await.unwrap().unwrap().clone();
        let newest = newest.unwrap();
        assert_eq!((newest.nbits(), newest.min_ntime()), (bits, told));
    }
    stop.cancel();
}

#[test]
fn the_time_for_which_the_last_work_stands_has_bounds() {
    for (seconds, fits) in [(0, false), (1, true), (86_400, true), (86_401, false)] {
        let source = format!(
            "kind = \"bitcoin-core\"\nsocket = \"/run/node.sock\"\nstale_after_s = {seconds}"
        );
        let source: SourceConfig = toml::from_str(&source).unwrap();
        assert_eq!(source.check().is_ok(), fits, "{seconds}");
    }
    let default = SourceConfig::template_provider("127.0.0.1:8442", None);
    assert!(default.check().is_ok());
}
