//! The daemons' configuration files in a scenario.

use crate::bitcoin_core::BitcoinCore;
use crate::scenario::{
    AUTHORITY_PUBLIC, AUTHORITY_SECRET, FETCHED, Layout, MODEL_FILE, Options, PAYOUT_ADDRESS,
    Scenario,
};
use crate::served_model::tiny_file;
use crate::sv2_pool::SHARES_PER_MINUTE;

/// Signs the receipts of test pools.
const RECEIPT_SECRET: &str = "0101010101010101010101010101010101010101010101010101010101010101";
/// The log of a pool in a test: it begins with a quarter of a mebibyte.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// The log of a pool under load: as a pool has it that nobody has configured.
const MEASURED_LOG_BYTES_MAX: u64 = 4 << 30;

impl Layout<'_> {
    pub(crate) fn pool_config(&self, url: &str, source: &str, options: &Options) -> String {
        let dir = self.dir.display();
        let (shares_per_minute, min_hashrate) = (options.shares_per_minute, options.min_hashrate);
        let maturity_s = options.maturity_s;
        let maturity_max_s = maturity_s * 10;
        let task_lifetime_s = options.task_lifetime_s;
        let payout_address = options.payout_address;
        let hash_msat_per_mebihash = options.hash_msat_per_mebihash;
        let ledger = self.ledger_section(url, LOG_BYTES_MAX);
        let more_models: String = options
            .more_models
            .iter()
            .map(|seed| format!(", \"{dir}/{}\"", tiny_file(*seed)))
            .collect();
        format!(
            "[mining]
listen = \"127.0.0.1:0\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = \"{AUTHORITY_SECRET}\"
network = \"regtest\"
plain_names = true
payout_address = \"{payout_address}\"
shares_per_minute = {shares_per_minute}.0
min_hashrate = {min_hashrate}.0
[api]
listen = \"127.0.0.1:0\"
[templates]
{source}
[job_declarator]
listen = \"127.0.0.1:0\"
coinbase_only = true
coinbase_only_seen_within_s = 1800
token_key = {{ file = \"{dir}/token.key\" }}
{ledger}[lightning]
socket = \"{dir}/pool.sock\"
payout_threshold_msat = 10000
interval_ms = 500
retry_base_ms = 500
[inference]
models = [\"{dir}/{MODEL_FILE}\"{more_models}]
task_lifetime_s = {task_lifetime_s}
price = {{ input_msat_per_million = 0, output_msat_per_million = 1000000000 }}
subsidy = {{ msat_per_day = 1000000000000, msat_in_all = 1000000000000 }}
receipt_key = \"{RECEIPT_SECRET}\"
vrf_key = {{ file = \"{dir}/vrf.key\" }}
[credit]
hash_msat_per_mebihash = {hash_msat_per_mebihash}
settle_interval_s = 0
[audit]
maturity_s = {maturity_s}
maturity_max_s = {maturity_max_s}
"
        )
    }

    fn ledger_section(&self, url: &str, log_bytes_max: u64) -> String {
        let dir = self.dir.display();
        format!(
            "[ledger]\nurl = \"{url}\"\ndir = \"{dir}/ledger\"\nlog_bytes_max = {log_bytes_max}\n"
        )
    }

    /// A pool under load: shares of any header, as many connections as a machine has descriptors for, no models and no
    /// wallet.
    pub(crate) fn measured_pool_config(&self, url: &str, core: &BitcoinCore) -> String {
        let dir = self.dir.display();
        let source = core.templates_config();
        let ledger = self.ledger_section(url, MEASURED_LOG_BYTES_MAX);
        format!(
            "[mining]
listen = \"127.0.0.1:0\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = \"{AUTHORITY_SECRET}\"
network = \"regtest\"
plain_names = true
payout_address = \"{PAYOUT_ADDRESS}\"
shares_per_minute = {SHARES_PER_MINUTE:.1}
# So little that vardiff's highest belief, 2^64 times it, still asks for no hash more than one.
min_hashrate = 1e-22
shares_per_account_and_second_max = 1000000
connections_max = 65536
connections_per_address_max = 65536
connections_per_network_max = 65536
connections_reserved = 0
channels_per_connection_max = 1024
channels_unproven_max = 1024
[api]
listen = \"127.0.0.1:0\"
[templates]
{source}
[job_declarator]
token_key = {{ file = \"{dir}/token.key\" }}
{ledger}[inference]
models = []
price = {{ input_msat_per_million = 0, output_msat_per_million = 0 }}
receipt_key = \"{RECEIPT_SECRET}\"
vrf_key = {{ file = \"{dir}/vrf.key\" }}
[credit]
hash_msat_per_mebihash = 5e-7
"
        )
    }

    pub(crate) fn write_declarator_config(
        &self,
        url: &str,
        source: &str,
        options: &Options,
    ) -> anyhow::Result<String> {
        self.write("jd.toml", &self.declarator_config(url, source, options))
    }

    fn declarator_config(&self, url: &str, source: &str, options: &Options) -> String {
        let dir = self.dir.display();
        let payout_address = options.payout_address;
        format!(
            "[declaration]
listen = \"127.0.0.1:0\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
authority_secret_key = \"{AUTHORITY_SECRET}\"
network = \"regtest\"
plain_names = true
payout_address = \"{payout_address}\"
token_key = {{ file = \"{dir}/token.key\" }}
coinbase_only = true
blocks_dir = \"{dir}/declarator-blocks\"
[ledger]
url = \"{url}\"
[templates]
{source}
"
        )
    }

    pub(crate) fn worker_config(
        &self,
        scenario: &Scenario,
        source: &str,
        options: &Options,
    ) -> String {
        let dir = self.dir.display();
        let (mining, declaration) = (&scenario.mining, &scenario.declaration);
        let search = !options.firmware;
        let nominal = format!("{}.0", options.nominal_hash_rate);
        let node = match options.node {
            true => format!(
                "[pool.job_declarator]\naddress = \"{declaration}\"\n\
                 authority_public_key = \"{AUTHORITY_PUBLIC}\"\nrenew_interval_s = 2\n\
                 [templates]\n{source}\n"
            ),
            false => String::new(),
        };
        let downstream = match options.firmware {
            true => format!(
                "[downstream]\nlisten = \"127.0.0.1:0\"\nkey_file = \"{dir}/downstream.key\"\n\
                 shares_per_minute = {}.0\n[page]\nlisten = \"127.0.0.1:0\"\n",
                options.shares_per_minute
            ),
            false => String::new(),
        };
        let (models, fetch) = match options.fetch {
            false => (
                format!("models = [\"{dir}/{MODEL_FILE}\"]\n"),
                String::new(),
            ),
            true => {
                let (api, id) = (&scenario.grpc, &scenario.model_id);
                let fetch = format!(
                    "[fetch]\napi = \"{api}\"\nmodels = [\"{id}\"]\ncache_dir = \"{dir}/{FETCHED}\"\n"
                );
                (String::new(), fetch)
            }
        };
        format!(
            "[worker]
key_file = \"{dir}/worker.key\"
{models}search = {search}
nominal_hash_rate = {nominal}
[pool]
address = \"{mining}\"
authority_public_key = \"{AUTHORITY_PUBLIC}\"
{node}{fetch}{downstream}[wallet]
socket = \"{dir}/worker.sock\"
"
        )
    }
}
