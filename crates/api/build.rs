//! Compiles the protobuf files in pure Rust: no `protoc` on the builder's machine.

use std::{env, error::Error, fs, path::PathBuf};

const PROTO_ROOT: &str = "proto";
const PUBLIC_FILES: [&str; 2] = [
    "dovetail/inference/v1/inference.proto",
    "dovetail/models/v1/models.proto",
];
/// Between a pool and its own validators; left out of the descriptors that the public port reflects.
const PRIVATE_FILES: [&str; 1] = ["dovetail/validation/v1/validation.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTO_ROOT}");

    let mut public = protox::Compiler::new([PROTO_ROOT])?;
    public
        .include_source_info(true)
        .include_imports(true)
        .open_files(PUBLIC_FILES)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("descriptors.bin"),
        public.encode_file_descriptor_set(),
    )?;

    let mut private = protox::Compiler::new([PROTO_ROOT])?;
    private
        .include_source_info(true)
        .include_imports(true)
        .open_files(PRIVATE_FILES)?;

    for files in [public.file_descriptor_set(), private.file_descriptor_set()] {
        tonic_prost_build::configure()
            .emit_rerun_if_changed(false)
            // These hold an agent's words; their `Debug` is written by hand and shows lengths only.
            .skip_debug([
                ".dovetail.inference.v1.CreateTaskRequest",
                ".dovetail.inference.v1.TokenChunk",
                ".dovetail.validation.v1.Evidence",
            ])
            .compile_fds(files)?;
    }
    Ok(())
}
