//! LND (0.18 or newer) as a node, over REST. It pays with `/v2/router/send`, which refuses a payment hash that is on its way or
//! has arrived; its list of payments is asked with `/v2/router/track`. It knows no offers of BOLT 12.

mod answers;
mod certificate;
mod operator;
mod rest;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bitcoin::Network;
use dovetail_lightning::{
    Channel, CreatedInvoice, CreatedOffer, FailureClass, Hash32, NodeState, Preimage, Request,
};
use hyper::Method;
use serde_json::json;

use crate::node::{Found, Identity, Node, NodeBackup, NodeError, OfferInvoice, Order, Paid, Sent};
use answers::{AddedInvoice, Channels, GetInfo, Invoice, Payment};

pub(crate) use rest::Rest;

/// How long a question may take that the node answers from its memory.
const TIME_MAX: Duration = Duration::from_secs(8);
/// gRPC's codes for what is not there, and what is there already.
const NOT_FOUND: i64 = 5;
const ALREADY_EXISTS: i64 = 6;
/// LND's words for a payment hash that it never paid or tried to (`payments/db/errors.go` of its source).
const NOT_INITIATED: &str = "payment isn't initiated";
/// The node, or our connection to it, broke off; it may have done what it was asked.
const UNCERTAIN: [i64; 4] = [1, 4, 13, 14];

/// A node of LND.
pub(crate) struct Lnd {
    rest: Rest,
}

impl Lnd {
    pub(crate) fn new(rest: Rest) -> Self {
        Self { rest }
    }

    async fn info(&self) -> Result<GetInfo, NodeError> {
        self.rest.get("/v1/getinfo", TIME_MAX).await
    }

    async fn open_channels(&self) -> Result<Channels, NodeError> {
        self.rest.get("/v1/channels", TIME_MAX).await
    }
}

impl Node for Lnd {
    const RAIL: &'static str = "lnd";

    async fn identity(&self) -> Result<Identity, NodeError> {
        let info = self.info().await?;
        let named = info.chains.first().map_or("", |chain| &chain.network);
        let network = match named {
            "mainnet" => Network::Bitcoin,
            // Invoices of testnet 4 are marked as testnet's.
            "testnet" | "testnet4" => Network::Testnet,
            "signet" => Network::Signet,
            "regtest" => Network::Regtest,
            other => return Err(NodeError::Unclear(format!("its network is {other:?}"))),
        };
        Ok(Identity {
            node_id: info.identity_pubkey,
            network,
        })
    }

    async fn create_invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<CreatedInvoice, NodeError> {
        // Channels between a pool and its workers are not announced: the invoice says which way to come.
        let body = json!({
            "memo": description,
            "value_msat": amount_msat.to_string(),
            "expiry": expiry_s.to_string(),
            "private": true,
        });
        let made: AddedInvoice = self.rest.post("/v1/invoices", &body, TIME_MAX).await?;
        let hash = STANDARD.decode(&made.r_hash).ok();
        let hash = hash.and_then(|bytes| bytes.try_into().ok());
        Ok(CreatedInvoice {
            bolt11: made.payment_request,
            payment_hash: Hash32(
                hash.ok_or_else(|| NodeError::Unclear("r_hash is no hash".into()))?,
            ),
        })
    }

    async fn create_offer(&self, _description: &str) -> Result<Option<CreatedOffer>, NodeError> {
        Ok(None)
    }

    async fn fetch_invoice(
        &self,
        _offer: &str,
        _amount_msat: u64,
    ) -> Result<OfferInvoice, FailureClass> {
        Err(FailureClass::Invalid)
    }

    async fn send(&self, order: &Order) -> Sent {
        let body = json!({
            "payment_request": order.invoice,
            "timeout_seconds": order.retry_for.as_secs(),
            "fee_limit_msat": order.max_fee_msat.to_string(),
            "cltv_limit": order.cltv_max,
            "no_inflight_updates": true,
        });
        let path = "/v2/router/send";
        // The caller gives up earlier than this. Money that is held on the way keeps the stream open for hours.
        let time_max = order.retry_for.saturating_mul(2) + TIME_MAX;
        let ended = |payment: &Payment| payment.status == "SUCCEEDED" || payment.status == "FAILED";
        let sent = self
            .rest
            .find(Method::POST, path, Some(&body), time_max, ended);
        let payment = match sent.await {
            Ok(payment) => payment,
            Err(error) => {
                tracing::info!(%error, "LND did not pay");
                return of_error(&error);
            }
        };
        match verdict(&payment, order.payment_hash) {
            Ok(Found::Paid(paid)) => Sent::Paid(paid),
            Ok(Found::Failed(reason)) => Sent::GaveUp(reason.unwrap_or(FailureClass::Other)),
            Ok(Found::Nothing | Found::Pending) => Sent::Unclear("it goes on".to_owned()),
            Err(error) => Sent::Unclear(error.to_string()),
        }
    }

    async fn look_up(&self, payment_hash: Hash32, _amount_msat: u64) -> Result<Found, NodeError> {
        let path = format!("/v2/router/track/{}", URL_SAFE.encode(payment_hash.0));
        // The first line says how it stands now.
        let tracked = self
            .rest
            .find::<Payment>(Method::GET, &path, None, TIME_MAX, |_| true);
        match tracked.await {
            Ok(payment) => verdict(&payment, payment_hash),
            // The same number is what the gateway says of a path that it does not serve, or not yet.
            Err(NodeError::Refused { code, message })
                if code == NOT_FOUND && message.contains(NOT_INITIATED) =>
            {
                Ok(Found::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    async fn invoice_paid(&self, payment_hash: Hash32) -> Result<bool, NodeError> {
        let path = format!("/v1/invoice/{}", hex::encode(payment_hash.0));
        match self.rest.get::<Invoice>(&path, TIME_MAX).await {
            Ok(invoice) => Ok(invoice.state == "SETTLED"),
            Err(NodeError::Refused {
                code: NOT_FOUND, ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn can_send_msat(&self) -> Result<u64, NodeError> {
        let list = self.open_channels().await?;
        Ok(operator::sum(&list.channels, operator::can_send_msat))
    }

    async fn state(&self) -> Result<NodeState, NodeError> {
        self.node_state().await
    }

    async fn channels(&self) -> Result<Vec<Channel>, NodeError> {
        self.list().await
    }

    async fn back_up(&self) -> Result<NodeBackup, NodeError> {
        self.static_backup().await
    }

    async fn operate(&self, request: Request) -> Result<serde_json::Value, NodeError> {
        self.operate_now(request).await
    }
}

/// What an error of the call that pays says of the payment.
fn of_error(error: &NodeError) -> Sent {
    match error {
        // Nothing has left; the list, which is asked next, has nothing then.
        NodeError::Away(_) => Sent::GaveUp(FailureClass::Other),
        NodeError::Unclear(why) => Sent::Unclear(why.clone()),
        NodeError::Refused { code, message }
            if *code == ALREADY_EXISTS || UNCERTAIN.contains(code) =>
        {
            Sent::Unclear(format!("{code}: {message}"))
        }
        // It did not begin: an invoice that it does not take, or a right that the macaroon lacks.
        NodeError::Refused { .. } => Sent::GaveUp(FailureClass::Other),
    }
}

/// How a payment stands. A word that is not known means that it may be on its way.
fn verdict(payment: &Payment, payment_hash: Hash32) -> Result<Found, NodeError> {
    if payment.payment_hash != payment_hash {
        return Err(NodeError::Unclear(
            "it speaks of another payment".to_owned(),
        ));
    }
    match payment.status.as_str() {
        "SUCCEEDED" => {
            let mut preimage = [0; 32];
            hex::decode_to_slice(&payment.payment_preimage, &mut preimage)
                .map_err(|_| NodeError::Unclear("a payment without its preimage".to_owned()))?;
            Ok(Found::Paid(Paid {
                fee_msat: payment.fee_msat.0,
                preimage: Preimage(preimage),
            }))
        }
        "FAILED" => Ok(Found::Failed(Some(class(&payment.failure_reason)))),
        _ => Ok(Found::Pending),
    }
}

/// LND does not tell a fee limit that is too low from a missing route.
fn class(reason: &str) -> FailureClass {
    match reason {
        "FAILURE_REASON_TIMEOUT" | "FAILURE_REASON_NO_ROUTE" => FailureClass::NoRoute,
        "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS" => FailureClass::RefusedByPayee,
        "FAILURE_REASON_INSUFFICIENT_BALANCE" => FailureClass::NoLiquidity,
        _ => FailureClass::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: Hash32 = Hash32([1; 32]);

    fn payment(status: &str, reason: &str) -> Payment {
        Payment {
            payment_hash: HASH,
            status: status.to_owned(),
            payment_preimage: "02".repeat(32),
            fee_msat: answers::Number(3),
            failure_reason: reason.to_owned(),
        }
    }

    #[test]
    fn an_unknown_word_may_be_on_its_way_and_a_success_needs_a_preimage() {
        for status in ["IN_FLIGHT", "INITIATED", "UNKNOWN", "SETTLING"] {
            assert_eq!(verdict(&payment(status, ""), HASH), Ok(Found::Pending));
        }
        let paid = Paid {
            fee_msat: 3,
            preimage: Preimage([2; 32]),
        };
        let mut succeeded = payment("SUCCEEDED", "");
        assert_eq!(verdict(&succeeded, HASH), Ok(Found::Paid(paid)));
        verdict(&succeeded, Hash32([9; 32])).unwrap_err();
        succeeded.payment_preimage = String::new();
        verdict(&succeeded, HASH).unwrap_err();
    }

    #[test]
    fn lnds_reasons_have_their_classes() {
        let reasons = [
            ("FAILURE_REASON_TIMEOUT", FailureClass::NoRoute),
            ("FAILURE_REASON_NO_ROUTE", FailureClass::NoRoute),
            (
                "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS",
                FailureClass::RefusedByPayee,
            ),
            (
                "FAILURE_REASON_INSUFFICIENT_BALANCE",
                FailureClass::NoLiquidity,
            ),
            ("FAILURE_REASON_ERROR", FailureClass::Other),
            ("FAILURE_REASON_NEW", FailureClass::Other),
        ];
        for (reason, class) in reasons {
            let found = verdict(&payment("FAILED", reason), HASH);
            assert_eq!(found, Ok(Found::Failed(Some(class))), "{reason}");
        }
    }

    #[test]
    fn a_payment_that_lnd_has_already_is_left_to_its_list() {
        for code in [ALREADY_EXISTS, 14] {
            let refused = NodeError::Refused {
                code,
                message: String::new(),
            };
            assert!(matches!(of_error(&refused), Sent::Unclear(_)), "{code}");
        }
    }
}
