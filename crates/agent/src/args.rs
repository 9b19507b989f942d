//! The command line as types. What parses here is within bounds; what the pool makes of it is the pool's to say.

use std::path::PathBuf;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, ScriptBuf};
use clap::{Args, Parser, Subcommand};
use dovetail_agent::credit::BlockHash;
use dovetail_agent::{AgentKey, AuthorityError, PoolAddress};
use dovetail_api::SAMPLE_POINTS_MAX;
use dovetail_commitment::TaskId;
use dovetail_console::{ConstraintArguments, SamplingArguments};
use dovetail_payee::{PayToKind, Schedule, THRESHOLD_MSAT_MAX};
use dovetail_rewards::AccountId;

/// Where the demo's pool listens by default.
const DEFAULT_POOL: &str = "http://127.0.0.1:50051";

/// Ask a Dovetail pool for inference, follow the answer, keep the receipt and check it offline.
#[derive(Debug, Parser)]
#[command(name = "dovetail", version, propagate_version = true)]
pub(crate) struct Cli {
    /// The pool's address: http:// or, where it speaks TLS, https://.
    #[arg(long, global = true, env = "DOVETAIL_POOL", value_name = "URL", default_value = DEFAULT_POOL)]
    pub(crate) pool: String,
    /// The only authority that may vouch for an https:// pool, as a PEM file; left out: those that this machine trusts.
    #[arg(long, global = true, env = "DOVETAIL_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Where the pool is, and who vouches for it.
    pub(crate) fn address(&self) -> Result<PoolAddress, AuthorityError> {
        PoolAddress::vouched_for(&self.pool, self.ca.as_deref())
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the models that the pool has, with prices and the number of workers.
    Models(ModelsArgs),
    /// Ask for a completion; the text streams to stdout.
    Ask(Box<AskArgs>),
    /// Look at or stop a task.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Fetch or verify a receipt.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Fetch what a pool has published of a block, or check a miner's part of it.
    #[command(subcommand)]
    Credit(CreditCommand),
    /// See or change where a pool pays an account.
    #[command(subcommand)]
    Payout(PayoutCommand),
}

#[derive(Debug, Args)]
pub(crate) struct ModelsArgs {
    /// Print one JSON array.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    /// The prompt, or - to read it from stdin.
    #[arg(value_name = "PROMPT")]
    pub(crate) prompt: String,
    /// Name or id of the model; may be left out where the pool has only one.
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) model: Option<String>,
    /// The key that pays for it, sk-...; in DOVETAIL_KEY, other users of this machine do not see it.
    #[arg(long, env = "DOVETAIL_KEY", hide_env_values = true, value_name = "KEY")]
    pub(crate) key: Option<AgentKey>,
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_tokens: u32,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) constraint: ConstraintArguments,
    /// Keep what was asked and answered in this file, wait for the pool's receipt, and verify it.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// How long the answer may take, in seconds; then the task is cancelled.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// The model's file. The answer's text is compared with its tokens; without it the text is the pool's word.
    #[arg(long, value_name = "FILE")]
    pub(crate) model_file: Option<PathBuf>,
    /// How long to wait for the receipt, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        requires = "receipt"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) wait: u64,
    /// The pool's public key (x-only, 64 hex digits) that the receipt must be signed with.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// Print one JSON object at the end instead of streaming text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Show how a task stands.
    Get(TaskArgs),
    /// Stop a task that still runs.
    Cancel(TaskArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TaskArgs {
    /// The task's id, 64 hex digits.
    #[arg(value_name = "TASK")]
    pub(crate) task_id: TaskId,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Fetch the pool's receipt for a settled task; without --into it goes to stdout.
    Get(ReceiptGetArgs),
    /// Verify a receipt offline: prints every check and names the first thing that does not hold.
    Verify(ReceiptVerifyArgs),
    /// Print the text of the tokens that a receipt proves, whatever text the pool showed. Needs the model's file.
    Text(ReceiptTextArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptGetArgs {
    /// The task's id, 64 hex digits.
    #[arg(value_name = "TASK")]
    pub(crate) task_id: TaskId,
    /// Put it into this file, which `dovetail ask --receipt` wrote before the task was settled.
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,
    /// How long to wait for settlement, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptVerifyArgs {
    /// What `dovetail ask --receipt` wrote, or a pool's receipt alone.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The pool's public key (x-only, 64 hex digits). Without it, a receipt that any key signed passes.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// The model's file: its tokenizer encodes the prompt again, and the tokens must be those that the pool made of it.
    #[arg(long, visible_alias = "model", value_name = "FILE")]
    pub(crate) model_file: Option<PathBuf>,
    /// Compute the answer again with the model's file: it must come out the same, bit for bit.
    #[arg(long, requires = "model_file")]
    pub(crate) replay: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReceiptTextArgs {
    /// What `dovetail ask --receipt` wrote.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The model's file.
    #[arg(long, value_name = "FILE")]
    pub(crate) model_file: PathBuf,
    /// The pool's public key (x-only, 64 hex digits). Without it, a receipt that any key signed passes.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreditCommand {
    /// Fetch what shows an account's part of a block; without --into it goes to stdout.
    Get(CreditGetArgs),
    /// Check an account's part of a block offline: prints every check and names the first thing that does not hold.
    Verify(CreditVerifyArgs),
    /// Look at shares of all accounts that a block's hash has chosen: whether they were mined, and for this pool.
    Sample(CreditSampleArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreditSampleArgs {
    /// The block's hash, as explorers write it; without it, the newest that the chain has or may still take.
    #[arg(long, value_name = "HASH")]
    pub(crate) block: Option<BlockHash>,
    /// How many points are drawn: 300 find a fake hundredth of the window with 95 %.
    #[arg(long = "k", value_name = "POINTS", default_value_t = 300)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(SAMPLE_POINTS_MAX)))]
    pub(crate) points: u32,
    /// The pool's public key (x-only, 64 hex digits). Without it, slices that any key signed pass.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// What the pool writes into each coinbase, as it announces it.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) tag: Option<String>,
    /// An address that the pool's blocks pay; again for others.
    #[arg(long, value_name = "ADDRESS", value_parser = script_of)]
    pub(crate) pays: Vec<ScriptBuf>,
    /// A compact target that the network had while the window's shares were found, eight hex digits as explorers show a block's
    /// bits; again for others.
    #[arg(long, value_name = "HEX", value_parser = bits)]
    pub(crate) bits: Vec<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// How long it may take, in seconds. The pool reads a slice for each point.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

fn script_of(text: &str) -> Result<ScriptBuf, String> {
    let address: Address<NetworkUnchecked> = text
        .parse()
        .map_err(|_| "no address of Bitcoin".to_owned())?;
    // Of whichever network: the script is what is compared.
    Ok(address.assume_checked().script_pubkey())
}

fn bits(text: &str) -> Result<u32, String> {
    match text.len() {
        8 => u32::from_str_radix(text, 16).map_err(|_| "no hex digits".to_owned()),
        _ => Err("a compact target has eight hex digits".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct CreditGetArgs {
    /// The account: the name that the miner is paid under, without a device's.
    #[arg(value_name = "ACCOUNT", value_parser = account)]
    pub(crate) account: String,
    /// The block's hash, as explorers write it; without it, the newest that the chain has or may still take.
    #[arg(long, value_name = "HASH")]
    pub(crate) block: Option<BlockHash>,
    /// Put it into this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,
    /// How long it may take, in seconds. The pool makes a leaf for each slice in which the account has work.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct CreditVerifyArgs {
    /// What `dovetail credit get` wrote.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The pool's public key (x-only, 64 hex digits). Without it, slices that any key signed pass.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// What the account was credited with for this block, in millisatoshi.
    #[arg(long, value_name = "MSAT", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) amount: Option<i64>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PayoutCommand {
    /// Where an account is paid.
    #[command(subcommand)]
    Destination(DestinationCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DestinationCommand {
    /// Show how an account is paid, what will change, and why it was not paid.
    Get(DestinationGetArgs),
    /// State where an account is paid. Anything that is left out is back to its default.
    Set(Box<DestinationSetArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct DestinationGetArgs {
    /// The account: the name that the miner is paid under, without a device's.
    #[arg(value_name = "ACCOUNT", value_parser = account)]
    pub(crate) account: String,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DestinationSetArgs {
    /// The account, a Bitcoin address; not needed with --worker-key-file.
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    pub(crate) account: Option<String>,
    /// What it is paid by: lightning-address, bolt12, worker or onchain.
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub(crate) kind: Kind,
    /// The Lightning address, the offer, the worker's key or the Bitcoin address.
    #[arg(long, value_name = "DESTINATION")]
    pub(crate) to: String,
    /// A Bitcoin address for what cannot be paid over Lightning.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) fallback: Option<String>,
    /// Pay from this balance on.
    #[arg(long, value_name = "MSAT", value_parser = clap::value_parser!(u64).range(1..=THRESHOLD_MSAT_MAX))]
    pub(crate) threshold_msat: Option<u64>,
    /// as-earned, daily@HH or weekly@DAY@HH, in UTC.
    #[arg(long, value_name = "SCHEDULE", default_value = "as-earned")]
    pub(crate) schedule: Schedule,
    /// The file with the worker's key, which signs for its account.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub(crate) worker_key_file: Option<PathBuf>,
    /// The signature of a Bitcoin address over the line that this command prints without it (BIP 322, simple, base64).
    #[arg(long, value_name = "SIGNATURE", requires = "made")]
    pub(crate) signature: Option<String>,
    /// The time in the line that was signed.
    #[arg(long, value_name = "UNIX")]
    pub(crate) made: Option<u64>,
    /// The pool's public key (x-only, 64 hex digits) that the statement must be for.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a destination is paid by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind(pub(crate) PayToKind);

fn kind(text: &str) -> Result<Kind, String> {
    let kind = PayToKind::parse(&text.replace('-', "_"));
    let kind = kind.ok_or("a kind is lightning-address, bolt12, worker or onchain")?;
    Ok(Kind(kind))
}

fn account(text: &str) -> Result<String, String> {
    match AccountId::new(text) {
        Ok(_) if !text.contains(char::is_control) => Ok(text.to_owned()),
        Ok(_) => Err("an account has no control characters".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An x-only public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u8; 32]);

fn key(text: &str) -> Result<Key, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a key has 64 hex digits".to_owned())?;
    Ok(Key(bytes))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ask_takes_its_defaults_and_options() {
        let cli = parse("dovetail ask --temperature 0.7 --seed 2a --max-tokens 9 hello").unwrap();
        let Command::Ask(args) = cli.command else {
            panic!("not ask")
        };
        let sampling = args.sampling.params(args.max_tokens);
        assert_eq!((sampling.temperature_milli, sampling.top_k), (700, 0));
        assert_eq!((sampling.top_p_milli, sampling.max_tokens), (1000, 9));
        let seed = args.sampling.seed.unwrap().0;
        assert_eq!(seed[31], 0x2a);
        assert_eq!(seed[..31], [0; 31]);
        assert_eq!(args.prompt, "hello");
    }

    #[test]
    fn the_prompt_may_come_from_stdin_and_the_pool_stand_anywhere() {
        let cli = parse("dovetail ask - --pool http://pool:1").unwrap();
        assert_eq!(cli.pool, "http://pool:1");
        let Command::Ask(args) = cli.command else {
            panic!("not ask")
        };
        assert_eq!(args.prompt, "-");
    }

    #[test]
    fn values_out_of_bounds_are_refused_before_anything_is_sent() {
        for line in [
            "dovetail ask --temperature 2.1 x",
            "dovetail ask --top-p 0 x",
            "dovetail ask --top-p 1.001 x",
            "dovetail ask --max-tokens 0 x",
            "dovetail ask --max-tokens 4097 x",
            "dovetail ask --seed zz x",
            "dovetail ask --wait 5 x",
            "dovetail ask --regex a --choice b x",
            "dovetail ask --timeout 0 x",
            "dovetail ask --timeout 86401 x",
            "dovetail receipt text f",
            "dovetail ask",
            "dovetail task get 1234",
            "dovetail receipt verify f --pool-key 12",
            "dovetail receipt verify f --replay",
            "dovetail credit get",
            "dovetail credit get alice --block 12",
            "dovetail credit get alice --timeout 0",
            "dovetail credit get a\u{7}",
            "dovetail credit verify f --amount -1",
            "dovetail payout destination get",
            "dovetail payout destination set --kind gold --to x",
            "dovetail payout destination set --kind bolt12",
            "dovetail payout destination set --kind bolt12 --to x --signature s",
            "dovetail payout destination set --kind bolt12 --to x --schedule hourly",
            "dovetail payout destination set --kind bolt12 --to x --threshold-msat 0",
            "dovetail credit sample --k 0",
            "dovetail credit sample --k 10001",
            "dovetail credit sample --bits 1d00fff",
            "dovetail credit sample --pays nobody",
            "dovetail credit sample --tag ",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn receipts_are_verified_without_naming_a_pool() {
        let cli = parse("dovetail receipt verify r.json --json").unwrap();
        let Command::Receipt(ReceiptCommand::Verify(args)) = cli.command else {
            panic!()
        };
        assert!(args.json && args.file == *"r.json");
    }

    #[test]
    fn an_answer_is_replayed_with_the_models_file() {
        let cli = parse("dovetail receipt verify r.json --replay --model clerk.safetensors");
        let Command::Receipt(ReceiptCommand::Verify(args)) = cli.unwrap().command else {
            panic!()
        };
        assert!(args.replay && args.model_file.unwrap() == *"clerk.safetensors");
    }
}
