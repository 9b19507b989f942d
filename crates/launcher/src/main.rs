//! `cargo xtask`: builds the project's commands and runs them.
//!
//! `cargo run --package xtask` would do, but slowly: cargo chooses the features of shared crates for the packages that
//! it is asked for, so those that `xtask` shares with the rest of the workspace would be built twice. `cargo run` takes
//! one package only; `cargo build` takes the whole workspace, and builds just what `xtask` needs of it.

use std::env;
use std::io::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

fn main() -> ExitCode {
    match build() {
        Ok(true) => {
            eprintln!("error: {}", run());
            ExitCode::FAILURE
        }
        // Cargo has said what is wrong.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `xtask` could be built. Cargo shows its progress on standard error.
fn build() -> Result<bool, Error> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--workspace", "--bin", "xtask"])
        .stdin(Stdio::null());
    // What cargo tells this program about its package is not meant for the cargo that it starts.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    Ok(command.status()?.success())
}

/// Becomes `xtask`, which cargo has put beside this program. Returns only if that fails.
fn run() -> Error {
    let xtask = match env::current_exe() {
        Ok(launcher) => launcher.with_file_name("xtask"),
        Err(error) => return error,
    };
    Command::new(xtask).args(env::args_os().skip(1)).exec()
}
