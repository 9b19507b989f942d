//! LNURL-pay: what the host of an address takes (LUD-16), an invoice from the callback it names (LUD-06), and whether that
//! is the invoice that was asked for.

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::{InvoiceError, ParsedInvoice, parse_invoice};
use dovetail_payee::LightningAddress;
use serde::Deserialize;
use url::Url;

use crate::http::{Http, HttpError};

/// An invoice that may be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedInvoice {
    /// The invoice.
    pub bolt11: String,
    /// What it says.
    pub invoice: ParsedInvoice,
}

/// Why there is no invoice for an address. Nothing of what the host said is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LnurlError {
    /// The host could not be asked.
    #[error("the Lightning address: {0}")]
    Http(#[from] HttpError),
    /// Not what LUD-06 says.
    #[error("the Lightning address: its host gives an answer that is none of LNURL-pay")]
    Answer,
    /// The host says no.
    #[error("the Lightning address: its host refuses")]
    Refused,
    /// Below what the host takes.
    #[error("the Lightning address: its host takes no less than {min_msat} msat at once")]
    TooSmall {
        /// What it takes at least.
        min_msat: u64,
    },
    /// Not the invoice that was asked for.
    #[error("the Lightning address: its host's invoice is not acceptable: {0}")]
    Invoice(#[from] InvoiceError),
    /// For something else.
    #[error(
        "the Lightning address: its host's invoice does not commit to what the host says that it is for"
    )]
    Description,
}

impl LnurlError {
    /// The failure's class, as a payee sees it; `None` if the host was not asked.
    pub fn class(&self) -> Option<&'static str> {
        match self {
            Self::Http(HttpError::Busy) => None,
            Self::Http(_) => Some("address_unreachable"),
            Self::Answer | Self::Refused => Some("no_invoice"),
            Self::TooSmall { .. } => Some("too_small"),
            Self::Invoice(_) | Self::Description => Some("bad_invoice"),
        }
    }
}

/// Both answers, as their hosts write them. An error has a status; what else is there does not count then.
#[derive(Deserialize)]
struct Status {
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PayRequest {
    tag: String,
    callback: String,
    min_sendable: u64,
    max_sendable: u64,
    metadata: String,
}

#[derive(Deserialize)]
struct Payment {
    pr: String,
}

pub(crate) async fn fetch(
    http: &Http,
    address: &LightningAddress,
    amount_msat: u64,
    network: Network,
) -> Result<FetchedInvoice, LnurlError> {
    let url = format!(
        "https://{}/.well-known/lnurlp/{}",
        address.host, address.name
    );
    let url = Url::parse(&url).map_err(|_| LnurlError::Http(HttpError::Url))?;
    let request = pay_request(&http.get(url).await?)?;
    let amount_msat = amount(&request, amount_msat)?;
    let mut callback = Url::parse(&request.callback).map_err(|_| LnurlError::Answer)?;
    callback
        .query_pairs_mut()
        .append_pair("amount", &amount_msat.to_string());
    let payment: Payment = answer(&http.get(callback).await?)?;
    let invoice = parse_invoice(&payment.pr, network, amount_msat)?;
    let metadata = sha256::Hash::hash(request.metadata.as_bytes());
    if invoice.description_hash != Some(metadata.to_byte_array()) {
        return Err(LnurlError::Description);
    }
    Ok(FetchedInvoice {
        bolt11: payment.pr,
        invoice,
    })
}

fn answer<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, LnurlError> {
    let status: Status = serde_json::from_slice(bytes).map_err(|_| LnurlError::Answer)?;
    if status.status.is_some_and(|status| status == "ERROR") {
        return Err(LnurlError::Refused);
    }
    serde_json::from_slice(bytes).map_err(|_| LnurlError::Answer)
}

fn pay_request(bytes: &[u8]) -> Result<PayRequest, LnurlError> {
    let request: PayRequest = answer(bytes)?;
    // Pairs of a type and its content; a text that says what is paid for has to be among them.
    let metadata: Vec<(String, serde_json::Value)> =
        serde_json::from_str(&request.metadata).map_err(|_| LnurlError::Answer)?;
    let has_text = metadata.iter().any(|(kind, _)| kind == "text/plain");
    let is_in_order = request.min_sendable <= request.max_sendable;
    match request.tag == "payRequest" && has_text && is_in_order {
        true => Ok(request),
        false => Err(LnurlError::Answer),
    }
}

/// What is asked for: no more than the host takes at once, in whole satoshi.
fn amount(request: &PayRequest, wanted_msat: u64) -> Result<u64, LnurlError> {
    let amount = wanted_msat.min(request.max_sendable / 1_000 * 1_000);
    match amount >= request.min_sendable.max(1) {
        true => Ok(amount),
        false => Err(LnurlError::TooSmall {
            min_msat: request.min_sendable,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(min: u64, max: u64) -> String {
        format!(
            r#"{{"tag":"payRequest","callback":"https://a.example/b?c=d","minSendable":{min},"maxSendable":{max},
                "metadata":"[[\"text/plain\",\"x\"]]","commentAllowed":9}}"#
        )
    }

    #[test]
    fn amounts_are_what_a_host_takes_in_whole_satoshi() {
        let asked = |min, max| {
            let request = pay_request(request(min, max).as_bytes()).unwrap();
            amount(&request, 10_000)
        };
        assert_eq!(asked(1, 20_000), Ok(10_000));
        assert_eq!(asked(1, 5_999), Ok(5_000));
        assert_eq!(
            asked(10_001, 20_000),
            Err(LnurlError::TooSmall { min_msat: 10_001 })
        );
        assert_eq!(
            asked(5_500, 5_999),
            Err(LnurlError::TooSmall { min_msat: 5_500 })
        );
        assert_eq!(asked(0, 999), Err(LnurlError::TooSmall { min_msat: 0 }));
    }

    #[test]
    fn answers_that_are_none_are_told_from_refusals() {
        let parse = |text: &str| pay_request(text.as_bytes()).map(|_| ());
        assert_eq!(parse(&request(1, 2)), Ok(()));
        assert_eq!(
            parse(r#"{"status":"ERROR","reason":"x"}"#),
            Err(LnurlError::Refused)
        );
        let good = request(1, 2);
        for bad in [
            String::new(),
            "[]".to_owned(),
            request(2, 1),
            good.replace("payRequest", "withdrawRequest"),
            good.replace("text/plain", "text/other"),
            good.replace(r#"[[\"text/plain\",\"x\"]]"#, "text"),
            good.replace("\"minSendable\":1", "\"minSendable\":-1"),
            format!("{{\"a\":{}", "[".repeat(10_000)),
        ] {
            assert_eq!(parse(&bad), Err(LnurlError::Answer), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn junk_is_no_answer_and_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(pay_request(&bytes).is_err());
        }
    }
}
