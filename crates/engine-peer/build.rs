//! Names the llama.cpp that llama-cpp-sys-2 has built, and refuses one that is not for this processor:
//! it would be some four times slower, and the comparison with it worth nothing.

use std::path::PathBuf;

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let built = std::env::var_os("DEP_LLAMA_GGML_CMAKE_DIR")
        .map(PathBuf::from)
        .ok_or("llama-cpp-sys-2 does not tell where it put llama.cpp")?;
    if cmake_variable(&built.join("ggml/ggml-config.cmake"), "GGML_NATIVE")? != "ON" {
        return Err(
            "llama.cpp was not built for this machine's processor: run cargo in crates/engine-peer, whose \
             .cargo/config.toml asks for that, and without RUSTFLAGS, which would hide it"
                .to_owned(),
        );
    }
    let version = cmake_variable(&built.join("llama/llama-config.cmake"), "LLAMA_VERSION")?;
    let bindings = locked_version("llama-cpp-2")?;
    println!("cargo:rustc-env=DOVETAIL_PEER=llama.cpp {version} Q8_0 (llama-cpp-2 {bindings})");
    Ok(())
}

/// The value of `set(NAME VALUE)` in a package's cmake file.
fn cmake_variable(path: &PathBuf, name: &str) -> Result<String, String> {
    read(path)?
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set(")?.strip_suffix(')'))
        .find_map(|inside| inside.strip_prefix(name)?.strip_prefix(' '))
        .map(|value| value.trim().trim_matches('"').to_owned())
        .ok_or_else(|| format!("{} does not set {name}", path.display()))
}

/// The version of a package in this folder's lockfile.
fn locked_version(package: &str) -> Result<String, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = read(&path)?;
    let mut lines = lock.lines();
    lines
        .find(|line| *line == format!("name = \"{package}\""))
        .and(lines.next())
        .and_then(|line| line.strip_prefix("version = "))
        .map(|version| version.trim_matches('"').to_owned())
        .ok_or_else(|| format!("{} does not name {package}", path.display()))
}

fn read(path: &PathBuf) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}
