//! What has to be on the machine: Debian packages, and a private Postgres.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::bail;
use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::output;

use crate::steps::run;

/// A package and a file that it installs, by which its presence is known on any system.
struct Package {
    name: &'static str,
    any_of: &'static [&'static str],
}

/// Needed to compile the workspace and to run the ledger.
const NEEDED: &[Package] = &[
    Package {
        name: "capnproto",
        any_of: &[
            "/usr/bin/capnp",
            "/usr/local/bin/capnp",
            "/opt/homebrew/bin/capnp",
        ],
    },
    Package {
        name: "postgresql",
        any_of: &[
            "/usr/lib/postgresql",
            "/usr/bin/postgres",
            "/usr/local/bin/postgres",
        ],
    },
];

/// Installs what is missing on Debian; elsewhere says what to install.
pub(crate) fn packages() -> anyhow::Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|package| !package.any_of.iter().any(|path| Path::new(path).exists()))
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        eprintln!("all packages are there");
        return Ok(());
    }
    let names = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("please install what these Debian packages hold: {names}");
    }
    eprintln!("installing {names}");
    run(privileged("apt-get").args(["update", "-qq"]))?;
    run(privileged("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(&missing))
}

fn privileged(program: &str) -> Command {
    let root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program).stdin(Stdio::inherit());
    command
}

/// The private cluster of this checkout.
pub(crate) fn postgres() -> anyhow::Result<Postgres> {
    let postgres = Postgres::start(&dovetail_tests::root().join(".data").join("postgres"))?;
    eprintln!("Postgres listens at {}", postgres.url("postgres"));
    Ok(postgres)
}
