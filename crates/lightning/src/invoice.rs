//! Checking an invoice before money is set aside for it.

use std::str::FromStr;

use bitcoin::Network;
use bitcoin::hashes::Hash;
use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef};

/// The longest invoice that is looked at.
const INVOICE_BYTES_MAX: usize = 4_096;

/// Why an invoice is not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// Not a signed BOLT 11 invoice.
    #[error("it is not a BOLT 11 invoice")]
    Malformed,
    /// For another network.
    #[error("it is for another network")]
    Network,
    /// For another amount, or for any.
    #[error("it is for another amount")]
    Amount,
    /// Too late.
    #[error("it has expired")]
    Expired,
}

/// What an acceptable invoice says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedInvoice {
    /// Its payment hash.
    pub payment_hash: [u8; 32],
    /// Its amount.
    pub amount_msat: u64,
    /// When it expires, in seconds of Unix time.
    pub expires_at_unix: u64,
    /// For how many blocks its payee may hold the money.
    pub min_final_cltv: u64,
    /// The hash of what it is for, where it carries that instead of a text.
    pub description_hash: Option<[u8; 32]>,
}

/// Parses `bolt11` and checks its signature, network, amount and expiry.
///
/// # Errors
/// The first [`InvoiceError`].
pub fn parse_invoice(
    bolt11: &str,
    network: Network,
    amount_msat: u64,
) -> Result<ParsedInvoice, InvoiceError> {
    if bolt11.len() > INVOICE_BYTES_MAX {
        return Err(InvoiceError::Malformed);
    }
    let invoice = Bolt11Invoice::from_str(bolt11).map_err(|_| InvoiceError::Malformed)?;
    if invoice.network() != network {
        return Err(InvoiceError::Network);
    }
    if invoice.amount_milli_satoshis() != Some(amount_msat) {
        return Err(InvoiceError::Amount);
    }
    if invoice.is_expired() {
        return Err(InvoiceError::Expired);
    }
    // An invoice whose expiry is past all time was not made to be paid.
    let expires_at = invoice.expires_at().ok_or(InvoiceError::Malformed)?;
    Ok(ParsedInvoice {
        payment_hash: invoice.payment_hash().to_byte_array(),
        amount_msat,
        expires_at_unix: expires_at.as_secs(),
        min_final_cltv: invoice.min_final_cltv_expiry_delta(),
        description_hash: match invoice.description() {
            Bolt11InvoiceDescriptionRef::Hash(hash) => Some(hash.0.to_byte_array()),
            Bolt11InvoiceDescriptionRef::Direct(_) => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn junk_is_refused_without_panic(text in "(lnbcrt[0-9]{0,6}[munp]?1)?[a-z0-9]{0,300}") {
            prop_assert!(parse_invoice(&text, Network::Regtest, 1).is_err());
        }
    }
}
