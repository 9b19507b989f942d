//! `dovetail`: the agent's command line.
//!
//! Answers go to stdout, everything else to stderr, so that `dovetail ask` can stand in a pipe. Exit code 0: done;
//! 1: it did not work, or a receipt or a miner's part does not hold; 2: wrong usage; 141: whoever read stdout went away (no complaint:
//! `dovetail models | head -1` is no mistake).

// What is printed goes through `dovetail_console`, which makes a pool's words harmless.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use dovetail_agent::AgentError;
use dovetail_console::{CLOSED_EXIT_CODE, OutputError, complain, print_note};

use crate::args::{
    Cli, Command, CreditCommand, DestinationCommand, PayoutCommand, ReceiptCommand, TaskCommand,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(run(cli))),
        Err(error) => Err(error.into()),
    };
    outcome.unwrap_or_else(|error| match error.downcast_ref() {
        Some(OutputError::Closed) => CLOSED_EXIT_CODE.into(),
        _ => {
            explain(&error);
            ExitCode::FAILURE
        }
    })
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // What is offline needs no pool.
    let pool = cli.address().context("--ca");
    match cli.command {
        Command::Models(args) => commands::models::list(&pool?, args.json).await,
        Command::Ask(args) => commands::ask::ask(&pool?, *args).await,
        Command::Task(TaskCommand::Get(args)) => commands::task::get(&pool?, &args).await,
        Command::Task(TaskCommand::Cancel(args)) => commands::task::cancel(&pool?, &args).await,
        Command::Receipt(ReceiptCommand::Get(args)) => commands::receipt::get(&pool?, &args).await,
        Command::Receipt(ReceiptCommand::Verify(args)) => commands::receipt::verify(&args),
        Command::Receipt(ReceiptCommand::Text(args)) => commands::receipt::text(&args),
        Command::Credit(CreditCommand::Get(args)) => commands::credit::get(&pool?, &args).await,
        Command::Credit(CreditCommand::Sample(args)) => {
            commands::credit::sample(&pool?, &args).await
        }
        Command::Credit(CreditCommand::Verify(args)) => commands::credit::verify(&args),
        Command::Payout(PayoutCommand::Destination(DestinationCommand::Get(args))) => {
            commands::payout::get(&pool?, &args).await
        }
        Command::Payout(PayoutCommand::Destination(DestinationCommand::Set(args))) => {
            commands::payout::set(&pool?, &args).await
        }
    }
}

fn explain(error: &anyhow::Error) {
    complain(error.as_ref());
    if let Some(hint) = error
        .downcast_ref::<AgentError>()
        .and_then(AgentError::hint)
    {
        print_note(format_args!("hint: {hint}"));
    }
}
