//! The command line as types. What parses here is within bounds; what the pool makes of it is the pool's to say.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dovetail_commitment::{SamplingParams, StopError, StopSequences, TaskId};

/// Where the demo's pool listens by default.
const DEFAULT_POOL: &str = "http://127.0.0.1:50051";

/// Ask a Dovetail pool for inference, follow the answer, keep the receipt and check it offline.
#[derive(Debug, Parser)]
#[command(name = "dovetail", version, propagate_version = true)]
pub(crate) struct Cli {
    /// The pool's gRPC address.
    #[arg(long, global = true, env = "DOVETAIL_POOL", value_name = "URL", default_value = DEFAULT_POOL)]
    pub(crate) pool: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the models that the pool has, with prices and the number of workers.
    Models(ModelsArgs),
    /// Ask for a completion; the text streams to stdout.
    Ask(AskArgs),
    /// Look at or stop a task.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Fetch or verify a receipt.
    #[command(subcommand)]
    Receipt(ReceiptCommand),
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
    /// Longest answer, in tokens.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_tokens: u32,
    /// 0: always the likeliest token; 1: the model's own distribution. Up to 3 decimals, at most 2.
    #[arg(long, value_name = "X", default_value = "0", value_parser = temperature)]
    pub(crate) temperature: u32,
    /// Choose among the K likeliest tokens; 0: no such limit.
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub(crate) top_k: u32,
    /// Choose among the likeliest tokens that together reach this probability; 1: no such limit.
    #[arg(long, value_name = "P", default_value = "1", value_parser = top_p)]
    pub(crate) top_p: u32,
    /// End the answer where it contains this text; up to 4 times, 64 bytes each.
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Seed of the sampling: up to 64 hex digits, zeros are put in front. Random if left out.
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub(crate) seed: Option<Seed>,
    /// Keep what was asked and answered in this file, wait for the pool's receipt, and verify it.
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
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

impl AskArgs {
    pub(crate) fn sampling(&self) -> SamplingParams {
        SamplingParams {
            temperature_milli: self.temperature,
            top_k: self.top_k,
            top_p_milli: self.top_p,
            max_tokens: self.max_tokens,
        }
    }

    pub(crate) fn stop(&self) -> Result<StopSequences, StopError> {
        let bytes = self.stop.iter().map(|stop| stop.clone().into_bytes());
        StopSequences::new(bytes.collect())
    }
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
    /// The pool's public key (x-only, 64 hex digits). Without it anyone's signature will do.
    #[arg(long, value_name = "HEX", env = "DOVETAIL_POOL_KEY", value_parser = key)]
    pub(crate) pool_key: Option<Key>,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// 32 bytes of seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) [u8; 32]);

/// An x-only public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u8; 32]);

fn seed(text: &str) -> Result<Seed, String> {
    if text.is_empty() || text.len() > 64 {
        return Err("a seed has 1 to 64 hex digits".into());
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(format!("{text:0>64}"), &mut bytes).map_err(|e| e.to_string())?;
    Ok(Seed(bytes))
}

fn key(text: &str) -> Result<Key, String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| "a key has 64 hex digits".to_owned())?;
    Ok(Key(bytes))
}

fn temperature(text: &str) -> Result<u32, String> {
    match thousandths(text)? {
        milli @ 0..=2000 => Ok(milli),
        _ => Err("a temperature is between 0 and 2".into()),
    }
}

fn top_p(text: &str) -> Result<u32, String> {
    match thousandths(text)? {
        milli @ 1..=1000 => Ok(milli),
        _ => Err("a probability is above 0 and at most 1".into()),
    }
}

/// A decimal number with at most 3 decimals, in thousandths; exact, where a float would round.
fn thousandths(text: &str) -> Result<u32, String> {
    let wrong = || "a decimal number with at most 3 decimals, such as 0.7".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || decimals.len() > 3 || whole.len() > 4 {
        return Err(wrong());
    }
    if !is_digits(whole) || !is_digits(decimals) {
        return Err(wrong());
    }
    format!("{whole}{decimals:0<3}")
        .parse()
        .map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
    fn decimals_become_exact_thousandths() {
        for (text, milli) in [
            ("0", 0),
            ("0.7", 700),
            ("1", 1000),
            ("1.005", 1005),
            (".5", 500),
            ("2.", 2000),
        ] {
            assert_eq!(thousandths(text), Ok(milli), "{text}");
        }
        for text in ["", ".", "-1", "0.0001", "1e3", "one", "1.2.3", "+1"] {
            assert!(thousandths(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ask_takes_its_defaults_and_options() {
        let cli = parse("dovetail ask --temperature 0.7 --seed 2a --max-tokens 9 hello").unwrap();
        let Command::Ask(args) = cli.command else {
            panic!("not ask")
        };
        let sampling = args.sampling();
        assert_eq!((sampling.temperature_milli, sampling.top_k), (700, 0));
        assert_eq!((sampling.top_p_milli, sampling.max_tokens), (1000, 9));
        let seed = args.seed.unwrap().0;
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
            "dovetail ask",
            "dovetail task get 1234",
            "dovetail receipt verify f --pool-key 12",
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
}
