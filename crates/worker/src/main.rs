//! `dovetail-worker`: the inference worker, a plain hasher, and tools for model files.

mod cli;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cli::run().await
}
