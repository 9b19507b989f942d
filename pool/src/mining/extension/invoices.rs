//! A worker's answers to the pool's requests for invoices.

use dovetail_sv2::extension::{Invoice, InvoiceError};

use crate::mining::connection::Connection;
use crate::payouts::{InvoiceAnswer, SignedInvoice};

impl Connection {
    pub(in crate::mining) fn on_invoice(&mut self, message: Invoice) {
        let bolt11 = String::from_utf8(message.bolt11.0).ok();
        let signed = bolt11.map(|bolt11| SignedInvoice {
            bolt11,
            signature: message.signature,
        });
        self.answer_invoice(message.payout_id, signed);
    }

    pub(in crate::mining) fn on_invoice_error(&mut self, message: &InvoiceError) {
        self.answer_invoice(message.payout_id, None);
    }

    fn answer_invoice(&self, payout_id: [u8; 32], invoice: Option<SignedInvoice>) {
        let Some(worker) = self.worker() else { return };
        self.shared.invoice_answers.take(InvoiceAnswer {
            payout_id,
            worker,
            invoice,
        });
    }
}
