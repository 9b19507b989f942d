//! What has to be on the machine: Debian packages, and a private Postgres.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::bail;
use dovetail_tests::postgres::Postgres;
use dovetail_tests::process::output;

use crate::steps::run;

/// A package and a file that it installs, by which its presence is known on any system.
pub(crate) struct Package {
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
    // The schema files that the compiler's own imports name, and Bitcoin Core's headers.
    Package {
        name: "libcapnp-dev",
        any_of: &[
            "/usr/include/capnp/c++.capnp",
            "/usr/local/include/capnp/c++.capnp",
            "/opt/homebrew/include/capnp/c++.capnp",
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

/// Needed to read papers that come as PDF.
pub(crate) const FOR_OUTSIDE_PAPERS: &[Package] = &[Package {
    name: "poppler-utils",
    any_of: &[
        "/usr/bin/pdftotext",
        "/usr/local/bin/pdftotext",
        "/opt/homebrew/bin/pdftotext",
    ],
}];

/// Needed to build and to run Bitcoin Core, besides what the workspace needs.
pub(crate) const FOR_BITCOIN_CORE: &[Package] = &[
    Package {
        name: "cmake",
        any_of: &["/usr/bin/cmake", "/usr/local/bin/cmake"],
    },
    Package {
        name: "ninja-build",
        any_of: &["/usr/bin/ninja", "/usr/local/bin/ninja"],
    },
    Package {
        name: "pkg-config",
        any_of: &["/usr/bin/pkg-config", "/usr/local/bin/pkg-config"],
    },
    Package {
        name: "libboost-dev",
        any_of: &[
            "/usr/include/boost/version.hpp",
            "/usr/local/include/boost/version.hpp",
        ],
    },
    Package {
        name: "libevent-dev",
        any_of: &[
            "/usr/include/event2/event.h",
            "/usr/local/include/event2/event.h",
        ],
    },
];

/// Needed to get packages from PyPI.
const FOR_PIP: &[Package] = &[Package {
    name: "python3-pip",
    any_of: &["/usr/bin/pip3", "/usr/local/bin/pip3"],
}];

/// Needed to get packages from npm, and to run them.
const FOR_NPM: &[Package] = &[
    Package {
        name: "nodejs",
        any_of: &["/usr/bin/node", "/usr/local/bin/node"],
    },
    Package {
        name: "npm",
        any_of: &["/usr/bin/npm", "/usr/local/bin/npm"],
    },
];

/// Makes sure that Python has pip, wherever it comes from.
pub(crate) fn pip() -> anyhow::Result<()> {
    if output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok() {
        return Ok(());
    }
    install(FOR_PIP)
}

/// Makes sure that there is npm, wherever it comes from.
pub(crate) fn npm() -> anyhow::Result<()> {
    if output(Command::new("npm").arg("--version")).is_ok() {
        return Ok(());
    }
    install(FOR_NPM)
}

/// Installs what the workspace needs.
pub(crate) fn packages() -> anyhow::Result<()> {
    install(NEEDED)
}

/// Installs what is missing on Debian; elsewhere says what to install.
pub(crate) fn install(needed: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<&str> = needed
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
