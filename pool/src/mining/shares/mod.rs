//! Submitted shares (Sv2 specification, sections 5.3.11 to 5.3.14). `judge.rs` checks the header hash here
//! and now; the audit and the ledger follow in a task of their own (`settlement.rs`).

pub(super) mod acks;
mod claim;
mod device;
mod judge;
pub(super) mod pending_share;
pub(super) mod refusal;
mod settlement;
pub(super) mod share;
mod solution;

use dovetail_sv2::EndReason;
use dovetail_sv2::tlv::Tlv;
use dovetail_telemetry::Event;
use stratum_core::mining_sv2::{CloseChannelOwned, SubmitSharesErrorOwned};

use super::connection::Connection;
use super::fields::code_text;
use refusal::ShareRefusal;
use share::SubmittedShare;

impl Connection {
    /// Takes a share, with the fields that extensions put behind it.
    pub(super) fn on_share(
        &mut self,
        share: &SubmittedShare,
        fields: &[Tlv],
    ) -> Result<(), EndReason> {
        match self.judge(share, fields) {
            Ok(judged) => {
                self.settle(share, judged);
                self.steer(share.channel_id)
            }
            Err(refusal) => self.refuse(share.channel_id, share.sequence_number, refusal),
        }
    }

    fn refuse(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        refusal: ShareRefusal,
    ) -> Result<(), EndReason> {
        let code = match refusal {
            ShareRefusal::Standard(code) => code,
            ShareRefusal::Extension(code) => code.as_str(),
            ShareRefusal::CloseChannel(reason) => {
                self.channels.remove(&channel_id);
                return self.send(&CloseChannelOwned {
                    channel_id,
                    reason_code: code_text(reason)?,
                });
            }
        };
        if let Some(channel) = self.channels.get(&channel_id) {
            self.shared.telemetry.emit(&Event::ShareRejected {
                worker: channel.account(),
                code,
            });
        }
        self.send_share_error(channel_id, sequence_number, code)
    }

    fn send_share_error(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        code: &str,
    ) -> Result<(), EndReason> {
        self.send(&SubmitSharesErrorOwned {
            channel_id,
            sequence_number,
            error_code: code_text(code)?,
        })
    }
}
