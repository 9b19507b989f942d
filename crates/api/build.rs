//! Compiles the protobuf files in pure Rust: no `protoc` on the builder's machine.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO_ROOT: &str = "proto";
const PROTO_FILES: [&str; 2] = [
    "dovetail/inference/v1/inference.proto",
    "dovetail/models/v1/models.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");

    let mut compiler = protox::Compiler::new([PROTO_ROOT])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(PROTO_FILES)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;

    tonic_prost_build::configure()
        .emit_rerun_if_changed(false)
        // These two hold an agent's words; their `Debug` is written by hand and shows lengths only.
        .skip_debug([
            ".dovetail.inference.v1.CreateTaskRequest",
            ".dovetail.inference.v1.TokenChunk",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
