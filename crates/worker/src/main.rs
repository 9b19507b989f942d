//! `dovetail-worker`: the inference worker, a plain hasher, and tools for model files. Exit code 0: done; 1: it did not
//! work; 2: wrong usage; 141: whoever read stdout went away, which is no mistake (`model inspect FILE | head -1`).

// What is printed goes through `dovetail_console`, which makes a pool's and a model's words harmless.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;

use std::process::ExitCode;

use dovetail_console::{CLOSED_EXIT_CODE, OutputError, complain};

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = Box::pin(cli::run()).await else {
        return ExitCode::SUCCESS;
    };
    let is_closed = |error: &(dyn std::error::Error + 'static)| {
        matches!(error.downcast_ref(), Some(OutputError::Closed))
    };
    if error.chain().any(is_closed) {
        return CLOSED_EXIT_CODE.into();
    }
    complain(error.as_ref());
    ExitCode::FAILURE
}
