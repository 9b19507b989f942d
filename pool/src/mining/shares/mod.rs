//! Submitted shares (Sv2 specification, sections 5.3.11 to 5.3.14). `judge.rs` checks the header hash here
//! and now; the audit and the ledger follow in a task of their own (`settlement.rs`).

mod acks;
mod claim;
mod judge;
mod settlement;
mod solution;
mod submitted;

use dovetail_sv2::tlv::Tlv;
use stratum_core::mining_sv2::{CloseChannelOwned, SubmitSharesErrorOwned};

use super::connection::{Connection, Ended};
use super::fields::code_text;
use crate::events::Event;

pub(super) use acks::Acks;
pub(super) use judge::ShareRefusal;
pub(super) use settlement::InFlight;
pub(super) use submitted::{ShareMessage, SubmittedShare};

impl Connection {
    /// Takes a share, with the fields that extensions put behind it.
    pub(super) fn on_share(&mut self, share: &SubmittedShare, fields: &[Tlv]) -> Result<(), Ended> {
        match self.judge(share, fields) {
            Ok(judged) => {
                self.settle(share, judged);
                Ok(())
            }
            Err(refusal) => self.refuse(share.channel_id, share.sequence_number, refusal),
        }
    }

    fn refuse(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        refusal: ShareRefusal,
    ) -> Result<(), Ended> {
        match refusal {
            ShareRefusal::Code(code) => {
                if let Some(channel) = self.channels.get(&channel_id) {
                    Event::ShareRejected {
                        worker: channel.account(),
                        code,
                    }
                    .emit();
                }
                self.send_share_error(channel_id, sequence_number, code)
            }
            ShareRefusal::CloseChannel(reason) => {
                self.channels.remove(&channel_id);
                self.send(&CloseChannelOwned {
                    channel_id,
                    reason_code: code_text(reason)?,
                })
            }
        }
    }

    fn send_share_error(
        &mut self,
        channel_id: u32,
        sequence_number: u32,
        code: &str,
    ) -> Result<(), Ended> {
        self.send(&SubmitSharesErrorOwned {
            channel_id,
            sequence_number,
            error_code: code_text(code)?,
        })
    }
}
