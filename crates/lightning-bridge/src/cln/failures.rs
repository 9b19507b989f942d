//! Why a payment failed, from Core Lightning's error codes (`lightning-xpay(7)`, `lightning-fetchinvoice(7)`,
//! `common/jsonrpc_errors.h` of its source).

use dovetail_lightning::FailureClass;

use crate::node::{NodeError, Sent};

/// A parameter that the node does not take: here that can only be the invoice or the offer.
const INVALID_PARAMS: i64 = -32602;
/// A plugin's trouble, its death, and the node's: what it was doing may have been done.
const PLUGIN_ERROR: i64 = -3;
const PLUGIN_TERMINATED: i64 = -4;
const SHUTTING_DOWN: i64 = -5;
/// A payment of this hash is on its way, or has arrived.
const IN_PROGRESS: i64 = 200;
const HASH_USED: i64 = 201;
const ALREADY_PAID: i64 = 219;

const DESTINATION_FAILED: i64 = 203;
const ROUTE_TOO_EXPENSIVE: i64 = 206;
const INVOICE_EXPIRED: i64 = 207;
const INSUFFICIENT_FUNDS: i64 = 215;
/// No route (205), attempts that all failed (209), no time left (210), a payee that is not there (216) or has no room (220).
const NO_ROUTE: [i64; 5] = [205, 209, 210, 216, 220];

const OFFER_EXPIRED: i64 = 1002;
const OFFER_NO_ROUTE: i64 = 1003;
const OFFER_BAD_REPLY: i64 = 1004;
const OFFER_TIMEOUT: i64 = 1005;

/// What an error of the command that pays says of the payment.
pub(super) fn of_pay(error: &NodeError) -> Sent {
    match error {
        // Nothing has left; the list, which is asked next, has nothing then.
        NodeError::Away(_) => Sent::GaveUp(FailureClass::Other),
        NodeError::Unclear(why) => Sent::Unclear(why.clone()),
        NodeError::Refused { code, message } => match *code {
            PLUGIN_ERROR | PLUGIN_TERMINATED | SHUTTING_DOWN | IN_PROGRESS | HASH_USED
            | ALREADY_PAID => Sent::Unclear(format!("{code}: {message}")),
            code => Sent::GaveUp(class(code)),
        },
    }
}

fn class(code: i64) -> FailureClass {
    match code {
        INVALID_PARAMS => FailureClass::Invalid,
        DESTINATION_FAILED => FailureClass::RefusedByPayee,
        ROUTE_TOO_EXPENSIVE => FailureClass::FeeOverLimit,
        INVOICE_EXPIRED => FailureClass::Expired,
        INSUFFICIENT_FUNDS => FailureClass::NoLiquidity,
        code if NO_ROUTE.contains(&code) => FailureClass::NoRoute,
        _ => FailureClass::Other,
    }
}

/// Why an offer's payee gave no invoice. Nothing has been sent then.
pub(super) fn of_offer(error: &NodeError) -> FailureClass {
    match error {
        NodeError::Away(_) | NodeError::Unclear(_) => FailureClass::Other,
        NodeError::Refused { code, .. } => match *code {
            INVALID_PARAMS => FailureClass::Invalid,
            OFFER_EXPIRED => FailureClass::Expired,
            OFFER_NO_ROUTE | OFFER_TIMEOUT => FailureClass::NoRoute,
            OFFER_BAD_REPLY => FailureClass::RefusedByPayee,
            _ => FailureClass::Other,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i64) -> NodeError {
        NodeError::Refused {
            code,
            message: String::new(),
        }
    }

    #[test]
    fn a_command_that_may_have_paid_is_not_called_over() {
        for code in [-3, -4, -5, 200, 201, 219] {
            assert!(matches!(of_pay(&refused(code)), Sent::Unclear(_)), "{code}");
        }
        let unclear = NodeError::Unclear("cut".to_owned());
        assert!(matches!(of_pay(&unclear), Sent::Unclear(_)));
    }

    #[test]
    fn the_nodes_codes_have_their_classes() {
        let pay = [
            (-32602, FailureClass::Invalid),
            (203, FailureClass::RefusedByPayee),
            (205, FailureClass::NoRoute),
            (206, FailureClass::FeeOverLimit),
            (207, FailureClass::Expired),
            (209, FailureClass::NoRoute),
            (210, FailureClass::NoRoute),
            (215, FailureClass::NoLiquidity),
            (-1, FailureClass::Other),
        ];
        for (code, class) in pay {
            assert_eq!(of_pay(&refused(code)), Sent::GaveUp(class), "{code}");
        }
        let offer = [
            (1002, FailureClass::Expired),
            (1003, FailureClass::NoRoute),
            (1004, FailureClass::RefusedByPayee),
            (1005, FailureClass::NoRoute),
        ];
        for (code, class) in offer {
            assert_eq!(of_offer(&refused(code)), class, "{code}");
        }
    }
}
