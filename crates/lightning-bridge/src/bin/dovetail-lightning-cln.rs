//! `dovetail-lightning-cln`: Core Lightning as a wallet, behind the socket of `dovetail-lightning`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dovetail_lightning_bridge::core_lightning().await
}
