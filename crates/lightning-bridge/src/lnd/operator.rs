//! What LND does for its operator. A channel's id is its funding output, `txid:index`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dovetail_lightning::{Channel, NodeState, Request};
use hyper::Method;
use serde_json::{Value, json};

use super::answers::{
    ChannelBackups, ChannelFee, FeeReport, NewAddress, OpenChannel, PendingChannels, PolicyUpdate,
    WalletBalance,
};
use super::{Lnd, TIME_MAX};
use crate::node::{NodeBackup, NodeError};

/// How long it may take to speak with another node. The operator's client waits for 20 s.
const PEER_TIME_MAX: Duration = Duration::from_secs(18);
/// For how many blocks this node may take to hand a payment on: LND's own default.
const TIME_LOCK_DELTA: u32 = 80;
/// What goes with a backup.
const BACKUP_NOTE: &str = "\
channel.backup  LND's static channel backup. Restore it with the node's seed (`lncli create`, then `lncli restorechanbackup`):
                the node asks the others to close the channels. The money is back after that; the channels are not.
";

fn spendable_msat(balance_sat: u64, reserve_sat: u64) -> u64 {
    balance_sat
        .saturating_sub(reserve_sat)
        .saturating_mul(1_000)
}

fn could_send_msat(channel: &OpenChannel) -> u64 {
    spendable_msat(
        channel.local_balance.0,
        channel.local_constraints.chan_reserve_sat.0,
    )
}

fn could_receive_msat(channel: &OpenChannel) -> u64 {
    spendable_msat(
        channel.remote_balance.0,
        channel.remote_constraints.chan_reserve_sat.0,
    )
}

pub(super) fn can_send_msat(channel: &OpenChannel) -> u64 {
    match channel.active {
        true => could_send_msat(channel),
        false => 0,
    }
}

fn can_receive_msat(channel: &OpenChannel) -> u64 {
    match channel.active {
        true => could_receive_msat(channel),
        false => 0,
    }
}

pub(super) fn sum(channels: &[OpenChannel], of: impl Fn(&OpenChannel) -> u64) -> u64 {
    channels.iter().map(of).fold(0, u64::saturating_add)
}

fn listed(channel: &OpenChannel, fees: &[ChannelFee]) -> Channel {
    let point = &channel.channel_point;
    let fee = fees.iter().find(|fee| fee.channel_point == *point);
    let part = |of: fn(&ChannelFee) -> u64| {
        fee.map_or(0, |fee| u32::try_from(of(fee)).unwrap_or(u32::MAX))
    };
    Channel {
        channel: point.clone(),
        node_id: channel.remote_pubkey.clone(),
        funding: Some(point.clone()),
        capacity_sat: channel.capacity.0,
        can_send_msat: could_send_msat(channel),
        can_receive_msat: could_receive_msat(channel),
        is_ready: true,
        is_usable: channel.active,
        is_ours: channel.initiator,
        base_msat: part(|fee| fee.base_fee_msat.0),
        parts_per_million: part(|fee| fee.fee_per_mil.0),
    }
}

/// A funding output in LND's two parts. Only digits of it come into a path.
fn channel_point(channel: &str) -> Result<(String, u32), NodeError> {
    let parts = channel.split_once(':').and_then(|(txid, index)| {
        let is_txid = txid.len() == 64 && txid.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((is_txid.then_some(txid)?.to_owned(), index.parse().ok()?))
    });
    parts.ok_or_else(|| refused("there is no channel of this id: list them"))
}

fn refused(message: &str) -> NodeError {
    NodeError::Refused {
        code: 0,
        message: message.to_owned(),
    }
}

impl Lnd {
    pub(super) async fn list(&self) -> Result<Vec<Channel>, NodeError> {
        let fees = self.rest.get::<FeeReport>("/v1/fees", TIME_MAX);
        let (channels, fees) = tokio::try_join!(self.open_channels(), fees)?;
        let channels = channels.channels.iter();
        Ok(channels.map(|it| listed(it, &fees.channel_fees)).collect())
    }

    pub(super) async fn node_state(&self) -> Result<NodeState, NodeError> {
        let rest = &self.rest;
        let (info, list, wallet, pending) = tokio::try_join!(
            self.info(),
            self.open_channels(),
            rest.get::<WalletBalance>("/v1/balance/blockchain", TIME_MAX),
            rest.get::<PendingChannels>("/v1/channels/pending", TIME_MAX),
        )?;
        let channels = &list.channels;
        let reserve = wallet.reserved_balance_anchor_chan.0;
        let addresses = info.uris.iter().filter_map(|uri| uri.split_once('@'));
        Ok(NodeState {
            node_id: info.identity_pubkey,
            addresses: addresses.map(|(_, address)| address.to_owned()).collect(),
            height: info.block_height,
            synced_at_unix: info.synced_to_chain.then(dovetail_units::time::unix_now),
            onchain_sat: wallet.total_balance.0,
            onchain_spendable_sat: wallet.confirmed_balance.0.saturating_sub(reserve),
            onchain_reserve_sat: reserve,
            closing_sat: pending.total_limbo_balance.0,
            channels: channels.len(),
            channels_usable: channels.iter().filter(|it| it.active).count(),
            can_send_msat: sum(channels, can_send_msat),
            can_receive_msat: sum(channels, can_receive_msat),
            attempts_pending: 0,
            attempts_in_review: 0,
        })
    }

    pub(super) async fn operate_now(&self, request: Request) -> Result<Value, NodeError> {
        match request {
            Request::NewAddress => {
                let path = "/v1/newaddress?type=WITNESS_PUBKEY_HASH";
                let made: NewAddress = self.rest.get(path, TIME_MAX).await?;
                Ok(made.address.into())
            }
            Request::OpenChannel {
                node_id,
                address,
                amount_sat,
                push_msat,
            } => {
                self.open_channel(&node_id, &address, amount_sat, push_msat)
                    .await
            }
            Request::CloseChannel { channel, force } => self.close(&channel, force).await,
            Request::SetFees {
                channel,
                base_msat,
                parts_per_million,
            } => self.set_fees(&channel, base_msat, parts_per_million).await,
            _ => Err(refused("this is no operator's request")),
        }
    }

    async fn open_channel(
        &self,
        node_id: &str,
        address: &str,
        amount_sat: u64,
        push_msat: u64,
    ) -> Result<Value, NodeError> {
        if !push_msat.is_multiple_of(1_000) {
            return Err(refused("LND can give the other node whole satoshi only"));
        }
        let key = hex::decode(node_id).map_err(|_| refused("node_id is no public key"))?;
        let peer = json!({ "addr": { "pubkey": node_id, "host": address }, "perm": true });
        match self
            .rest
            .post::<Value>("/v1/peers", &peer, PEER_TIME_MAX)
            .await
        {
            Ok(_) => {}
            Err(NodeError::Refused { message, .. }) if message.contains("already connected") => {}
            Err(error) => return Err(error),
        }
        let body = json!({
            "node_pubkey": STANDARD.encode(key),
            "local_funding_amount": amount_sat.to_string(),
            "push_sat": (push_msat / 1_000).to_string(),
            "private": true,
        });
        let opened = self
            .rest
            .post::<Value>("/v1/channels", &body, PEER_TIME_MAX);
        opened.await?;
        Ok(true.into())
    }

    /// The first line of the stream says that the closing has begun.
    async fn close(&self, channel: &str, force: bool) -> Result<Value, NodeError> {
        let (txid, index) = channel_point(channel)?;
        let path = format!("/v1/channels/{txid}/{index}?force={force}&no_wait=true");
        let begun = self
            .rest
            .find::<Value>(Method::DELETE, &path, None, PEER_TIME_MAX, |_| true);
        begun.await?;
        Ok(true.into())
    }

    async fn set_fees(
        &self,
        channel: &str,
        base_msat: u32,
        parts_per_million: u32,
    ) -> Result<Value, NodeError> {
        let (txid, index) = channel_point(channel)?;
        let body = json!({
            "chan_point": { "funding_txid_str": txid, "output_index": index },
            "base_fee_msat": base_msat.to_string(),
            "fee_rate_ppm": parts_per_million,
            "time_lock_delta": TIME_LOCK_DELTA,
        });
        let update: PolicyUpdate = self.rest.post("/v1/chanpolicy", &body, TIME_MAX).await?;
        match update.failed_updates.is_empty() {
            true => Ok(true.into()),
            false => Err(refused("LND could not set the fees of this channel")),
        }
    }

    pub(super) async fn static_backup(&self) -> Result<NodeBackup, NodeError> {
        let path = "/v1/channels/backup";
        let backup: ChannelBackups = self.rest.get(path, TIME_MAX).await?;
        let bytes = STANDARD.decode(&backup.multi_chan_backup.multi_chan_backup);
        Ok(NodeBackup {
            name: "channel.backup",
            bytes: bytes.map_err(|_| NodeError::Unclear("the backup is no Base64".to_owned()))?,
            note: BACKUP_NOTE,
        })
    }
}
