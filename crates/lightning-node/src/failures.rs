//! Why a payment failed, in the words that payees see.
//!
//! LDK does not say that only a fee limit stood in the way: such a payment finds no route.

use dovetail_lightning::FailureClass;
use ldk_node::NodeError;
use ldk_node::lightning::events::PaymentFailureReason;

/// From LDK's event. `has_room` says whether our channels could have sent the amount.
pub(crate) fn of_event(reason: Option<PaymentFailureReason>, has_room: bool) -> FailureClass {
    use PaymentFailureReason as Reason;
    match reason {
        Some(Reason::RecipientRejected | Reason::InvoiceRequestRejected) => {
            FailureClass::RefusedByPayee
        }
        Some(Reason::RouteNotFound) if !has_room => FailureClass::NoLiquidity,
        // The payee gave no invoice in time: nothing leads there now.
        Some(Reason::RouteNotFound | Reason::RetriesExhausted | Reason::InvoiceRequestExpired) => {
            FailureClass::NoRoute
        }
        Some(Reason::PaymentExpired) => FailureClass::Expired,
        Some(Reason::UnknownRequiredFeatures) => FailureClass::Invalid,
        Some(
            Reason::UserAbandoned | Reason::UnexpectedError | Reason::BlindedPathCreationFailed,
        )
        | None => FailureClass::Other,
    }
}

/// What an error of LDK's call says of a payment that LDK heard of for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing left, and it will not.
    Failed(FailureClass),
    /// LDK did not look at it.
    NotHeard,
    /// It may have left: LDK's event will tell.
    Uncertain,
}

/// From the error of LDK's call.
pub(crate) fn of_call(error: NodeError, has_room: bool) -> Answer {
    match error {
        NodeError::PaymentSendingFailed if !has_room => Answer::Failed(FailureClass::NoLiquidity),
        NodeError::PaymentSendingFailed => Answer::Failed(FailureClass::NoRoute),
        NodeError::InvalidInvoice
        | NodeError::InvalidOffer
        | NodeError::InvalidAmount
        | NodeError::UnsupportedCurrency => Answer::Failed(FailureClass::Invalid),
        NodeError::NotRunning => Answer::NotHeard,
        // `PersistenceFailed` was seen with a payment that then arrived.
        _ => Answer::Uncertain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ldk_refused_before_it_sent_is_a_failure() {
        let uncertain = [
            NodeError::PersistenceFailed,
            NodeError::DuplicatePayment,
            NodeError::ConnectionFailed,
            NodeError::WalletOperationTimeout,
        ];
        for error in uncertain {
            assert_eq!(of_call(error, false), Answer::Uncertain, "{error:?}");
        }
        assert_eq!(of_call(NodeError::NotRunning, true), Answer::NotHeard);
        let failed = of_call(NodeError::PaymentSendingFailed, true);
        assert_eq!(failed, Answer::Failed(FailureClass::NoRoute));
    }

    #[test]
    fn an_empty_channel_is_told_from_a_missing_route() {
        let reason = Some(PaymentFailureReason::RouteNotFound);
        assert_eq!(of_event(reason, false), FailureClass::NoLiquidity);
        assert_eq!(of_event(reason, true), FailureClass::NoRoute);
        let refused = Some(PaymentFailureReason::RecipientRejected);
        assert_eq!(of_event(refused, false), FailureClass::RefusedByPayee);
    }
}
