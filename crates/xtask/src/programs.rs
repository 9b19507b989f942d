//! Programs of other projects that the tests run against, built once into the cache: Bitcoin Core
//! and the SRI clients. All come from crates.io.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use dovetail_tests::bitcoin_core::CoreParts;
use dovetail_tests::cache;
use dovetail_tests::lightning_node::RealParts;
use dovetail_tests::process::output;

use crate::setup;
use crate::steps::{cargo, run};

/// The crate whose package carries Bitcoin Core's whole source.
const CORE_CRATE: &str = "libbitcoinkernel-sys";
const CORE_CRATE_VERSION: &str = "0.4.1";

/// A Bitcoin Core that can be run: the node and its command line.
pub(crate) struct Core {
    pub(crate) node: PathBuf,
    pub(crate) cli: PathBuf,
}

/// Finds Bitcoin Core on the PATH or in the cache, or builds it into the cache.
pub(crate) fn bitcoin_core() -> anyhow::Result<Core> {
    setup::install(setup::FOR_BITCOIN_CORE)?;
    let cached = Core {
        node: cache().join("bin").join("bitcoin-node"),
        cli: cache().join("bin").join("bitcoin-cli"),
    };
    if let (Some(node), Some(cli)) = (on_path("bitcoin-node"), on_path("bitcoin-cli"))
        && is_31(&node)
    {
        return Ok(Core { node, cli });
    }
    if !is_31(&cached.node) || !cached.cli.exists() {
        build_core()?;
    }
    if !is_31(&cached.node) {
        bail!("{} does not run as Bitcoin Core 31", cached.node.display());
    }
    Ok(cached)
}

fn is_31(node: &Path) -> bool {
    output(Command::new(node).arg("-version")).is_ok_and(|said| {
        said.split_once("version v")
            .and_then(|(_, version)| version.split('.').next()?.parse::<u32>().ok())
            .is_some_and(|major| major >= 31)
    })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths)
        .map(|folder| folder.join(program))
        .find(|path| path.exists())
}

fn build_core() -> anyhow::Result<()> {
    eprintln!(
        "building Bitcoin Core from {CORE_CRATE} {CORE_CRATE_VERSION}: about 7 minutes on 2 cores, once"
    );
    let source = core_source()?;
    let build = cache().join("bitcoin-core-build");
    run(Command::new("cmake")
        .arg("-S")
        .arg(&source)
        .arg("-B")
        .arg(&build)
        .args([
            "-G",
            "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DENABLE_WALLET=OFF",
        ])
        .args(["-DBUILD_DAEMON=ON", "-DBUILD_CLI=ON", "-DENABLE_IPC=ON"])
        .args([
            "-DWITH_EMBEDDED_ASMAP=OFF",
            "-DBUILD_TESTS=OFF",
            "-DBUILD_BENCH=OFF",
        ])
        .args(["-DBUILD_TX=OFF", "-DBUILD_UTIL=OFF"]))?;
    run(Command::new("cmake").arg("--build").arg(&build).args([
        "--target",
        "bitcoin-node",
        "--target",
        "bitcoin-cli",
    ]))?;
    for program in ["bitcoin-node", "bitcoin-cli"] {
        keep(&build.join("bin").join(program), program)?;
    }
    Ok(())
}

/// Has cargo fetch the crate, and finds Bitcoin Core's source in its package.
fn core_source() -> anyhow::Result<PathBuf> {
    let package = cache().join("bitcoin-core-source");
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("src").join("lib.rs"), "")?;
    std::fs::write(
        package.join("Cargo.toml"),
        format!(
            "[package]\nname = \"bitcoin-core-source\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\n{CORE_CRATE} = \"={CORE_CRATE_VERSION}\"\n[workspace]\n"
        ),
    )?;
    let said = output(cargo(&["metadata", "--format-version", "1"]).current_dir(&package))?;
    let metadata: serde_json::Value = serde_json::from_str(&said)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == CORE_CRATE)
        .and_then(|package| package["manifest_path"].as_str())
        .context("cargo did not fetch the crate with Bitcoin Core's source")?;
    let source = Path::new(manifest).with_file_name("bitcoin");
    if !source.join("CMakeLists.txt").exists() {
        bail!("{} holds no source of Bitcoin Core", source.display());
    }
    Ok(source)
}

/// `mining_device`, `translator_sv2` and `jd_client_sv2` of the Stratum Reference Implementation.
pub(crate) struct Sri {
    pub(crate) mining_device: PathBuf,
    pub(crate) translator: PathBuf,
    pub(crate) jd_client: PathBuf,
}

/// Finds the SRI clients in the cache, or installs them there from crates.io.
pub(crate) fn sri() -> anyhow::Result<Sri> {
    let bin = cache().join("bin");
    let clients = Sri {
        mining_device: bin.join("mining_device"),
        translator: bin.join("translator_sv2"),
        jd_client: bin.join("jd_client_sv2"),
    };
    let wanted = [
        (
            &clients.mining_device,
            "integration_tests_sv2",
            "mining_device",
        ),
        (&clients.translator, "translator_sv2", "translator_sv2"),
        (&clients.jd_client, "jd_client_sv2", "jd_client_sv2"),
    ];
    for (path, package, binary) in wanted {
        // Their speed does not matter here; the time to build them does.
        let quickly = [
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ];
        install(path, [package, "0.6.0", binary], &quickly)?;
    }
    Ok(clients)
}

/// `pool_sv2`, the pool of the Stratum Reference Implementation, with all of its optimisations: it is measured.
pub(crate) fn pool_sv2() -> anyhow::Result<PathBuf> {
    let path = cache().join("bin").join("pool_sv2");
    install(&path, ["pool_sv2", "0.7.0", "pool_sv2"], &[])?;
    Ok(path)
}

/// Installs a program of a package of crates.io into the cache, unless it is there and runs.
fn install(
    path: &Path,
    [package, version, binary]: [&str; 3],
    profile: &[(&str, &str)],
) -> anyhow::Result<()> {
    // A copy that was damaged on its way here is there, and does not run.
    if output(Command::new(path).arg("--version")).is_ok() {
        return Ok(());
    }
    eprintln!("installing {binary} from crates.io: some minutes on 2 cores, once");
    run(cargo(&[
        "install",
        "--force",
        "--locked",
        "--quiet",
        "--version",
        version,
        package,
        "--bin",
        binary,
    ])
    .arg("--root")
    .arg(cache())
    .env("CARGO_TARGET_DIR", cache().join("sri-target"))
    .envs(profile.iter().copied()))
}

/// Our Lightning node on LDK, which has a workspace and a target folder of its own.
pub(crate) fn lightning_node() -> anyhow::Result<PathBuf> {
    run(&mut lightning_node_cargo(&["build", "--quiet"]))?;
    Ok(lightning_node_target()
        .join("debug")
        .join("dovetail-lightning-node"))
}

/// A cargo command in the Lightning node's workspace.
pub(crate) fn lightning_node_cargo(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    command
        .current_dir(dovetail_tests::root().join("crates").join("lightning-node"))
        .env("CARGO_TARGET_DIR", lightning_node_target());
    command
}

fn lightning_node_target() -> PathBuf {
    cache().join("lightning-node-target")
}

/// Everything of the real demonstration.
pub(crate) fn real_parts() -> anyhow::Result<RealParts> {
    let core = bitcoin_core()?;
    eprintln!("building the Lightning node on LDK: about 5 minutes on 2 cores the first time");
    Ok(RealParts {
        core: CoreParts {
            bitcoin_node: core.node,
            bitcoin_cli: core.cli,
        },
        lightning_node: lightning_node()?,
    })
}

/// Moves a built program into the cache, whole or not at all.
fn keep(built: &Path, name: &str) -> anyhow::Result<()> {
    let bin = cache().join("bin");
    std::fs::create_dir_all(&bin)?;
    let partial = bin.join(format!("{name}.partial"));
    std::fs::copy(built, &partial).with_context(|| format!("cannot copy {}", built.display()))?;
    std::fs::rename(&partial, bin.join(name))?;
    Ok(())
}
