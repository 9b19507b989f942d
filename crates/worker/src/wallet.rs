//! Invoices for payouts, from the worker's own Lightning wallet.

use dovetail_lightning::Client;
use dovetail_sv2::extension::codes::Code;
use dovetail_sv2::extension::{Bytes, INVOICE_BYTES_MAX, Invoice, InvoiceError, RequestInvoice};

/// How long an invoice holds: the pool pays at once, or asks again.
const INVOICE_EXPIRY_S: u32 = 3600;

/// The answer to a pool that wants to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceAnswer {
    /// An invoice.
    Invoice(Invoice),
    /// There is none to give.
    Refused(InvoiceError),
}

/// Makes the invoice of a payout; without a wallet it is refused.
pub async fn invoice(wallet: Option<Client>, request: RequestInvoice) -> InvoiceAnswer {
    let RequestInvoice {
        payout_id,
        amount_msat,
    } = request;
    let refused = |reason: String| {
        tracing::warn!(payout = %hex::encode(payout_id), reason, "no invoice for the pool's payout");
        InvoiceAnswer::Refused(InvoiceError {
            payout_id,
            code: Code::Internal.to_string(),
        })
    };
    let Some(wallet) = wallet else {
        return refused("no wallet is configured".to_owned());
    };
    let made = wallet
        .create_invoice(amount_msat, "dovetail payout", INVOICE_EXPIRY_S)
        .await;
    match made {
        Ok(made) if made.bolt11.len() <= INVOICE_BYTES_MAX => InvoiceAnswer::Invoice(Invoice {
            payout_id,
            bolt11: Bytes(made.bolt11.into_bytes()),
        }),
        Ok(_) => refused("the wallet's invoice is too long".to_owned()),
        Err(error) => refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: RequestInvoice = RequestInvoice {
        payout_id: [1; 32],
        amount_msat: 5_000,
    };

    fn is_refused(answer: &InvoiceAnswer) -> bool {
        matches!(answer, InvoiceAnswer::Refused(error)
            if error.payout_id == [1; 32] && error.code == Code::Internal)
    }

    #[tokio::test]
    async fn without_a_wallet_that_answers_the_payout_gets_a_refusal_and_no_silence() {
        assert!(is_refused(&invoice(None, REQUEST).await));
        let folder = tempfile::tempdir().unwrap();
        let gone = Client::new(folder.path().join("wallet.sock"));
        assert!(is_refused(&invoice(Some(gone), REQUEST).await));
    }
}
