//! What every wallet promises about attempts, asked of the simulated wallet and of two LDK nodes on Bitcoin Core. The nodes are
//! killed as well: in the middle of a payment, and where a crash leaves a note and no payment.
//! `cargo xtask test` names the programs in the environment and runs the second part.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, sha256};
use dovetail_lightning::simulator::{self, Fault, SimulatedWallet};
use dovetail_lightning::{
    ATTEMPT_REUSED, Client, ClientError, CreatedInvoice, FailureClass, HASH_IN_FLIGHT, Hash32,
    InvoicePayment, OfferPayment, PaymentStatus, server,
};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::lightning_node::{self, LightningNode, RealParts};
use dovetail_tests::needed;
use dovetail_tests::scenario::PAYOUT_ADDRESS;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// How long a payment may take to end.
const TIME_MAX: Duration = Duration::from_secs(30);
const AMOUNT_MSAT: u64 = 100_000;
const CLTV_MAX: u16 = 432;
/// More than any of the wallets has.
const TOO_MUCH_MSAT: u64 = 1_000_000_000_000;

/// Two wallets that can pay each other, and what of their network a test moves.
trait Pair {
    fn payer(&self) -> &Client;
    fn payee(&self) -> &Client;
    /// From now on the payee takes nothing.
    fn freeze(&mut self);
    /// What is under way arrives; on the way there the payer's process dies, where it has one.
    async fn thaw(&mut self, payment_hash: Hash32);
}

/// Asks whatever the contract says, and counts what must have arrived.
struct Contract<P> {
    pair: P,
    payee_began_with: u64,
    due: u64,
    last_attempt: u8,
}

impl<P: Pair> Contract<P> {
    async fn new(pair: P) -> Self {
        let payee_began_with = pair.payee().balance().await.unwrap();
        Self {
            pair,
            payee_began_with,
            due: 0,
            last_attempt: 0,
        }
    }

    fn attempt(&mut self) -> Hash32 {
        self.last_attempt += 1;
        Hash32([self.last_attempt; 32])
    }

    async fn invoice(&self, amount_msat: u64, expiry_s: u32) -> CreatedInvoice {
        let payee = self.pair.payee();
        let made = payee.create_invoice(amount_msat, "payout", expiry_s).await;
        made.unwrap()
    }

    async fn payment(&mut self) -> InvoicePayment {
        let invoice = self.invoice(AMOUNT_MSAT, 3_600).await;
        self.payment_of(&invoice)
    }

    fn payment_of(&mut self, invoice: &CreatedInvoice) -> InvoicePayment {
        InvoicePayment {
            attempt: self.attempt(),
            payment_hash: invoice.payment_hash,
            bolt11: invoice.bolt11.clone(),
            max_fee_msat: 1_000,
            cltv_max: CLTV_MAX,
        }
    }

    async fn pay(&self, payment: &InvoicePayment) -> Result<PaymentStatus, ClientError> {
        self.pair.payer().pay(payment.clone()).await
    }

    async fn status(&self, attempt: Hash32) -> PaymentStatus {
        self.pair.payer().payment(attempt.0).await.unwrap()
    }

    /// Waits for the end of an attempt.
    async fn end(&self, attempt: Hash32) -> PaymentStatus {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let status = self.status(attempt).await;
            if status != PaymentStatus::Pending {
                return status;
            }
            assert!(Instant::now() < deadline, "the payment does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a success and looks at its proof. Returns the payment hash.
    async fn success(&mut self, attempt: Hash32) -> Hash32 {
        let status = self.end(attempt).await;
        let PaymentStatus::Succeeded {
            preimage,
            payment_hash,
            ..
        } = status
        else {
            panic!("{status:?} is no success");
        };
        assert_eq!(
            sha256::Hash::hash(&preimage.0).to_byte_array(),
            payment_hash.0
        );
        self.due += AMOUNT_MSAT;
        payment_hash
    }

    /// The payee has what was due, and not a msat more.
    async fn settle_up(&self) {
        let deadline = Instant::now() + TIME_MAX;
        loop {
            let has = self.pair.payee().balance().await.unwrap();
            let received = has - self.payee_began_with;
            assert!(received <= self.due, "{received} msat for {} due", self.due);
            if received == self.due {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{received} of {} msat came",
                self.due
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What must hold of every wallet.
    async fn hold(&mut self) {
        self.an_invoice_is_paid_once().await;
        self.a_failed_hash_is_tried_again_under_another_name().await;
        self.an_offer_is_paid_once_per_attempt().await;
        self.what_cannot_be_paid_fails_for_its_reason().await;
        self.what_is_held_is_pending_and_sent_once().await;
    }

    async fn an_invoice_is_paid_once(&mut self) {
        let payment = self.payment().await;
        assert_eq!(self.status(payment.attempt).await, PaymentStatus::Unknown);
        let (one, other) = tokio::join!(self.pay(&payment), self.pay(&payment));
        for status in [one.unwrap(), other.unwrap()] {
            assert!(
                !matches!(status, PaymentStatus::Failed { .. }),
                "{status:?}"
            );
        }
        assert_eq!(self.success(payment.attempt).await, payment.payment_hash);
        let ended = self.status(payment.attempt).await;
        assert_eq!(self.pay(&payment).await.unwrap(), ended);

        let mut again = payment.clone();
        again.attempt = self.attempt();
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        assert_eq!(self.status(again.attempt).await, PaymentStatus::Unknown);
        let mut another = self.payment().await;
        another.attempt = payment.attempt;
        assert_refused(self.pay(&another).await, ATTEMPT_REUSED);
        self.settle_up().await;
    }

    async fn a_failed_hash_is_tried_again_under_another_name(&mut self) {
        let mut payment = self.payment().await;
        payment.cltv_max = 1;
        self.pay(&payment).await.unwrap();
        let no_route = PaymentStatus::failed(FailureClass::NoRoute);
        assert_eq!(self.end(payment.attempt).await, no_route);
        let first = payment.attempt;
        payment.attempt = self.attempt();
        payment.cltv_max = CLTV_MAX;
        self.retry(&payment).await;
        self.success(payment.attempt).await;
        assert_eq!(self.status(first).await, no_route);
        self.settle_up().await;
    }

    /// A node that has just started may ask for some seconds' patience.
    async fn retry(&self, payment: &InvoicePayment) {
        let deadline = Instant::now() + TIME_MAX;
        while let Err(error) = self.pay(payment).await {
            let ClientError::Refused(refusal) = error else {
                panic!("{error}");
            };
            assert_eq!(refusal.code, HASH_IN_FLIGHT);
            assert!(Instant::now() < deadline, "{refusal}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn an_offer_is_paid_once_per_attempt(&mut self) {
        let offer = self
            .pair
            .payee()
            .create_offer("payouts")
            .await
            .unwrap()
            .offer;
        let mut hashes = Vec::new();
        for _ in 0..2 {
            let payment = OfferPayment {
                attempt: self.attempt(),
                offer: offer.clone(),
                amount_msat: AMOUNT_MSAT,
                max_fee_msat: 1_000,
            };
            let payer = self.pair.payer();
            payer.pay_offer(payment.clone()).await.unwrap();
            payer.pay_offer(payment.clone()).await.unwrap();
            hashes.push(self.success(payment.attempt).await);
            let other = OfferPayment {
                amount_msat: AMOUNT_MSAT + 1,
                ..payment
            };
            let reused = self.pair.payer().pay_offer(other).await;
            assert_refused(reused, ATTEMPT_REUSED);
        }
        assert_ne!(hashes[0], hashes[1]);
        self.settle_up().await;
    }

    async fn what_cannot_be_paid_fails_for_its_reason(&mut self) {
        let junk = OfferPayment {
            attempt: self.attempt(),
            offer: "lno1junk".to_owned(),
            amount_msat: AMOUNT_MSAT,
            max_fee_msat: 1_000,
        };
        let status = self.pair.payer().pay_offer(junk.clone()).await.unwrap();
        assert_eq!(status, PaymentStatus::failed(FailureClass::Invalid));
        let again = self.pair.payer().pay_offer(junk).await.unwrap();
        assert_eq!(again, status);

        let invoice = self.invoice(TOO_MUCH_MSAT, 3_600).await;
        let payment = self.payment_of(&invoice);
        self.pay(&payment).await.unwrap();
        let no_liquidity = PaymentStatus::failed(FailureClass::NoLiquidity);
        assert_eq!(self.end(payment.attempt).await, no_liquidity);

        let invoice = self.invoice(AMOUNT_MSAT, 1).await;
        let payment = self.payment_of(&invoice);
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        self.pay(&payment).await.unwrap();
        let expired = PaymentStatus::failed(FailureClass::Expired);
        assert_eq!(self.end(payment.attempt).await, expired);
        self.settle_up().await;
    }

    async fn what_is_held_is_pending_and_sent_once(&mut self) {
        let payment = self.payment().await;
        self.pair.freeze();
        let status = self.pay(&payment).await.unwrap();
        assert_eq!(status, PaymentStatus::Pending);
        let mut again = payment.clone();
        again.attempt = self.attempt();
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        self.pair.thaw(payment.payment_hash).await;
        self.success(payment.attempt).await;
        assert_refused(self.pay(&again).await, HASH_IN_FLIGHT);
        self.settle_up().await;
    }
}

fn assert_refused(answer: Result<PaymentStatus, ClientError>, code: &str) {
    match answer {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, code),
        answer => panic!("{answer:?} where {code} was due"),
    }
}

struct Simulated {
    wallet: SimulatedWallet,
    clients: [Client; 2],
}

impl Simulated {
    fn start(dir: &Path, shutdown: &CancellationToken) -> Self {
        let wallets = simulator::wallets(2, 100 * AMOUNT_MSAT);
        let wallet = wallets[0].clone();
        let clients: Vec<Client> = wallets
            .into_iter()
            .enumerate()
            .map(|(n, wallet)| {
                let path = dir.join(format!("{n}.sock"));
                let listener = server::bind(&path).unwrap();
                tokio::spawn(server::serve(listener, Arc::new(wallet), shutdown.clone()));
                Client::new(path)
            })
            .collect();
        Self {
            wallet,
            clients: clients.try_into().unwrap(),
        }
    }
}

impl Pair for Simulated {
    fn payer(&self) -> &Client {
        &self.clients[0]
    }

    fn payee(&self) -> &Client {
        &self.clients[1]
    }

    fn freeze(&mut self) {
        self.wallet.script([Fault::Hold]);
    }

    async fn thaw(&mut self, payment_hash: Hash32) {
        self.wallet.release(payment_hash.0).unwrap();
    }
}

#[tokio::test]
async fn the_simulated_wallet_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let shutdown = CancellationToken::new();
    let mut contract = Contract::new(Simulated::start(dir.path(), &shutdown)).await;
    contract.hold().await;
    shutdown.cancel();
}

/// Two LDK nodes with a channel between them.
struct Nodes {
    payer: LightningNode,
    payee: LightningNode,
    clients: [Client; 2],
    _core: BitcoinCore,
}

impl Nodes {
    fn start(dir: &Path) -> Self {
        let parts = RealParts {
            core: CoreParts::from_environment().unwrap(),
            lightning_node: needed("DOVETAIL_LIGHTNING_NODE").unwrap(),
        };
        let core = BitcoinCore::start(&parts.core, &dir.join("core"), &dir.join("logs")).unwrap();
        core.mine(1, PAYOUT_ADDRESS).unwrap();
        let sockets = ["payer", "payee"].map(|name| dir.join(format!("{name}.sock")));
        let start = |name, socket: &Path, trusted: &[&str]| {
            LightningNode::start(name, &parts, &core, dir, socket, trusted).unwrap()
        };
        let payer = start("payer", &sockets[0], &[]);
        let payee = start("payee", &sockets[1], &[payer.node_id()]);
        // More than the payee must keep in the channel, so that each msat it is paid shows.
        lightning_node::connect(&core, &payer, &payee, PAYOUT_ADDRESS, 1_000_000_000).unwrap();
        Self {
            payer,
            payee,
            clients: sockets.map(Client::new),
            _core: core,
        }
    }
}

impl Pair for Nodes {
    fn payer(&self) -> &Client {
        &self.clients[0]
    }

    fn payee(&self) -> &Client {
        &self.clients[1]
    }

    fn freeze(&mut self) {
        self.payee.daemon().signal("STOP");
    }

    async fn thaw(&mut self, payment_hash: Hash32) {
        self.payer.daemon().kill();
        self.payer.start_again().unwrap();
        // Nobody has told it how the payment ends: it waits, and sends nothing.
        let state = self.payer.ask(&json!({ "method": "node_state" })).unwrap();
        assert_eq!(state["attempts_pending"], 1);
        assert!(!self.clients[0].invoice_paid(payment_hash.0).await.unwrap());
        self.kill_and_thaw();
    }
}

impl Nodes {
    fn kill_and_thaw(&mut self) {
        self.payer.daemon().kill();
        // It finds the dead connection before a new one.
        self.payee.daemon().signal("CONT");
        self.payer.start_again().unwrap();
        lightning_node::wait_for_channel(&self.payer, &self.payee).unwrap();
    }

    /// Kills the payer and leaves a file in its place among the records, as a crash would.
    fn crash_with(&mut self, files: &[(String, String)]) {
        self.payer.daemon().kill();
        for (name, text) in files {
            std::fs::write(self.payer.storage().join("attempts").join(name), text).unwrap();
        }
        self.payer.start_again().unwrap();
        lightning_node::wait_for_channel(&self.payer, &self.payee).unwrap();
    }
}

/// A record as it is before LDK hears of the attempt.
fn noted(attempt: Hash32, target: serde_json::Value) -> String {
    let payment_id = target["payment_hash"].clone();
    json!({
        "attempt": attempt, "number": 1_000, "target": target, "payment_id": payment_id, "state": "noted",
    })
    .to_string()
}

impl Contract<Nodes> {
    async fn a_note_without_a_payment_may_be_sent(&mut self) {
        let payment = self.payment().await;
        let hash = payment.payment_hash;
        let invoice = noted(
            payment.attempt,
            json!({ "kind": "invoice", "payment_hash": hash }),
        );
        let offer = |attempt| {
            let target =
                json!({ "kind": "offer", "offer": Hash32([1; 32]), "amount_msat": AMOUNT_MSAT });
            noted(attempt, target)
        };
        let [untouched, touched, damaged] = [self.attempt(), self.attempt(), self.attempt()];
        let name = |attempt: Hash32, rest: &str| format!("{}-{rest}", hex::encode(attempt.0));
        self.pair.crash_with(&[
            (
                name(payment.attempt, &format!("{}.json", hex::encode(hash.0))),
                invoice,
            ),
            (name(untouched, "offer.json"), offer(untouched)),
            (name(touched, "offer.json"), offer(touched)),
            (name(touched, "offer.mark"), String::new()),
            (name(damaged, "offer.json"), "{".to_owned()),
        ]);
        assert_eq!(self.status(payment.attempt).await, PaymentStatus::Unknown);
        assert_eq!(self.status(untouched).await, PaymentStatus::Unknown);
        // LDK wrote while the offer was handed over: what it wrote, nobody noted.
        assert_eq!(self.status(touched).await, PaymentStatus::Review);
        assert_eq!(self.status(damaged).await, PaymentStatus::Review);
        let status = self.pay(&payment).await.unwrap();
        assert!(
            !matches!(status, PaymentStatus::Failed { .. }),
            "{status:?}"
        );
        self.success(payment.attempt).await;
        self.settle_up().await;
    }

    async fn an_offer_is_paid_once_although_its_payer_dies_before_the_payee_answers(&mut self) {
        let offer = self
            .pair
            .payee()
            .create_offer("payouts")
            .await
            .unwrap()
            .offer;
        let payment = OfferPayment {
            attempt: self.attempt(),
            offer,
            amount_msat: AMOUNT_MSAT,
            max_fee_msat: 1_000,
        };
        self.pair.freeze();
        let status = self.pair.payer().pay_offer(payment.clone()).await.unwrap();
        assert_eq!(status, PaymentStatus::Pending);
        self.pair.kill_and_thaw();
        // LDK may have forgotten it, and then nothing left: the payer says so, and is asked again.
        let status = self.status(payment.attempt).await;
        assert!(
            !matches!(status, PaymentStatus::Review | PaymentStatus::Failed { .. }),
            "{status:?}"
        );
        self.pair.payer().pay_offer(payment.clone()).await.unwrap();
        self.success(payment.attempt).await;
        self.settle_up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Bitcoin Core and LDK: cargo xtask test"]
async fn two_ldk_nodes_keep_the_contract_and_a_killed_one_pays_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut contract = Contract::new(Nodes::start(dir.path())).await;
    contract.hold().await;
    contract.a_note_without_a_payment_may_be_sent().await;
    contract
        .an_offer_is_paid_once_although_its_payer_dies_before_the_payee_answers()
        .await;
}
