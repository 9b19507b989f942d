//! What the node does for its operator: channels, fees, the chain, a backup.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use dovetail_lightning::{Backup, Channel, NodeState, Refusal, Request};
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::config::ChannelConfig;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::{ChannelDetails, PendingSweepBalance};
use serde::Serialize;

use crate::records::State;
use crate::wallet::{LdkWallet, refused, storage};

/// LDK's file of the seed, in the storage folder.
const SEED: &str = "keys_seed";
/// What goes with a backup, since whoever opens it is in trouble.
const BACKUP_NOTE: &str = include_str!("backup.txt");

impl LdkWallet {
    pub(crate) fn operate_now(&self, request: Request) -> Result<serde_json::Value, Refusal> {
        match request {
            Request::NewAddress => {
                let address = self.node.onchain_payment().new_address().map_err(refused)?;
                Ok(address.to_string().into())
            }
            Request::Sync => {
                self.node.sync_wallets().map_err(refused)?;
                Ok(true.into())
            }
            Request::OnchainBalance => {
                let balances = self.node.list_balances();
                Ok(balances.spendable_onchain_balance_sats.into())
            }
            Request::OpenChannel {
                node_id,
                address,
                amount_sat,
                push_msat,
            } => self.open_channel(&node_id, &address, amount_sat, push_msat),
            Request::UsableChannels => {
                let channels = self.node.list_channels();
                let usable = channels.iter().filter(|channel| channel.is_usable);
                Ok(usable.count().into())
            }
            Request::NodeState => value(&self.state()),
            Request::ListChannels => value(&self.channels()),
            Request::CloseChannel { channel, force } => self.close_channel(&channel, force),
            Request::SetFees {
                channel,
                base_msat,
                parts_per_million,
            } => self.set_fees(&channel, base_msat, parts_per_million),
            Request::Backup { folder } => value(&self.back_up(&folder).map_err(|e| storage(&e))?),
            _ => Err(Refusal::new("unsupported", "this is no operator's request")),
        }
    }

    fn open_channel(
        &self,
        node_id: &str,
        address: &str,
        amount_sat: u64,
        push_msat: u64,
    ) -> Result<serde_json::Value, Refusal> {
        let node_id: PublicKey = node_id
            .parse()
            .map_err(|_| Refusal::new("invalid", "node_id is no public key"))?;
        let address: SocketAddress = address
            .parse()
            .map_err(|_| Refusal::new("invalid", "address is not host:port"))?;
        self.node
            .open_channel(node_id, address, amount_sat, Some(push_msat), None)
            .map_err(refused)?;
        Ok(true.into())
    }

    fn close_channel(&self, channel: &str, force: bool) -> Result<serde_json::Value, Refusal> {
        let found = self.find_channel(channel)?;
        let (id, peer) = (&found.user_channel_id, found.counterparty_node_id);
        match force {
            true => self.node.force_close_channel(id, peer, None),
            false => self.node.close_channel(id, peer),
        }
        .map_err(refused)?;
        Ok(true.into())
    }

    fn set_fees(
        &self,
        channel: &str,
        base_msat: u32,
        parts_per_million: u32,
    ) -> Result<serde_json::Value, Refusal> {
        let found = self.find_channel(channel)?;
        let config = ChannelConfig {
            forwarding_fee_base_msat: base_msat,
            forwarding_fee_proportional_millionths: parts_per_million,
            ..found.config
        };
        self.node
            .update_channel_config(&found.user_channel_id, found.counterparty_node_id, config)
            .map_err(refused)?;
        Ok(true.into())
    }

    fn find_channel(&self, channel: &str) -> Result<ChannelDetails, Refusal> {
        let channels = self.node.list_channels();
        channels
            .into_iter()
            .find(|found| found.channel_id.to_string() == channel)
            .ok_or_else(|| {
                Refusal::new(
                    "unknown-channel",
                    "there is no channel of this id: list them",
                )
            })
    }

    fn state(&self) -> NodeState {
        let status = self.node.status();
        let balances = self.node.list_balances();
        let channels = self.node.list_channels();
        let usable = || channels.iter().filter(|channel| channel.is_usable);
        let addresses = self.node.listening_addresses().unwrap_or_default();
        let open = self.records().open_attempts();
        let in_review = open.iter().filter(|it| it.state == State::Review).count();
        let sweeps = balances.pending_balances_from_channel_closures.iter();
        NodeState {
            node_id: self.node.node_id().to_string(),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            height: status.current_best_block.height,
            synced_at_unix: status.latest_lightning_wallet_sync_timestamp,
            onchain_sat: balances.total_onchain_balance_sats,
            onchain_spendable_sat: balances.spendable_onchain_balance_sats,
            onchain_reserve_sat: balances.total_anchor_channels_reserve_sats,
            closing_sat: sweeps.map(swept_sat).sum(),
            channels: channels.len(),
            channels_usable: usable().count(),
            can_send_msat: usable().map(|channel| channel.outbound_capacity_msat).sum(),
            can_receive_msat: usable().map(|channel| channel.inbound_capacity_msat).sum(),
            attempts_pending: open.len() - in_review,
            attempts_in_review: in_review,
        }
    }

    fn channels(&self) -> Vec<Channel> {
        let channels = self.node.list_channels();
        channels.iter().map(channel).collect()
    }

    /// What can be copied from a running node without danger: the seed, the list of channels and the records of payments.
    /// Not LDK's state, which is out of date with the next payment and then costs the channels' money.
    fn back_up(&self, folder: &Path) -> io::Result<Backup> {
        let storage = self.node.config().storage_dir_path;
        let channels = self.channels();
        let peers = self.node.list_peers();
        let peers = peers.iter().map(|peer| Peer {
            node_id: peer.node_id.to_string(),
            address: peer.address.to_string(),
        });
        let list = ChannelList {
            node_id: self.node.node_id().to_string(),
            peers: peers.collect(),
            channels,
        };
        DirBuilder::new().mode(0o700).create(folder)?;
        write_new(
            &folder.join(SEED),
            &std::fs::read(Path::new(&storage).join(SEED))?,
        )?;
        write_new(
            &folder.join("channels.json"),
            &serde_json::to_vec_pretty(&list)?,
        )?;
        write_new(&folder.join("READ-ME-FIRST.txt"), BACKUP_NOTE.as_bytes())?;
        let attempts = folder.join("attempts");
        DirBuilder::new().mode(0o700).create(&attempts)?;
        let copied = self.records().copy_to(&attempts)?;
        std::fs::File::open(folder)?.sync_all()?;
        Ok(Backup {
            folder: folder.to_owned(),
            attempts: copied,
            channels: list.channels.len(),
        })
    }
}

/// What is needed to ask the other nodes to close.
#[derive(Serialize)]
struct ChannelList {
    node_id: String,
    peers: Vec<Peer>,
    channels: Vec<Channel>,
}

#[derive(Serialize)]
struct Peer {
    node_id: String,
    address: String,
}

fn channel(details: &ChannelDetails) -> Channel {
    Channel {
        channel: details.channel_id.to_string(),
        node_id: details.counterparty_node_id.to_string(),
        funding: details.funding_txo.map(|funding| funding.to_string()),
        capacity_sat: details.channel_value_sats,
        can_send_msat: details.outbound_capacity_msat,
        can_receive_msat: details.inbound_capacity_msat,
        is_ready: details.is_channel_ready,
        is_usable: details.is_usable,
        is_ours: details.is_outbound,
        base_msat: details.config.forwarding_fee_base_msat,
        parts_per_million: details.config.forwarding_fee_proportional_millionths,
    }
}

fn swept_sat(sweep: &PendingSweepBalance) -> u64 {
    match sweep {
        PendingSweepBalance::PendingBroadcast {
            amount_satoshis, ..
        }
        | PendingSweepBalance::BroadcastAwaitingConfirmation {
            amount_satoshis, ..
        }
        | PendingSweepBalance::AwaitingThresholdConfirmations {
            amount_satoshis, ..
        } => *amount_satoshis,
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn value(result: &impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(result).map_err(|_| Refusal::new("internal", "the answer does not encode"))
}
