//! `dovetail-pool`: the pool daemon.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use dovetail_commitment::WorkerKey;
use dovetail_pool::{Config, KeysCommand, LightningCommand, ValidatorOptions};

/// A Stratum V2 mining pool whose miners also run language models.
#[derive(Debug, Parser)]
#[command(name = "dovetail-pool", version)]
struct Arguments {
    /// The configuration; see config/dovetail-pool.toml. Every key can be overridden through
    /// DOVETAIL_POOL__SECTION__KEY.
    #[arg(long, global = true, default_value = "dovetail-pool.toml")]
    config: PathBuf,
    /// Check the configuration and the files that it names, and exit. Nothing is connected to or made.
    #[arg(long)]
    check_config: bool,
    /// Without one: the pool.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Replay transcripts for pools that name this process in `[audit] validators`. It reads their
    /// prompts and they believe it: keep its port on the loopback interface or a network of your own.
    Validator {
        /// Where pools connect; port 0 takes a free one.
        #[arg(long, default_value = "127.0.0.1:50061")]
        listen: SocketAddr,
        /// The file of the secret that it shares with the pool (`audit.validators_secret`); made if it is not there.
        /// Needed anywhere but on the loopback interface.
        #[arg(long)]
        secret_file: Option<PathBuf>,
        /// A model file; may be given several times.
        #[arg(long = "model", required = true)]
        models: Vec<PathBuf>,
        /// Threads that compute; 0: one per core.
        #[arg(long, default_value_t = 0)]
        threads: usize,
    },
    /// Print the failed audits, newest first: what was replayed and what it cost.
    Audits {
        /// Only those of this worker key: 64 hex digits.
        #[arg(long)]
        worker: Option<WorkerKey>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Print what you pay for tasks of agents without a key: the budget (`inference.subsidy`), and what became of it.
    Subsidy {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Make, list and revoke keys with which agents have their tasks paid, each within a budget.
    Keys {
        /// One JSON object per line.
        #[arg(long, global = true)]
        json: bool,
        /// What to do.
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Print what accounts did on jobs in coinbase-only mode: what is held, and which blocks the chain has shown.
    CoinbaseOnly {
        /// Only this account.
        #[arg(long)]
        account: Option<String>,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Print what an account has, what it did in the last day, and what moved its money.
    Account {
        /// The account: a worker's key, an address, or another name.
        #[arg(long)]
        account: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        /// How many lines of its statement at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Look through the whole ledger, or make its tables.
    #[command(subcommand)]
    Ledger(LedgerCommand),
    /// Print payouts, newest first, with all that is known of each: those under way and those in review, or all.
    Payouts {
        /// Only those of this account.
        #[arg(long)]
        account: Option<String>,
        /// Those that have ended, too.
        #[arg(long)]
        all: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// How many at most.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Decide about one.
        #[command(subcommand)]
        action: Option<PayoutAction>,
    },
    /// Print the devices of an account, the last seen first: what each of them hashes and has hashed.
    Devices {
        /// The account: a worker's key, an address, or another name.
        #[arg(long)]
        account: String,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Ask the wallet that pays miners: its state, channels, fees, a backup, an address to fund it with.
    Lightning {
        /// One JSON object per line.
        #[arg(long, global = true)]
        json: bool,
        /// What to ask.
        #[command(subcommand)]
        command: LightningCommand,
    },
}

/// What is done with the ledger.
#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Reckon all sums again from transfers, slices and blocks, print what differs and what is owed beside what the wallet
    /// has. Fails if anything differs.
    Audit {
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Bring the tables up to date as their owner, for daemons whose role may not.
    Migrate {
        /// A file with the owner's postgres:// URL, which nobody else may read, in place of ledger.url.
        #[arg(long)]
        owner_url_file: Option<PathBuf>,
        /// Give this role what daemons need, and no more. It must exist.
        #[arg(long)]
        role: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum PayoutAction {
    /// Decide what became of a payout in review. Look into the wallet and ask the payee first: nothing takes it back.
    Resolve {
        /// The payout: 64 hex digits.
        payout: String,
        #[command(subcommand)]
        found: Found,
    },
}

#[derive(Debug, Subcommand)]
enum Found {
    /// It was paid.
    Paid {
        /// The proof, which only the payee had before: 64 hex digits.
        preimage: String,
    },
    /// It was not paid and never will be: it is tried again.
    Failed,
}

fn main() -> ExitCode {
    dovetail_daemon::init_logging();
    match start(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Some(Command::Validator {
            listen,
            secret_file,
            models,
            threads,
        }) => validate(ValidatorOptions {
            listen,
            secret_file,
            models,
            threads,
        }),
        Some(Command::Audits {
            worker,
            json,
            limit,
        }) => {
            let config = load(&arguments.config)?;
            runtime()?.block_on(dovetail_pool::print_audits(&config, worker, json, limit))
        }
        Some(Command::Subsidy { json }) => subsidy(&arguments.config, json),
        Some(Command::Keys { json, command }) => keys(&arguments.config, command, json),
        Some(Command::CoinbaseOnly {
            account,
            json,
            limit,
        }) => {
            let config = load(&arguments.config)?;
            let printed = dovetail_pool::print_coinbase_only(&config, account, json, limit);
            runtime()?.block_on(printed)
        }
        Some(Command::Account {
            account,
            json,
            limit,
        }) => {
            let config = load(&arguments.config)?;
            let printed = dovetail_pool::print_account(&config, &account, json, limit);
            runtime()?.block_on(printed)
        }
        Some(Command::Ledger(command)) => ledger(&load(&arguments.config)?, command),
        Some(Command::Payouts {
            account,
            all,
            json,
            limit,
            action,
        }) => {
            let config = load(&arguments.config)?;
            match action {
                None => {
                    let printed = dovetail_pool::print_payouts(&config, account, all, json, limit);
                    runtime()?.block_on(printed)
                }
                Some(action) => decide(&config, action),
            }
        }
        Some(Command::Devices { account, json }) => {
            let config = load(&arguments.config)?;
            runtime()?.block_on(dovetail_pool::print_devices(&config, &account, json))
        }
        Some(Command::Lightning { json, command }) => lightning(&arguments.config, command, json),
        None => serve(&arguments),
    }
}

fn decide(config: &Config, action: PayoutAction) -> anyhow::Result<()> {
    let PayoutAction::Resolve { payout, found } = action;
    let preimage = match found {
        Found::Paid { preimage } => Some(preimage),
        Found::Failed => None,
    };
    runtime()?.block_on(dovetail_pool::resolve_payout(config, &payout, preimage))
}

fn ledger(config: &Config, command: LedgerCommand) -> anyhow::Result<()> {
    match command {
        LedgerCommand::Audit { json } => {
            runtime()?.block_on(dovetail_pool::print_ledger_audit(config, json))
        }
        LedgerCommand::Migrate {
            owner_url_file,
            role,
        } => {
            let (url, role) = (owner_url_file.as_deref(), role.as_deref());
            runtime()?.block_on(dovetail_pool::migrate_ledger(config, url, role))
        }
    }
}

fn subsidy(path: &Path, json: bool) -> anyhow::Result<()> {
    let config = load(path)?;
    runtime()?.block_on(dovetail_pool::print_subsidy(&config, json))
}

fn keys(path: &Path, command: KeysCommand, json: bool) -> anyhow::Result<()> {
    let config = load(path)?;
    runtime()?.block_on(dovetail_pool::manage_keys(&config, command, json))
}

fn lightning(path: &Path, command: LightningCommand, json: bool) -> anyhow::Result<()> {
    let config = load(path)?;
    runtime()?.block_on(dovetail_pool::operate_wallet(&config, command, json))
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let config = load(&arguments.config)?;
    if arguments.check_config {
        runtime()?.block_on(async { config.check_files() })?;
        println!("the configuration is valid");
        return Ok(());
    }
    runtime()?.block_on(async {
        let shutdown = dovetail_daemon::shutdown_on_signal();
        Box::pin(dovetail_pool::run(config, shutdown, |addresses| {
            let mut line = serde_json::json!({
                "mining": addresses.mining.to_string(),
                "grpc": addresses.api.to_string(),
            });
            if let Some(declaration) = addresses.declaration {
                line["declaration"] = declaration.to_string().into();
            }
            dovetail_daemon::announce_ready(line);
        }))
        .await
    })
}

fn validate(options: ValidatorOptions) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let shutdown = dovetail_daemon::shutdown_on_signal();
        let ready = |address: SocketAddr| {
            dovetail_daemon::announce_ready(
                serde_json::json!({ "validation": address.to_string() }),
            );
        };
        dovetail_pool::serve_validator(options, shutdown, ready).await
    })
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let config: Config = dovetail_daemon::load(path, "DOVETAIL_POOL")?;
    config
        .check()
        .map_err(|reason| anyhow::anyhow!("configuration: {reason}"))?;
    dovetail_daemon::warn_of_secrets(path, "DOVETAIL_POOL", config.secrets());
    Ok(config)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
