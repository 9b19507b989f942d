//! `cargo xtask protobuf`: writes the code that the protobuf files stand for.

use crate::steps::{cargo, run};

/// Has the test that compares the generated code write it.
pub(crate) fn generate() -> anyhow::Result<()> {
    run(cargo(&["test", "--workspace", "--test", "generated"]).env("DOVETAIL_WRITE_GENERATED", "1"))
}
