//! The harness: starts real parts on free ports, waits until they are ready, reads what they
//! report, and stops them. The end-to-end tests and `cargo xtask demo` run on it.
//!
//! It knows the programs by their command lines, configuration files and ready lines only.

pub mod bitcoin_core;
mod configs;
mod hashers;
mod ledger_audit;
pub mod lightning_node;
pub mod network;
mod options;
pub mod postgres;
pub mod process;
pub mod scenario;
mod served_model;
pub mod sv2_pool;

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

pub use served_model::fetch_smollm2;

/// The checkout's root.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// The weights of `clerk`, which come with the source.
pub fn clerk_model() -> PathBuf {
    let folder = root().join("crates").join("clerk").join("model");
    folder.join("clerk.safetensors")
}

static RELEASE: AtomicBool = AtomicBool::new(false);

/// From now on programs are those of `cargo build --release`: for measurements.
pub fn use_release_programs() {
    RELEASE.store(true, Ordering::Relaxed);
}

/// A program of this workspace, where cargo builds it.
pub fn program(name: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let profile = match RELEASE.load(Ordering::Relaxed) {
        true => "release",
        false => "debug",
    };
    target.join(profile).join(name)
}

/// Where slow builds are kept: `DOVETAIL_CACHE`, or `~/.cache/dovetail`.
pub fn cache() -> PathBuf {
    std::env::var_os("DOVETAIL_CACHE").map_or_else(
        || {
            let home =
                std::env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
            home.join(".cache").join("dovetail")
        },
        PathBuf::from,
    )
}

/// A program that a test needs and `cargo xtask test` names in the environment.
///
/// # Errors
/// Says how to run the test instead.
pub fn needed(variable: &str) -> anyhow::Result<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| {
            anyhow::anyhow!("{variable} is not set: run this test through `cargo xtask test`")
        })
}

/// Ports that the system gives nobody of itself: its own begin at 32,768 (`net.ipv4.ip_local_port_range`). A port among those
/// may become the near end of somebody's connection between our asking and a program's binding.
const PORTS: std::ops::Range<u16> = 10_000..32_768;

/// A port for a program that takes no port 0. No other caller gets it, in this process or another, until this process ends.
///
/// # Errors
/// If none is free.
pub fn free_port() -> anyhow::Result<u16> {
    // Held to the end: the same number as a port of UDP says that it is taken, and is in no program's way.
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes begin at different places.
    let first = std::process::id().wrapping_mul(97);
    let count = u32::from(PORTS.end - PORTS.start);
    for offset in 0..count {
        let place = first.wrapping_add(offset) % count;
        let port = PORTS.start + u16::try_from(place)?;
        if let Ok(mark) = UdpSocket::bind(("127.0.0.1", port))
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            taken.push(mark);
            return Ok(port);
        }
    }
    anyhow::bail!("no port from {PORTS:?} is free")
}

/// A scenario for one test: a folder and a database of its own, in the cluster that
/// `cargo xtask test` runs. Tests run side by side and share nothing else.
///
/// # Errors
/// If a part does not start.
pub fn scenario(
    options: &scenario::Options,
) -> anyhow::Result<(tempfile::TempDir, scenario::Scenario)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let postgres = postgres::Postgres::start(&root().join(".data").join("postgres"))?;
    let dir = tempfile::tempdir()?;
    let database = format!("dovetail_test_{}_{number}", std::process::id());
    let scenario = scenario::Scenario::start(dir.path(), &postgres, &database, options, |_, _| {})?;
    Ok((dir, scenario))
}
