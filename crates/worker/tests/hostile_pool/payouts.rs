//! What was paid is what the worker's own wallet got, and a pool's questions cost the wallet little.

use std::sync::Arc;

use dovetail_lightning::server::{self, Wallet};
use dovetail_lightning::simulator::{SimulatedWallet, wallets};
use dovetail_lightning::{Hash32, InvoicePayment, PaymentStatus, parse_invoice};
use dovetail_sv2::extension::{Invoice, InvoiceError, PayoutResult, RequestInvoice};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::status;
use crate::support::fixture::BLOCKS_NEVER;
use crate::support::pool::{next, settled};
use crate::support::{Fixture, Played, Setup};

/// A worker with a wallet, and the wallet of its pool.
struct Payday {
    fixture: Fixture,
    pool: Played,
    pools_wallet: SimulatedWallet,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

impl Payday {
    async fn start(wallet_lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("wallet.sock");
        let mut wallets = wallets(2, 1_000_000);
        let own = Arc::new(wallets.pop().unwrap());
        let stop = CancellationToken::new();
        let listener = server::bind(&socket).unwrap();
        tokio::spawn(server::serve(listener, own, stop.clone()));
        let setup = Setup {
            more: format!("[wallet]\nsocket = {socket:?}\n{wallet_lines}"),
            ..Setup::alone(BLOCKS_NEVER)
        };
        let fixture = Fixture::start(setup).await;
        let pool = fixture.session().await;
        Self {
            fixture,
            pool,
            pools_wallet: wallets.pop().unwrap(),
            _folder: folder,
            _stop: stop.drop_guard(),
        }
    }

    async fn ask(&mut self, number: u8, amount_msat: u64) {
        let payout_id = [number; 32];
        let request = RequestInvoice {
            payout_id,
            amount_msat,
        };
        self.pool.send(&request).await;
    }

    /// The invoice of this payout.
    async fn invoice(&mut self, number: u8, amount_msat: u64) -> String {
        self.ask(number, amount_msat).await;
        let invoice: Invoice = next(&mut self.pool).await;
        assert_eq!(invoice.payout_id, [number; 32]);
        assert_ne!(invoice.signature, [0; 64]);
        String::from_utf8(invoice.bolt11.0).unwrap()
    }

    /// The worker refuses to make one.
    async fn refused(&mut self, number: u8, amount_msat: u64) {
        self.ask(number, amount_msat).await;
        let refused: InvoiceError = next(&mut self.pool).await;
        assert_eq!(refused.payout_id, [number; 32]);
    }

    /// The pool's wallet pays the invoice.
    async fn pay(&self, bolt11: &str, amount_msat: u64) {
        let network = bitcoin::Network::Regtest;
        let invoice = parse_invoice(bolt11, network, amount_msat).unwrap();
        let payment = InvoicePayment {
            attempt: Hash32(invoice.payment_hash),
            payment_hash: Hash32(invoice.payment_hash),
            bolt11: bolt11.to_owned(),
            max_fee_msat: 0,
            cltv_max: 432,
        };
        let paid = self.pools_wallet.pay(payment).await.unwrap();
        assert!(matches!(paid, PaymentStatus::Succeeded { .. }), "{paid:?}");
    }

    async fn tell(&mut self, number: u8, paid: bool) {
        let payout_id = [number; 32];
        self.pool.send(&PayoutResult { payout_id, paid }).await;
    }

    /// What the page says was paid, once it is this.
    async fn paid(&self, msat: u64) {
        status(&self.fixture, |page| page["earned"]["paid_msat"] == msat).await;
    }
}

#[tokio::test]
async fn what_was_paid_is_what_the_own_wallet_got_whatever_the_pool_says() {
    let mut payday = Payday::start("").await;
    let never_paid = payday.invoice(1, 5_000).await;
    payday.tell(1, true).await;
    // Two under way at once are both counted, in whatever order they end.
    let (first, second) = (
        payday.invoice(2, 7_000).await,
        payday.invoice(3, 11_000).await,
    );
    payday.pay(&second, 11_000).await;
    payday.tell(3, true).await;
    payday.paid(11_000).await;
    payday.pay(&first, 7_000).await;
    payday.tell(2, true).await;
    payday.paid(18_000).await;
    // Each is counted once, and one that nobody asked for is not.
    for number in [2, 3, 9] {
        payday.tell(number, true).await;
    }
    settled(&mut payday.pool).await;
    // The first counts when it comes in after all, though the pool calls it failed.
    payday.pay(&never_paid, 5_000).await;
    payday.tell(1, false).await;
    payday.paid(23_000).await;
    payday.fixture.stop().await;
}

#[tokio::test]
async fn a_payout_has_one_invoice_on_whatever_session_and_however_often_it_is_asked_for() {
    let mut payday = Payday::start("").await;
    let invoice = payday.invoice(1, 5_000).await;
    assert_eq!(payday.invoice(1, 5_000).await, invoice);
    // Another amount is another payout, and this id has one.
    payday.refused(1, 6_000).await;
    drop(payday.pool);
    payday.pool = payday.fixture.session().await;
    assert_eq!(payday.invoice(1, 5_000).await, invoice);
    payday.pay(&invoice, 5_000).await;
    payday.tell(1, true).await;
    payday.paid(5_000).await;
    payday.fixture.stop().await;
}

#[tokio::test]
async fn amounts_out_of_the_configured_range_get_no_invoice() {
    let mut payday = Payday::start("payout_min_msat = 2000\npayout_max_msat = 9000\n").await;
    payday.refused(1, 1_999).await;
    payday.refused(2, 9_001).await;
    payday.refused(3, u64::MAX).await;
    payday.invoice(4, 2_000).await;
    payday.invoice(5, 9_000).await;
    payday.fixture.stop().await;
}

#[tokio::test]
async fn a_minute_has_a_dozen_invoices_and_no_more() {
    let mut payday = Payday::start("").await;
    for number in 0..12 {
        payday.invoice(number, 5_000).await;
    }
    payday.refused(12, 5_000).await;
    // One that was made already costs nothing.
    payday.invoice(3, 5_000).await;
    payday.fixture.stop().await;
}
