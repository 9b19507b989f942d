//! Messages of the Template Distribution Protocol in and out of frames.

use dovetail_sv2::messages::{
    CoinbaseOutputConstraints, NewTemplate, RequestTransactionData, RequestTransactionDataError,
    RequestTransactionDataSuccess, SubmitSolution, TemplateSetNewPrevHash,
};
use dovetail_sv2::{DecodeError, Frame, Message, frame::EncodeError};
use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;

/// The largest payload to take: a whole block's transactions come in one message.
pub(crate) const PAYLOAD_BYTES_MAX: usize = dovetail_sv2::frame::PAYLOAD_BYTES_MAX;

pub(crate) fn to_frame(message: &Tdp) -> Result<Frame, EncodeError> {
    match message {
        Tdp::CoinbaseOutputConstraints(message) => Frame::new(message),
        Tdp::NewTemplate(message) => Frame::new(message),
        Tdp::RequestTransactionData(message) => Frame::new(message),
        Tdp::RequestTransactionDataError(message) => Frame::new(message),
        Tdp::RequestTransactionDataSuccess(message) => Frame::new(message),
        Tdp::SetNewPrevHash(message) => Frame::new(message),
        Tdp::SubmitSolution(message) => Frame::new(message),
    }
}

/// The message of a frame; `None` for one that is not of this protocol, which receivers discard.
pub(crate) fn from_frame(frame: &Frame) -> Result<Option<Tdp>, DecodeError> {
    fn read<M: Message>(frame: &Frame, wrap: fn(M) -> Tdp) -> Result<Option<Tdp>, DecodeError> {
        Ok(Some(wrap(frame.decode()?.0)))
    }
    if frame.extension_type != 0 {
        return Ok(None);
    }
    match frame.message_type {
        CoinbaseOutputConstraints::MESSAGE_TYPE => read(frame, Tdp::CoinbaseOutputConstraints),
        NewTemplate::MESSAGE_TYPE => read(frame, Tdp::NewTemplate),
        RequestTransactionData::MESSAGE_TYPE => read(frame, Tdp::RequestTransactionData),
        RequestTransactionDataError::MESSAGE_TYPE => read(frame, Tdp::RequestTransactionDataError),
        RequestTransactionDataSuccess::MESSAGE_TYPE => {
            read(frame, Tdp::RequestTransactionDataSuccess)
        }
        TemplateSetNewPrevHash::MESSAGE_TYPE => read(frame, Tdp::SetNewPrevHash),
        SubmitSolution::MESSAGE_TYPE => read(frame, Tdp::SubmitSolution),
        _ => Ok(None),
    }
}
