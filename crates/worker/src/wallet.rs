//! The worker's own Lightning wallet: invoices for payouts, and whether they were paid.

mod payouts;

use dovetail_lightning::Client;
use dovetail_sv2::extension::INVOICE_BYTES_MAX;

pub use payouts::{MadeInvoice, PayoutEvent, Payouts};

/// How long an invoice holds: the pool pays at once, or asks again.
const INVOICE_EXPIRY_S: u32 = 3600;

/// An invoice for a payout.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PayoutInvoice {
    bolt11: String,
    payment_hash: [u8; 32],
}

/// Makes the invoice of a payout; the reason if there is none to be had.
async fn make_invoice(wallet: Client, amount_msat: u64) -> Result<PayoutInvoice, String> {
    let made = wallet
        .create_invoice(amount_msat, "dovetail payout", INVOICE_EXPIRY_S)
        .await;
    match made {
        Ok(made) if made.bolt11.len() <= INVOICE_BYTES_MAX => Ok(PayoutInvoice {
            bolt11: made.bolt11,
            payment_hash: made.payment_hash.0,
        }),
        Ok(_) => Err("the wallet's invoice is too long".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
