//! `dovetail-lightning-lnd`: LND as a wallet, behind the socket of `dovetail-lightning`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dovetail_lightning_bridge::lnd().await
}
