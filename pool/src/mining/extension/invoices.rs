//! A worker's answers to the pool's requests for invoices.

use dovetail_sv2::extension::{Invoice, InvoiceError};

use crate::mining::connection::Connection;
use crate::payouts::InvoiceAnswer;

impl Connection {
    pub(in crate::mining) fn on_invoice(&mut self, message: Invoice) {
        let bolt11 = String::from_utf8(message.bolt11.0).ok();
        self.answer_invoice(message.payout_id, bolt11);
    }

    pub(in crate::mining) fn on_invoice_error(&mut self, message: &InvoiceError) {
        self.answer_invoice(message.payout_id, None);
    }

    fn answer_invoice(&self, payout_id: [u8; 32], bolt11: Option<String>) {
        let Some(worker) = self.worker() else { return };
        self.shared.invoice_answers.take(InvoiceAnswer {
            payout_id,
            worker,
            bolt11,
        });
    }
}
