//! What an operator asks of the pool's wallet: `dovetail-pool lightning`. It goes over the wallet's own socket, beside the
//! pool; the ledger is not touched.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Subcommand;
use dovetail_lightning::{Backup, Channel, Client, NodeState, Request};
use dovetail_units::time::unix_now;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::records;

/// What to ask.
#[derive(Debug, Subcommand)]
pub enum LightningCommand {
    /// Print how the node and its money stand: on the chain, in channels, and what can be paid and received now.
    Status,
    /// Print the channels: with whom, how large, what can be sent and received, and what forwarding costs.
    Channels,
    /// Open a channel with money from the chain. It can be used once its funding has confirmed.
    Open {
        /// The other node's public key: 66 hex digits.
        #[arg(long)]
        node: String,
        /// Where it listens, host:port.
        #[arg(long)]
        address: String,
        /// What the channel holds, in satoshi.
        #[arg(long)]
        amount_sat: u64,
        /// What of it is given to the other node, in millisatoshi. A gift, unless they agreed on something else.
        #[arg(long, default_value_t = 0)]
        push_msat: u64,
    },
    /// Close a channel: its money comes back to the chain.
    Close {
        /// The channel's id, from `channels`.
        #[arg(long)]
        channel: String,
        /// Without the other node's consent. Costs more, and locks your part for some days: only if it does not answer.
        #[arg(long)]
        force: bool,
    },
    /// Set what other nodes pay for payments that they send through a channel.
    Fees {
        /// The channel's id, from `channels`.
        #[arg(long)]
        channel: String,
        /// For each payment, in millisatoshi.
        #[arg(long)]
        base_msat: u32,
        /// For each million that is sent.
        #[arg(long)]
        parts_per_million: u32,
    },
    /// Copy the seed, the list of channels and the records of payments into a new folder. Whoever has it can take the node's
    /// money on the chain. The channels' state is not in it, since a copy of that is dangerous: docs/lightning.md says why.
    Backup {
        /// The folder, on the wallet's machine. It must not be there yet.
        #[arg(long)]
        folder: PathBuf,
    },
    /// Print a new address to fund the node with.
    Address,
}

/// What was done, where there is nothing to tell.
#[derive(Debug, Serialize)]
struct Done {
    done: &'static str,
}

#[derive(Debug, Serialize)]
struct Address {
    address: String,
}

/// Asks the wallet and prints what it says, as one JSON object per line or for people.
///
/// # Errors
/// If there is no wallet, it is away, or it refuses.
pub async fn operate_wallet(
    config: &Config,
    command: LightningCommand,
    json: bool,
) -> anyhow::Result<()> {
    let socket = config.lightning.socket.clone();
    let socket = socket.context("the configuration names no wallet (lightning.socket)")?;
    let wallet = Wallet {
        client: Client::new(socket),
    };
    match command {
        LightningCommand::Status => {
            let state: NodeState = wallet.ask(&Request::NodeState).await?;
            records::print(&[state], json, status_text, "")
        }
        LightningCommand::Channels => {
            let channels: Vec<Channel> = wallet.ask(&Request::ListChannels).await?;
            records::print(&channels, json, channel_text, "no channels")
        }
        LightningCommand::Address => {
            let address = wallet.ask(&Request::NewAddress).await?;
            let address = Address { address };
            records::print(&[address], json, |it| format!("{}\n", it.address), "")
        }
        LightningCommand::Backup { folder } => {
            // The wallet works in another folder than this command.
            let folder = std::path::absolute(folder)?;
            let backup: Backup = wallet.ask(&Request::Backup { folder }).await?;
            records::print(&[backup], json, backup_text, "")
        }
        LightningCommand::Open {
            node,
            address,
            amount_sat,
            push_msat,
        } => {
            let request = Request::OpenChannel {
                node_id: node,
                address,
                amount_sat,
                push_msat,
            };
            wallet
                .order(&request, "the channel is being opened", json)
                .await
        }
        LightningCommand::Close { channel, force } => {
            let request = Request::CloseChannel { channel, force };
            wallet
                .order(&request, "the channel is being closed", json)
                .await
        }
        LightningCommand::Fees {
            channel,
            base_msat,
            parts_per_million,
        } => {
            let request = Request::SetFees {
                channel,
                base_msat,
                parts_per_million,
            };
            wallet.order(&request, "the fees are set", json).await
        }
    }
}

struct Wallet {
    client: Client,
}

impl Wallet {
    async fn ask<T: DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let answer = self.client.raw(request).await?;
        serde_json::from_value(answer).context("the wallet's answer is of another version")
    }

    async fn order(&self, request: &Request, done: &'static str, json: bool) -> anyhow::Result<()> {
        ensure!(self.ask::<bool>(request).await?, "the wallet did not do it");
        records::print(&[Done { done }], json, |it| format!("{}\n", it.done), "")
    }
}

fn status_text(state: &NodeState) -> String {
    let synced = state.synced_at_unix.map_or_else(
        || "not since its start".to_owned(),
        |unix| format!("{} s ago", unix_now().saturating_sub(unix)),
    );
    let mut text = format!(
        "node        {}\n\
         listens at  {}\n\
         chain       block {}, followed {synced}\n\
         on chain    {} sat, {} can be spent, {} kept for closing channels; {} on their way from closed channels\n\
         channels    {}, {} usable; {} msat can be sent, {} received\n\
         payments    {} on their way\n",
        state.node_id,
        state.addresses.join(", "),
        state.height,
        state.onchain_sat,
        state.onchain_spendable_sat,
        state.onchain_reserve_sat,
        state.closing_sat,
        state.channels,
        state.channels_usable,
        state.can_send_msat,
        state.can_receive_msat,
        state.attempts_pending,
    );
    if state.attempts_in_review > 0 {
        let count = state.attempts_in_review;
        text += &format!(
            "review      {count} payments need your decision: see `dovetail-pool payouts`\n"
        );
    }
    text
}

fn channel_text(channel: &Channel) -> String {
    let stands = match (channel.is_ready, channel.is_usable) {
        (_, true) => "usable",
        (true, false) => "the other node is away",
        (false, false) => "not confirmed",
    };
    let opener = if channel.is_ours { "us" } else { "them" };
    format!(
        "{}: {stands}\n  with {}, {} sat, opened by {opener}, funded by {}\n  {} msat can be sent, {} received; forwarding \
         costs {} msat and {} of each million\n",
        channel.channel,
        channel.node_id,
        channel.capacity_sat,
        channel.funding.as_deref().unwrap_or("nothing yet"),
        channel.can_send_msat,
        channel.can_receive_msat,
        channel.base_msat,
        channel.parts_per_million,
    )
}

fn backup_text(backup: &Backup) -> String {
    format!(
        "{}: the seed, {} channels as a list, {} records of payments. Keep it secret, and read READ-ME-FIRST.txt in it.\n",
        backup.folder.display(),
        backup.channels,
        backup.attempts,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dovetail_lightning::{server, simulator};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn config(socket: Option<PathBuf>) -> Config {
        let mut config: Config =
            toml::from_str(include_str!("../../config/dovetail-pool.toml")).unwrap();
        config.lightning.socket = socket;
        config
    }

    #[tokio::test]
    async fn an_operator_is_told_if_there_is_no_wallet_or_one_without_channels() {
        let none = operate_wallet(&config(None), LightningCommand::Status, true).await;
        assert!(none.unwrap_err().to_string().contains("lightning.socket"));

        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wallet.sock");
        let config = config(Some(socket.clone()));
        let away = operate_wallet(&config, LightningCommand::Status, true).await;
        assert!(
            away.unwrap_err()
                .to_string()
                .contains("the wallet's socket")
        );

        let listener = server::bind(&socket).unwrap();
        let wallet = simulator::wallets(1, 0).remove(0);
        let shutdown = CancellationToken::new();
        tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()));
        let simulated = operate_wallet(&config, LightningCommand::Channels, true).await;
        let error = simulated.unwrap_err().to_string();
        assert!(error.contains("no channels"), "{error}");
        shutdown.cancel();
    }

    #[test]
    fn the_status_says_what_needs_a_decision() {
        let mut state = NodeState {
            node_id: "02ab".to_owned(),
            addresses: vec!["0.0.0.0:9735".to_owned()],
            height: 7,
            synced_at_unix: None,
            onchain_sat: 1,
            onchain_spendable_sat: 1,
            onchain_reserve_sat: 0,
            closing_sat: 0,
            channels: 1,
            channels_usable: 1,
            can_send_msat: 5,
            can_receive_msat: 6,
            attempts_pending: 0,
            attempts_in_review: 0,
        };
        assert!(!status_text(&state).contains("review"));
        state.attempts_in_review = 2;
        assert!(status_text(&state).contains("2 payments need your decision"));
    }
}
