//! A share as its miner submitted it, on either kind of channel.

use stratum_core::mining_sv2::{SubmitSharesExtendedOwned, SubmitSharesStandardOwned};

use crate::blocks::HeaderFields;

/// The message that brought a share.
#[derive(Debug, Clone)]
pub(crate) enum ShareMessage {
    Standard(SubmitSharesStandardOwned),
    Extended(SubmitSharesExtendedOwned),
}

/// A share that nobody has judged.
#[derive(Debug, Clone)]
pub(crate) struct SubmittedShare {
    pub(crate) channel_id: u32,
    pub(crate) sequence_number: u32,
    /// The number that its miner knows the job by.
    pub(crate) job_id: u32,
    /// The number that its channel knows the job by: another one if it is a custom job.
    pub(crate) channels_job_id: u32,
    pub(crate) header: HeaderFields,
    /// What the miner rolled: nothing on a standard channel.
    pub(crate) extranonce: Vec<u8>,
    pub(crate) message: ShareMessage,
}

impl SubmittedShare {
    /// The same share, where its channel knows the job by another number than its miner.
    pub(crate) fn with_channels_job_id(&self, job_id: u32) -> Self {
        let mut share = self.clone();
        share.channels_job_id = job_id;
        match &mut share.message {
            ShareMessage::Standard(message) => message.job_id = job_id,
            ShareMessage::Extended(message) => message.job_id = job_id,
        }
        share
    }
}

impl From<SubmitSharesStandardOwned> for SubmittedShare {
    fn from(message: SubmitSharesStandardOwned) -> Self {
        Self {
            channel_id: message.channel_id,
            sequence_number: message.sequence_number,
            job_id: message.job_id,
            channels_job_id: message.job_id,
            header: HeaderFields::from(&message),
            extranonce: Vec::new(),
            message: ShareMessage::Standard(message),
        }
    }
}

impl From<SubmitSharesExtendedOwned> for SubmittedShare {
    fn from(message: SubmitSharesExtendedOwned) -> Self {
        Self {
            channel_id: message.channel_id,
            sequence_number: message.sequence_number,
            job_id: message.job_id,
            channels_job_id: message.job_id,
            header: HeaderFields::from(&message),
            extranonce: message.extranonce.as_bytes().to_vec(),
            message: ShareMessage::Extended(message),
        }
    }
}
