use super::*;

fn example() -> Config {
    toml::from_str(include_str!("../../../config/dovetail-pool.toml")).unwrap()
}

type Change = fn(&mut Config);

/// Each of these changes to the example is refused in these words.
fn refused(changes: &[(&str, Change)]) {
    for (key, change) in changes {
        let mut config = example();
        change(&mut config);
        let refused = config.check().unwrap_err();
        assert!(refused.contains(key), "{key}: {refused}");
    }
}

#[test]
fn sizes_that_nothing_can_be_reckoned_with_are_named() {
    let changes: [(&str, Change); 26] = [
        ("mining.cert_validity_s", |c| {
            c.mining.cert_validity_s = u64::MAX
        }),
        ("mining.connections_max", |c| {
            c.mining.connections_max = usize::MAX
        }),
        ("mining.channels_per_connection_max", |c| {
            c.mining.channels_per_connection_max = 0;
        }),
        ("api.requests_per_connection_max", |c| {
            c.api.requests_per_connection_max = 0
        }),
        ("api.downloads_max", |c| c.api.downloads_max = 1_025),
        ("ledger.connections_max", |c| {
            c.ledger.connections_max = u32::MAX
        }),
        ("ledger.log_bytes_max", |c| c.ledger.log_bytes_max = 1),
        ("ledger.keep_blocks", |c| c.ledger.keep_blocks = 100),
        ("job_declarator.coinbase_only_seen_within_s", |c| {
            c.job_declarator.coinbase_only_seen_within_s = 0;
        }),
        ("lightning.interval_ms", |c| {
            c.lightning.interval_ms = u64::MAX
        }),
        ("lightning.retry_base_ms", |c| c.lightning.retry_base_ms = 0),
        ("lightning.cltv_max", |c| c.lightning.cltv_max = 17),
        ("destinations.hold_s", |c| {
            c.destinations.hold_s = 31 * 86_400
        }),
        ("inference.prompt_bytes_max", |c| {
            c.inference.prompt_bytes_max = dovetail_commitment::PROMPT_BYTES_MAX + 1
        }),
        ("inference.queue_max", |c| c.inference.queue_max = 0),
        ("inference.first_token_s", |c| c.inference.first_token_s = 0),
        ("inference.progress_s", |c| {
            c.inference.progress_s = u64::MAX
        }),
        ("inference.agent_absence_s", |c| {
            c.inference.agent_absence_s = 0
        }),
        ("inference.task_lifetime_s", |c| {
            c.inference.task_lifetime_s = u64::MAX
        }),
        ("audit.timeout_s", |c| c.audit.timeout_s = u64::MAX),
        ("audit.validator_timeout_s", |c| {
            c.audit.validator_timeout_s = 0
        }),
        ("credit.settle_interval_s", |c| {
            c.credit.settle_interval_s = u64::MAX
        }),
        ("inference.subsidy.msat_per_day", |c| {
            c.inference.subsidy.msat_per_day = -1;
        }),
        ("inference.subsidy.msat_in_all", |c| {
            c.inference.subsidy.msat_in_all = i64::MAX;
        }),
        ("inference.outputs_kept_s", |c| {
            c.inference.outputs_kept_s = u64::MAX;
        }),
        ("inference.subsidy.msat_per_address_and_day", |c| {
            c.inference.subsidy.msat_per_address_and_day = Some(-1);
        }),
    ];
    refused(&changes);
}

#[test]
fn validators_that_are_no_second_opinion_or_that_anybody_could_play_are_named() {
    refused(&[
        ("audit.validators_secret is needed", |c| {
            c.audit.validators = vec!["http://192.0.2.1:1".to_owned()];
        }),
        ("audit.in_process must not be 0 with one", |c| {
            c.audit.validators = vec!["http://127.0.0.1:1".to_owned()];
            c.audit.in_process = 0;
        }),
        ("audit.validators names one twice", |c| {
            c.audit.validators = vec!["http://127.0.0.1:1".to_owned(); 2];
        }),
    ]);
}

#[test]
fn a_pool_without_a_lightning_section_pays_nothing_out() {
    let example = include_str!("../../../config/dovetail-pool.toml");
    let begin = example.find("[lightning]").unwrap();
    let end = begin + 1 + example[begin + 1..].find("\n[").unwrap();
    let without = [&example[..begin], &example[end..]].concat();
    let config: Config = toml::from_str(&without).unwrap();
    config.check().unwrap();
    assert!(config.lightning.socket.is_none());
}

#[test]
fn the_example_is_valid() {
    let example = include_str!("../../../config/dovetail-pool.toml");
    let config: Config = toml::from_str(example).unwrap();
    config.check().unwrap();
    assert!(config.job_declarator.listen.is_none());
    // What is commented out has the right names.
    let more = example.replace("# listen =", "listen =");
    let config: Config = toml::from_str(&more).unwrap();
    assert!(config.job_declarator.listen.is_some());
}

#[test]
fn the_section_for_payouts_on_the_chain_is_one_once_it_is_uncommented() {
    let text = include_str!("../../../config/dovetail-pool.toml");
    let (before, after) = text.split_once("# [onchain]").unwrap();
    let (section, after) = after.split_once("\n\n").unwrap();
    let section = section.replace("\n# ", "\n");
    let with = format!("{before}[onchain]{section}\n\n{after}");
    let config: Config = toml::from_str(&with).unwrap();
    config.check().unwrap();
    let onchain = config.onchain.unwrap();
    // What the file says are the defaults.
    let least = format!(
        "rpc = '{}'\ncookie_file = '/c'\ndescriptor = {{ file = '/d' }}",
        onchain.rpc
    );
    let least: OnchainConfig = toml::from_str(&least).unwrap();
    let mut same = least.clone();
    same.cookie_file = onchain.cookie_file.clone();
    assert_eq!(format!("{onchain:?}"), format!("{same:?}"));

    let refused = |change: fn(&mut OnchainConfig)| {
        let mut config = example();
        let mut changed = least.clone();
        change(&mut changed);
        config.onchain = Some(changed);
        config.check().unwrap_err()
    };
    assert!(refused(|onchain| onchain.cookie_file = None).contains("cookie_file"));
    assert!(refused(|onchain| onchain.threshold_msat = 1_000).contains("threshold_msat"));
    assert!(refused(|onchain| onchain.fee_max_msat = 60_000_000).contains("fee_max_msat"));
    assert!(refused(|onchain| onchain.confirmations = 0).contains("confirmations"));
}
