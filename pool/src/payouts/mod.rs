//! Paying workers: over Lightning here, and on the chain in `onchain`. The ledger is written before every step that cannot be taken back: a payout is reserved
//! with its fee, and its attempt noted, before the wallet hears of it. What is uncertain stays open and is looked at again.
//!
//! Nobody waits for another payee: whoever is asked for an invoice, holds a payment or is refused by the wallet keeps no
//! place that others need. `decide` has what follows from a wallet's answer; it is the only place that knows.

mod attempts;
mod choose;
pub(crate) mod command;
mod decide;
#[cfg(test)]
mod decide_tests;
pub(crate) mod destination;
#[cfg(test)]
mod faults;
mod invoices;
#[cfg(test)]
mod lightning_addresses;
pub(crate) mod onchain;
mod pace;
pub(crate) mod stated;
#[cfg(test)]
mod tests;
mod told;
#[cfg(test)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use dovetail_ledger::{Attempt, Ledger, LedgerError};
use dovetail_lightning::Client;
use dovetail_lnurl::{Lnurl, LnurlError};
use dovetail_telemetry::Telemetry;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{LightningConfig, OnchainConfig};
use crate::mailboxes::Mailboxes;

pub(crate) use invoices::{InvoiceAnswer, InvoiceAnswers, SignedInvoice};
pub(crate) use pace::Pace;

/// How many payouts are handed to the ledger and the wallet at once. Each takes as long as the wallet needs to answer,
/// not to pay.
const PAYING_MAX: usize = 32;
/// How many attempts the wallet is asked about at once.
const CHECKS_MAX: usize = 32;
/// How many workers may be asked for an invoice at once: each waits in memory only, and one that gives none must not keep
/// others from being asked.
const ASKED_MAX: usize = 1_024;
/// How many hosts of Lightning addresses may be waited for at once: two rounds' payees.
const HOSTS_ASKED_MAX: usize = 2 * ROUND_MAX;
/// How many payees one round chooses.
const ROUND_MAX: usize = 256;
/// How long what is under way may take when the pool stops. All of it can be cut off anywhere.
const STOPPING_TIME_MAX: Duration = Duration::from_secs(5);

/// What the payouts stand on.
pub(crate) struct PayoutParts {
    pub(crate) ledger: Ledger,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) answers: InvoiceAnswers,
    /// None: nobody is paid over Lightning.
    pub(crate) wallet: Option<Client>,
    /// What asks the hosts of Lightning addresses, if they are paid.
    pub(crate) lnurl: Option<Lnurl>,
    pub(crate) config: LightningConfig,
    /// None: nobody is paid on the chain.
    pub(crate) onchain: Option<OnchainConfig>,
    pub(crate) pace: Pace,
    pub(crate) network: Network,
    pub(crate) telemetry: Telemetry,
}

/// The payout service; clones are the same one.
#[derive(Clone)]
pub(crate) struct Payouts {
    parts: Arc<PayoutParts>,
    /// What the wallet calls itself.
    rail: Arc<str>,
    paying: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    hosts_asked: Arc<Semaphore>,
}

/// One thing to do, for one payee. None waits for another.
enum Job {
    /// Ask the wallet what became of an attempt.
    Check(Box<Attempt>),
    /// The last attempt of a payout has failed, and the payee's time has come: try again, or give it up.
    Retry(Box<Attempt>),
    /// Pay a payee that has enough.
    New(dovetail_ledger::DuePayee),
}

impl Payouts {
    fn new(parts: PayoutParts, rail: &str) -> Self {
        Self {
            parts: Arc::new(parts),
            rail: Arc::from(rail),
            paying: Arc::new(Semaphore::new(PAYING_MAX)),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            asked: Arc::new(Semaphore::new(ASKED_MAX)),
            hosts_asked: Arc::new(Semaphore::new(HOSTS_ASKED_MAX)),
        }
    }

    /// Looks at what was open when the pool last stopped, then pays until `shutdown`.
    pub(crate) async fn run(parts: PayoutParts, shutdown: CancellationToken) {
        let starting = shutdown.run_until_cancelled(Self::start(parts));
        let Some(payouts) = starting.await else {
            return;
        };
        let mut ticks = interval(Duration::from_millis(
            payouts.parts.config.interval_ms.max(50),
        ));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tasks = JoinSet::new();
        let paying = async {
            loop {
                ticks.tick().await;
                for job in payouts.due().await {
                    let payouts = payouts.clone();
                    tasks.spawn(async move { payouts.work(job).await });
                }
                while let Some(ended) = tasks.try_join_next() {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a payout's task did not end");
                    }
                }
            }
        };
        shutdown.run_until_cancelled(paying).await;
        let ended = async { while tasks.join_next().await.is_some() {} };
        // Who is still waited for is looked at when the pool starts again.
        let _ = timeout(STOPPING_TIME_MAX, ended).await;
    }

    async fn start(parts: PayoutParts) -> Self {
        const PAUSE: Duration = Duration::from_secs(1);
        let rail = loop {
            let Some(wallet) = &parts.wallet else {
                break String::new();
            };
            match wallet.get_info().await {
                Ok(info) => break info.rail,
                Err(error) => tracing::warn!(%error, "the wallet does not answer yet"),
            }
            tokio::time::sleep(PAUSE).await;
        };
        while let Err(error) = parts.ledger.recheck_open_attempts().await {
            tracing::warn!(%error, "cannot look at the payouts that are open");
            tokio::time::sleep(PAUSE).await;
        }
        Self::new(parts, &rail)
    }

    /// What is to be done now, claimed for this process. What one part of the ledger cannot say keeps nothing else up.
    async fn due(&self) -> Vec<Job> {
        let (ledger, lease) = (&self.parts.ledger, self.parts.pace.lease);
        let mut jobs = Vec::new();
        if self.parts.wallet.is_some() {
            match ledger.claim_checks(free(&self.checks), lease).await {
                Ok(due) => {
                    jobs.extend(due.into_iter().map(|attempt| Job::Check(Box::new(attempt))));
                }
                Err(error) => tracing::warn!(%error, "cannot choose payments to look at"),
            }
        }
        match ledger.claim_retries(free(&self.paying), lease).await {
            Ok(due) => jobs.extend(due.into_iter().map(|attempt| Job::Retry(Box::new(attempt)))),
            Err(error) => tracing::warn!(%error, "cannot choose payouts to try again"),
        }
        match self.due_payees(free(&self.asked)).await {
            Ok(due) => jobs.extend(due.into_iter().map(Job::New)),
            Err(error) => tracing::warn!(%error, "cannot choose payees"),
        }
        jobs
    }

    /// Does it. What fails is for this payee only, and has been put off.
    async fn work(&self, job: Job) {
        let (what, done) = match job {
            Job::Check(attempt) => {
                let _place = self.checks.acquire().await;
                let payee = attempt.payee.clone();
                (payee, self.check(*attempt).await)
            }
            Job::Retry(attempt) => {
                let _place = self.paying.acquire().await;
                let payee = attempt.payee.clone();
                (payee, self.retry(*attempt).await)
            }
            Job::New(due) => {
                let payee = due.payee.clone();
                (payee, self.pay(due).await)
            }
        };
        if let Err(error) = done {
            tracing::warn!(
                payee = what,
                %error,
                "a payout was stopped; its money is reserved, or back on the balance"
            );
        }
    }
}

impl Payouts {
    fn wallet(&self) -> Result<&Client, PayoutError> {
        self.parts.wallet.as_ref().ok_or(PayoutError::NoWallet)
    }
}

/// How many more there is room for.
fn free(places: &Semaphore) -> u32 {
    let free = places.available_permits().min(ROUND_MAX);
    u32::try_from(free).unwrap_or(u32::MAX)
}

/// Why a payout did not go on. None of these loses money: it is reserved or back on the balance.
#[derive(Debug, thiserror::Error)]
enum PayoutError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("the wallet: {0}")]
    Wallet(#[from] dovetail_lightning::ClientError),
    #[error(transparent)]
    Invoice(#[from] invoices::NoInvoice),
    #[error(transparent)]
    LightningAddress(#[from] LnurlError),
    #[error("an amount is out of range")]
    Amount,
    #[error("its balance does not pay for the fee")]
    TooSmall,
    #[error("the payee cannot be paid: nothing says where to, or this pool does not pay there")]
    NoDestination,
    #[error("the payee's address: {0}")]
    Address(onchain::AddressRefusal),
    #[error("no Lightning wallet is configured")]
    NoWallet,
}
