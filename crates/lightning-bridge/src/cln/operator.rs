//! What Core Lightning does for its operator.

use std::time::Duration;

use dovetail_lightning::{Channel, NodeState, Request};
use serde_json::{Value, json};

use super::answers::{Funds, NewAddress, Output, PeerChannel, StaticBackup};
use super::{CoreLightning, TIME_MAX};
use crate::node::{NodeBackup, NodeError};

/// How long it may take to speak with another node. The operator's client waits for 20 s.
const PEER_TIME_MAX: Duration = Duration::from_secs(18);
/// After how many seconds a close that the other node does not answer is made alone; 0: never.
const CLOSE_ALONE_AFTER_S: u64 = 1;
/// A channel that can be used.
const NORMAL: &str = "CHANNELD_NORMAL";
/// What goes with a backup.
const BACKUP_NOTE: &str = "\
static-channels.json  What Core Lightning's `recoverchannel` takes: start a node on the old hsm_secret, give it these, and it
                      asks the other nodes to close the channels. The money is back after that; the channels are not.
";

/// Whether the channel still is one: the node keeps closed ones in the list for a while.
fn is_open(channel: &PeerChannel) -> bool {
    !matches!(
        channel.state.as_str(),
        "CHANNELD_SHUTTING_DOWN"
            | "CLOSINGD_SIGEXCHANGE"
            | "CLOSINGD_COMPLETE"
            | "AWAITING_UNILATERAL"
            | "FUNDING_SPEND_SEEN"
            | "ONCHAIN"
            | "CLOSED"
    )
}

/// Whether its money is on its way back and in none of the node's outputs. Once a closing transaction is made, the node may list
/// our output of it: nothing is counted twice, so what is late on the chain after a close by one side is not counted at all.
fn is_closing(channel: &PeerChannel) -> bool {
    matches!(
        channel.state.as_str(),
        "CHANNELD_SHUTTING_DOWN" | "CLOSINGD_SIGEXCHANGE" | "AWAITING_UNILATERAL"
    )
}

fn is_usable(channel: &PeerChannel) -> bool {
    channel.state == NORMAL && channel.peer_connected
}

pub(super) fn can_send_msat(channel: &PeerChannel) -> u64 {
    match is_usable(channel) {
        true => channel.spendable_msat,
        false => 0,
    }
}

fn can_receive_msat(channel: &PeerChannel) -> u64 {
    match is_usable(channel) {
        true => channel.receivable_msat,
        false => 0,
    }
}

pub(super) fn sum(channels: &[PeerChannel], of: impl Fn(&PeerChannel) -> u64) -> u64 {
    channels.iter().map(of).fold(0, u64::saturating_add)
}

pub(super) fn listed(channels: &[PeerChannel]) -> Vec<Channel> {
    let open = channels.iter().filter(|channel| is_open(channel));
    open.map(|channel| Channel {
        channel: channel.channel_id.clone().unwrap_or_default(),
        node_id: channel.peer_id.clone(),
        funding: match (&channel.funding_txid, channel.funding_outnum) {
            (Some(txid), Some(index)) => Some(format!("{txid}:{index}")),
            _ => None,
        },
        capacity_sat: channel.total_msat / 1_000,
        can_send_msat: channel.spendable_msat,
        can_receive_msat: channel.receivable_msat,
        is_ready: channel.state == NORMAL,
        is_usable: is_usable(channel),
        is_ours: channel.opener.as_deref() == Some("local"),
        base_msat: u32::try_from(channel.fee_base_msat).unwrap_or(u32::MAX),
        parts_per_million: channel.fee_proportional_millionths,
    })
    .collect()
}

impl CoreLightning {
    pub(super) async fn node_state(&self) -> Result<NodeState, NodeError> {
        let funds = self.rpc.call::<Funds>("listfunds", json!({}), TIME_MAX);
        let (info, list, funds) = tokio::try_join!(self.info(), self.peer_channels(), funds)?;
        let channels = &list.channels;
        let unspent = |is_counted: &dyn Fn(&Output) -> bool| {
            let counted = funds.outputs.iter().filter(|output| is_counted(output));
            counted
                .map(|output| output.amount_msat)
                .fold(0, u64::saturating_add)
                / 1_000
        };
        let is_behind =
            info.warning_bitcoind_sync.is_some() || info.warning_lightningd_sync.is_some();
        Ok(NodeState {
            node_id: info.id,
            addresses: info
                .address
                .iter()
                .filter_map(|it| Some(format!("{}:{}", it.address.as_ref()?, it.port)))
                .collect(),
            height: info.blockheight,
            synced_at_unix: (!is_behind).then(dovetail_units::time::unix_now),
            onchain_sat: unspent(&|output| output.status != "spent"),
            onchain_spendable_sat: unspent(&|output| {
                output.status == "confirmed" && !output.reserved
            }),
            // The node keeps an emergency reserve and does not say how much.
            onchain_reserve_sat: 0,
            closing_sat: sum(channels, |it| match is_closing(it) {
                true => it.to_us_msat,
                false => 0,
            }) / 1_000,
            channels: channels.iter().filter(|it| is_open(it)).count(),
            channels_usable: channels.iter().filter(|it| is_usable(it)).count(),
            can_send_msat: sum(channels, can_send_msat),
            can_receive_msat: sum(channels, can_receive_msat),
            attempts_pending: 0,
            attempts_in_review: 0,
        })
    }

    pub(super) async fn operate_now(&self, request: Request) -> Result<Value, NodeError> {
        match request {
            Request::NewAddress => {
                let made: NewAddress = self.rpc.call("newaddr", json!({}), TIME_MAX).await?;
                let address = made.bech32.or(made.p2tr);
                address
                    .map(Value::from)
                    .ok_or_else(|| NodeError::Unclear("newaddr gave no address".to_owned()))
            }
            Request::OpenChannel {
                node_id,
                address,
                amount_sat,
                push_msat,
            } => {
                let peer = json!({ "id": format!("{node_id}@{address}") });
                let _: Value = self.rpc.call("connect", peer, PEER_TIME_MAX).await?;
                let params = json!({
                    "id": node_id,
                    "amount": amount_sat,
                    "push_msat": push_msat,
                    "announce": false,
                });
                self.done("fundchannel", params).await
            }
            // An id of a channel, not of a node, which `close` takes as well.
            Request::CloseChannel { channel, force } => {
                self.find(&channel).await?;
                let alone_after = match force {
                    true => CLOSE_ALONE_AFTER_S,
                    false => 0,
                };
                let params = json!({ "id": channel, "unilateraltimeout": alone_after });
                self.closed(params).await
            }
            Request::SetFees {
                channel,
                base_msat,
                parts_per_million,
            } => {
                self.find(&channel).await?;
                let params =
                    json!({ "id": channel, "feebase": base_msat, "feeppm": parts_per_million });
                self.done("setchannel", params).await
            }
            _ => Err(NodeError::Refused {
                code: 0,
                message: "this is no operator's request".to_owned(),
            }),
        }
    }

    async fn done(&self, method: &str, params: Value) -> Result<Value, NodeError> {
        let _: Value = self.rpc.call(method, params, PEER_TIME_MAX).await?;
        Ok(true.into())
    }

    /// `close` returns once the closing transaction is made; if the other node is away, not before it is back. The node goes on
    /// closing without us.
    async fn closed(&self, params: Value) -> Result<Value, NodeError> {
        match self.done("close", params).await {
            Err(NodeError::Unclear(_)) => Ok(true.into()),
            ended => ended,
        }
    }

    async fn find(&self, channel: &str) -> Result<(), NodeError> {
        let list = self.peer_channels().await?;
        let mut ids = list.channels.iter().map(|it| it.channel_id.as_deref());
        match ids.any(|id| id == Some(channel)) {
            true => Ok(()),
            false => Err(NodeError::Refused {
                code: 0,
                message: "there is no channel of this id: list them".to_owned(),
            }),
        }
    }

    pub(super) async fn static_backup(&self) -> Result<NodeBackup, NodeError> {
        let backup: StaticBackup = self.rpc.call("staticbackup", json!({}), TIME_MAX).await?;
        Ok(NodeBackup {
            name: "static-channels.json",
            bytes: json!({ "scb": backup.scb }).to_string().into_bytes(),
            note: BACKUP_NOTE,
        })
    }
}
