//! `src/generated` is what the protobuf files say. It is kept in the source, so that a build needs no protobuf
//! compiler; `cargo xtask protobuf` runs this test to write it.
//!
//! The compiler is pure Rust: no `protoc` is needed here either.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PUBLIC_FILES: [&str; 4] = [
    "dovetail/inference/v1/inference.proto",
    "dovetail/models/v1/models.proto",
    "dovetail/payouts/v1/payouts.proto",
    "dovetail/rewards/v1/rewards.proto",
];
/// Between a pool and its own validators; left out of the descriptors that the public port reflects.
const PRIVATE_FILES: [&str; 1] = ["dovetail/validation/v1/validation.proto"];

/// Set by `cargo xtask protobuf`: write what was generated instead of comparing it.
const WRITE: &str = "DOVETAIL_WRITE_GENERATED";

type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn the_generated_code_is_what_the_protobuf_files_say() -> Result<(), Box<dyn Error>> {
    let folder = crate_folder().join("src").join("generated");
    let generated = generate()?;
    if env::var_os(WRITE).is_some() {
        fs::remove_dir_all(&folder)?;
        fs::create_dir_all(&folder)?;
        for (name, content) in &generated {
            fs::write(folder.join(name), content)?;
        }
    }
    let kept = files(&folder)?;
    assert!(
        kept.keys().eq(generated.keys()),
        "src/generated has other files: {:?} instead of {:?}; run `cargo xtask protobuf`",
        kept.keys(),
        generated.keys()
    );
    for (name, content) in &generated {
        assert!(
            kept.get(name) == Some(content),
            "src/generated/{name} is not what the protobuf files say: run `cargo xtask protobuf`"
        );
    }
    Ok(())
}

fn crate_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The messages, clients and servers, a file for each protobuf package, and the public descriptors.
fn generate() -> Result<Files, Box<dyn Error>> {
    let proto = crate_folder().join("proto");
    let public = compile(&proto, &PUBLIC_FILES)?;
    let private = compile(&proto, &PRIVATE_FILES)?;
    let out = tempfile::tempdir()?;
    for compiled in [&public, &private] {
        tonic_prost_build::configure()
            .out_dir(out.path())
            .emit_rerun_if_changed(false)
            // These hold an agent's words; their `Debug` is written by hand and shows lengths only.
            .skip_debug([
                ".dovetail.inference.v1.CreateTaskRequest",
                ".dovetail.inference.v1.CreateTaskResponse",
                ".dovetail.inference.v1.Constraint",
                ".dovetail.inference.v1.Choice",
                ".dovetail.inference.v1.TokenChunk",
                ".dovetail.validation.v1.Evidence",
            ])
            .compile_fds(compiled.file_descriptor_set())?;
    }
    let mut generated = files(out.path())?;
    generated.insert(
        "descriptors.bin".to_owned(),
        public.encode_file_descriptor_set(),
    );
    Ok(generated)
}

fn compile(proto: &Path, names: &[&str]) -> Result<protox::Compiler, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([proto])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(names)?;
    Ok(compiler)
}

fn files(folder: &Path) -> Result<Files, Box<dyn Error>> {
    let mut found = Files::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        found.insert(
            entry.file_name().to_string_lossy().into_owned(),
            fs::read(entry.path())?,
        );
    }
    Ok(found)
}
