//! What tests of payouts stand on: a real Postgres, a simulated Lightning network behind real sockets, and workers that are
//! asked for invoices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_commitment::WorkerKey;
use dovetail_ledger::Ledger;
use dovetail_lightning::server::{self, Wallet};
use dovetail_lightning::simulator::{self, SimulatedWallet};
use dovetail_lightning::{Client, CreatedInvoice};
use dovetail_lnurl::Lnurl;
use dovetail_sv2::extension::sign_invoice;
use dovetail_telemetry::{Event, Sink, Telemetry};
use dovetail_units::Msat;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{InvoiceAnswer, InvoiceAnswers, Pace, PayoutParts, Payouts, SignedInvoice};
use crate::config::LightningConfig;
use crate::mailboxes::{Mailboxes, WorkerCommand};
use crate::test_support::Database;

pub(super) const BALANCE_MSAT: u64 = 1_000_000_000;
/// An hour, as workers' invoices live.
pub(super) const EXPIRY_S: u32 = 3_600;
const TIME_MAX: Duration = Duration::from_secs(20);

/// As in a pool, but nobody waits for long after a failure.
pub(super) fn pace() -> Pace {
    Pace {
        backoff: Duration::from_millis(20),
        ..Pace::of(&LightningConfig::default())
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<String>>>);

impl Sink for Heard {
    fn take(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.to_json());
    }
}

impl Heard {
    pub(super) fn count(&self, event: &str) -> usize {
        let name = format!(r#""event":"{event}""#);
        let heard = self.0.lock().unwrap();
        heard.iter().filter(|line| line.contains(&name)).count()
    }
}

pub(super) struct World {
    pub(super) database: Database,
    pub(super) ledger: Ledger,
    /// The pool's.
    pub(super) wallet: SimulatedWallet,
    /// That of all payees.
    pub(super) payees: SimulatedWallet,
    pub(super) mailboxes: Mailboxes,
    pub(super) answers: InvoiceAnswers,
    pub(super) heard: Heard,
    pub(super) config: LightningConfig,
    pub(super) pace: Pace,
    pub(super) lnurl: Option<Lnurl>,
    socket: std::path::PathBuf,
    shutdown: CancellationToken,
    _dir: tempfile::TempDir,
}

/// A pool's payouts that run.
pub(super) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }

    /// As a crash would.
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("wallet.sock");
        let shutdown = CancellationToken::new();
        let [wallet, payees] = simulator::wallets(2, BALANCE_MSAT).try_into().ok().unwrap();
        let listener = server::bind(&socket).unwrap();
        let served = Arc::new(SimulatedWallet::clone(&wallet));
        tokio::spawn(server::serve(listener, served, shutdown.clone()));
        Self {
            database,
            ledger,
            wallet,
            payees,
            mailboxes: Mailboxes::default(),
            answers: InvoiceAnswers::default(),
            heard: Heard::default(),
            config: LightningConfig {
                interval_ms: 50,
                ..LightningConfig::default()
            },
            pace: pace(),
            lnurl: None,
            socket,
            shutdown,
            _dir: dir,
        }
    }

    pub(super) fn parts(&self) -> PayoutParts {
        PayoutParts {
            ledger: self.ledger.clone(),
            mailboxes: self.mailboxes.clone(),
            answers: self.answers.clone(),
            wallet: Some(Client::new(self.socket.clone())),
            lnurl: self.lnurl.clone(),
            config: self.config.clone(),
            onchain: None,
            pace: self.pace,
            network: Network::Regtest,
            telemetry: Telemetry::none().and(self.heard.clone()),
        }
    }

    pub(super) fn run(&self) -> Running {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Payouts::run(self.parts(), shutdown.clone()));
        Running { shutdown, task }
    }

    pub(super) async fn drop(self) {
        self.shutdown.cancel();
        self.database.drop().await;
    }

    /// What the payees have got.
    pub(super) async fn received(&self) -> u64 {
        self.payees.balance().await.unwrap() - BALANCE_MSAT
    }

    /// Until so much has arrived.
    pub(super) async fn until_received(&self, msat: u64) {
        let done = async || self.received().await >= msat;
        until("what the payees get", done).await;
        assert_eq!(self.received().await, msat);
    }

    pub(super) async fn until_number(&self, sql: &'static str, number: i64) {
        until(sql, async || self.database.number(sql).await == number).await;
    }

    pub(super) async fn balance(&self, payee: &str) -> (i64, i64) {
        let balance = self.ledger.balance(payee).await.unwrap();
        (balance.available.get(), balance.pending.get())
    }

    pub(super) async fn class(&self, payee: &str) -> Option<String> {
        let standing = self.ledger.payee_standing(payee).await.unwrap();
        standing.and_then(|standing| standing.failure_class)
    }

    /// What is booked is what has moved: no account is of another opinion, and whatever a wallet says.
    pub(super) async fn check_books(&self) {
        let posted =
            "SELECT COALESCE(sum(debits_posted - credits_posted), 0)::bigint FROM accounts";
        assert_eq!(self.database.number(posted).await, 0);
        let pending = "SELECT COALESCE(sum(debits_pending), 0)::bigint FROM accounts";
        let reserved = "SELECT COALESCE(sum(amount_msat + fee_max_msat), 0)::bigint FROM payouts WHERE state = 'reserved'";
        let (pending, reserved) = (
            self.database.number(pending).await,
            self.database.number(reserved).await,
        );
        assert_eq!(pending, reserved, "what is set aside");
        let out = "SELECT COALESCE(sum(credits_posted), 0)::bigint FROM accounts WHERE name = 'pool:lightning'";
        let spent = BALANCE_MSAT - self.wallet.balance().await.unwrap();
        let out = u64::try_from(self.database.number(out).await).unwrap();
        assert_eq!(out, spent, "what has left by the ledger, and by the wallet");
    }
}

pub(super) async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < TIME_MAX, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a worker does when it is asked for an invoice.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// Gives one that lives for so many seconds.
    Honest(u32),
    /// Says nothing.
    Silent,
    /// Says that it has none.
    Refuses,
    /// Gives this one each time.
    Repeats(CreatedInvoice),
    /// Gives one with another key's signature.
    Unsigned,
}

/// A worker that is connected until this is dropped.
pub(super) struct Worker {
    pub(super) account: String,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn key_pair() -> Keypair {
    let key = SecretKey::from_slice(&rand::random::<[u8; 32]>()).unwrap();
    Keypair::from_secret_key(SECP256K1, &key)
}

impl World {
    /// A worker that has earned so much and is connected.
    pub(super) async fn worker(&self, msat: i64, manner: Manner) -> Worker {
        let pair = key_pair();
        let worker = WorkerKey::from_bytes(pair.x_only_public_key().0.serialize());
        let account = worker.to_string();
        self.database.credit(&account, msat).await;
        let (mut mailbox, _) = self.mailboxes.open(worker);
        let (wallet, answers) = (self.payees.clone(), self.answers.clone());
        let task = tokio::spawn(async move {
            while let Some(command) = mailbox.next().await {
                if let WorkerCommand::RequestInvoice {
                    payout_id,
                    amount_msat,
                } = command
                {
                    let invoice = match &manner {
                        Manner::Silent => continue,
                        Manner::Refuses => None,
                        Manner::Repeats(invoice) => Some(invoice.clone()),
                        Manner::Honest(expiry_s) => {
                            let made = wallet.create_invoice(amount_msat, "test", *expiry_s);
                            Some(made.await.unwrap())
                        }
                        Manner::Unsigned => {
                            let made = wallet.create_invoice(amount_msat, "test", EXPIRY_S);
                            Some(made.await.unwrap())
                        }
                    };
                    let signer = match manner {
                        Manner::Unsigned => key_pair(),
                        _ => pair,
                    };
                    answers.take(InvoiceAnswer {
                        payout_id,
                        worker,
                        invoice: invoice.map(|invoice| SignedInvoice {
                            signature: sign_invoice(&signer, &payout_id, &invoice.payment_hash.0),
                            bolt11: invoice.bolt11,
                        }),
                    });
                }
            }
        });
        Worker { account, task }
    }

    /// So many workers like this one.
    pub(super) async fn workers(&self, count: usize, msat: i64, manner: Manner) -> Vec<Worker> {
        let mut workers = Vec::with_capacity(count);
        for _ in 0..count {
            workers.push(self.worker(msat, manner.clone()).await);
        }
        workers
    }

    /// An account whose name is an offer of the payees' wallet.
    pub(super) async fn offer(&self, msat: i64) -> String {
        let offer = self.payees.create_offer("test").await.unwrap().offer;
        self.database.credit(&offer, msat).await;
        offer
    }

    /// The payout that is under way for this account, and its last attempt.
    pub(super) async fn open(&self, account: &str) -> dovetail_ledger::PayoutRecord {
        let open = self.ledger.payout_records(Some(account), true, 9).await;
        open.unwrap().remove(0)
    }

    pub(super) fn amount(msat: i64) -> Msat {
        Msat::new(msat)
    }
}
