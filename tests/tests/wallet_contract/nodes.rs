//! Two LDK nodes on Bitcoin Core, and what only they go through.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dovetail_lightning::{Client, Hash32, OfferPayment, PaymentStatus};
use dovetail_tests::bitcoin_core::{BitcoinCore, CoreParts};
use dovetail_tests::lightning_node::{self, LightningNode, RealParts};
use dovetail_tests::process::output;
use dovetail_tests::scenario::PAYOUT_ADDRESS;
use dovetail_tests::{needed, program, root};
use serde_json::{Value, json};

use crate::contract::{Contract, Pair};
use crate::{AMOUNT_MSAT, QUIET, TIME_MAX};

/// Two LDK nodes with a channel between them.
pub(crate) struct Nodes {
    payer: LightningNode,
    payee: LightningNode,
    clients: [Client; 2],
    _core: BitcoinCore,
}

impl Nodes {
    pub(crate) fn start(dir: &Path) -> Self {
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
        self.kill_payer();
        self.payer.start_again().unwrap();
        // Nobody has told it how the payment ends: it waits, and sends nothing.
        let state = self.payer.ask(&json!({ "method": "node_state" })).unwrap();
        assert_eq!(state["attempts_pending"], 1);
        assert!(!self.clients[0].invoice_paid(payment_hash.0).await.unwrap());
        self.kill_and_thaw();
    }
}

impl Nodes {
    /// As a crash would, while LDK writes nothing: it closes a channel whose node dies between two writes of its state.
    fn kill_payer(&mut self) {
        let store = self.payer.storage().join("ldk_node_data.sqlite");
        let deadline = Instant::now() + TIME_MAX;
        let is_quiet = || {
            let written = std::fs::metadata(&store).unwrap().modified().unwrap();
            written.elapsed().is_ok_and(|since| since > QUIET)
        };
        while !is_quiet() {
            assert!(Instant::now() < deadline, "LDK does not stop writing");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.payer.daemon().kill();
    }

    fn kill_and_thaw(&mut self) {
        self.kill_payer();
        // It finds the dead connection before a new one.
        self.payee.daemon().signal("CONT");
        self.payer.start_again().unwrap();
        lightning_node::wait_for_channel(&self.payer, &self.payee).unwrap();
    }

    /// Kills the payer and leaves a file in its place among the records, as a crash would.
    fn crash_with(&mut self, files: &[(String, String)]) {
        self.kill_payer();
        for (name, text) in files {
            std::fs::write(self.payer.storage().join("attempts").join(name), text).unwrap();
        }
        self.payer.start_again().unwrap();
        lightning_node::wait_for_channel(&self.payer, &self.payee).unwrap();
    }
}

/// A record as it is before LDK hears of the attempt.
fn noted(attempt: Hash32, target: Value) -> String {
    let payment_id = target["payment_hash"].clone();
    json!({
        "attempt": attempt, "number": 1_000, "target": target, "payment_id": payment_id, "state": "noted",
    })
    .to_string()
}

impl Contract<Nodes> {
    pub(crate) async fn a_note_without_a_payment_may_be_sent(&mut self) {
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

    pub(crate) async fn an_offer_is_paid_once_although_its_payer_dies_before_the_payee_answers(
        &mut self,
    ) {
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
        let status = self.status(payment.attempt).await;
        assert!(!matches!(
            status,
            PaymentStatus::Failed { .. } | PaymentStatus::Unknown
        ));
        let again = self.pair.payer().pay_offer(payment.clone()).await.unwrap();
        assert!(!matches!(again, PaymentStatus::Failed { .. }), "{again:?}");
        self.success(payment.attempt).await;
        self.settle_up().await;
    }
}

/// What the command prints, one JSON value a line.
fn operate(nodes: &Nodes, command: &[&str]) -> anyhow::Result<Vec<Value>> {
    let said = output(
        Command::new(program("dovetail-pool"))
            .arg("--config")
            .arg(root().join("config").join("dovetail-pool.toml"))
            .args(["lightning", "--json"])
            .args(command)
            .env("DOVETAIL_POOL__LIGHTNING__SOCKET", nodes.payer.socket()),
    )?;
    let lines = said.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

pub(crate) async fn an_operator_sees_changes_backs_up_and_closes(nodes: &Nodes, dir: &Path) {
    let ask = |command: &[&str]| operate(nodes, command);
    let channels = || ask(&["channels"]).unwrap();
    assert_eq!(channels().len(), 1);
    assert_eq!(channels()[0]["node_id"], nodes.payee.node_id());
    let status = ask(&["status"]).unwrap();
    assert_eq!(status[0]["node_id"], nodes.payer.node_id());
    assert_eq!(status[0]["can_send_msat"], channels()[0]["can_send_msat"]);
    // Those that crashes left without a way to tell.
    assert_eq!(status[0]["attempts_in_review"], 2);

    let channel = channels()[0]["channel"].as_str().unwrap().to_owned();
    let fees = ["--base-msat", "7", "--parts-per-million", "8"];
    ask(&[&["fees", "--channel", &channel], &fees[..]].concat()).unwrap();
    assert_eq!(channels()[0]["base_msat"], 7);
    assert_eq!(channels()[0]["parts_per_million"], 8);
    back_up(nodes, dir);

    ask(&["close", "--channel", "00"]).unwrap_err();
    ask(&["close", "--channel", &channel]).unwrap();
    let deadline = Instant::now() + TIME_MAX;
    while !channels().is_empty() {
        assert!(Instant::now() < deadline, "the channel does not close");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let address = ask(&["address"]).unwrap();
    assert!(address[0]["address"].as_str().unwrap().starts_with("bcrt1"));
    let to = [
        "--node",
        nodes.payee.node_id(),
        "--address",
        nodes.payee.address(),
    ];
    ask(&[&["open", "--amount-sat", "100000"], &to[..]].concat()).unwrap();
    lightning_node::wait_for_channel(&nodes.payer, &nodes.payee).unwrap();
    assert_eq!(channels()[0]["capacity_sat"], 100_000);
}

/// A backup holds the seed and no state of channels, which is dangerous as a copy.
fn back_up(nodes: &Nodes, dir: &Path) {
    let folder = dir.join("backup");
    let command = ["backup", "--folder", folder.to_str().unwrap()];
    let backup = operate(nodes, &command).unwrap();
    assert_eq!(backup[0]["channels"], 1);
    let seed = std::fs::read(nodes.payer.storage().join("keys_seed")).unwrap();
    let copy = folder.join("keys_seed");
    assert_eq!(std::fs::read(&copy).unwrap(), seed);
    let mode = std::fs::metadata(&copy).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let records = std::fs::read_dir(folder.join("attempts")).unwrap().count();
    assert_eq!(backup[0]["attempts"], records);
    let names = std::fs::read_dir(&folder).unwrap();
    let mut names: Vec<_> = names.map(|it| it.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "READ-ME-FIRST.txt",
        "attempts",
        "channels.json",
        "keys_seed",
    ];
    assert_eq!(names, expected);
    operate(nodes, &command).unwrap_err();
}
