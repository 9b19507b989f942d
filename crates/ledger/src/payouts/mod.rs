//! Payouts: reserved -> paid | failed, and failed -> paid for a success that comes late. Money is set aside, with its fee,
//! in the transaction that prepares the first attempt to pay; the wallet hears of an attempt only then. A payment hash
//! belongs to one payout, ever; only a proven failure gives the money back.
//!
//! `docs/ledger.md` has the states; `attempts` has the steps of an attempt, `success` what one costs whom, `queue` whose
//! turn it is, `destinations` where payees want to be paid, `onchain` what is paid by transactions.

mod attempts;
mod destinations;
mod queue;
mod records;
mod success;

use std::time::Duration;

use dovetail_units::Msat;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::tasks::array;
use crate::transfers::{self, Phase, Transfer, TransferId, transfer, worker_account};
use crate::{Ledger, LedgerError};

pub use destinations::{DestinationRecord, Destinations, StatementRefusal};
pub use queue::{DuePayee, PayeeQuery, TRIES_BEFORE_ONCHAIN};
pub use records::{AttemptRecord, PayeeStanding, PayoutRecord};
pub use success::{Proof, Success};

/// Declares an enum whose variants have names in the database.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// As the database and people know it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub(crate) fn parse(text: &str) -> Result<Self, LedgerError> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(LedgerError::Corrupt($what)),
                }
            }
        }
    };
}

/// Joins what the accounts of this table have stated of where they are paid: `d` is the statement that is in force.
macro_rules! in_force {
    ($accounts:literal) => {
        concat!(
            "LEFT JOIN payees e ON e.payee = substr(",
            $accounts,
            ".name, 8)
             LEFT JOIN destinations n ON n.id = e.destination
             LEFT JOIN destinations d ON d.id = CASE WHEN n.active_from <= now() THEN n.id ELSE n.replaces END"
        )
    };
}
pub(crate) use in_force;

// Behind the macro that it uses.
pub(crate) mod onchain;

named! {
    /// Where a payout stands.
    PayoutState, "payout" {
        /// The money is set aside, and is being paid.
        Reserved = "reserved",
        /// The payee has the money.
        Paid = "paid",
        /// The payee has its balance back.
        Failed = "failed",
    }
}

named! {
    /// Where an attempt stands.
    AttemptState, "attempt" {
        /// The wallet may have heard of it.
        Prepared = "prepared",
        /// The wallet has said that it is under way.
        Dispatched = "dispatched",
        /// The payee has the money: there is a proof.
        Succeeded = "succeeded",
        /// The wallet has proven that nothing was paid. It was wrong before.
        Failed = "failed",
        /// What became of it cannot be known. A person has to decide.
        Review = "review",
    }
}

impl AttemptState {
    /// Whether it may still be under way: a payout has one such attempt at most.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Prepared | Self::Dispatched | Self::Review)
    }
}

named! {
    /// How an attempt pays.
    Rail, "rail" {
        /// An invoice that the payee has signed.
        Bolt11 = "bolt11",
        /// An offer of the payee's: a new invoice each time.
        Bolt12 = "bolt12",
        /// An output of a transaction, to the payee's address.
        Onchain = "onchain",
    }
}

impl Rail {
    /// The account of what has left this way.
    fn account(self) -> &'static str {
        match self {
            Self::Bolt11 | Self::Bolt12 => transfers::POOL_LIGHTNING,
            Self::Onchain => transfers::POOL_ONCHAIN,
        }
    }

    /// The pool's account of what that cost.
    fn fees(self) -> &'static str {
        match self {
            Self::Bolt11 | Self::Bolt12 => transfers::POOL_LIGHTNING_FEES,
            Self::Onchain => transfers::POOL_ONCHAIN_FEES,
        }
    }
}

named! {
    /// Who bears what a route costs.
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    FeesBorneBy, "payout" {
        /// The pool.
        Pool = "pool",
        /// The payee: its balance falls by amount and fee.
        Payee = "payee",
    }
}

/// An attempt that the wallet has not heard of.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAttempt {
    /// Its name, drawn by the pool.
    pub id: [u8; 32],
    /// How it pays.
    pub rail: Rail,
    /// The invoice, the offer or the address.
    pub destination: String,
    /// The invoice's.
    pub payment_hash: Option<[u8; 32]>,
    /// What its route may cost.
    pub fee_max: Msat,
    /// For how many blocks the money may be held on its way.
    pub cltv_max: u16,
    /// When the invoice ends, or until when an offer or an address may be tried.
    pub expires_at_unix: u64,
}

/// A payout with its first attempt.
#[derive(Clone, PartialEq, Eq)]
pub struct NewPayout {
    /// Its name, as the payee is told it.
    pub id: [u8; 32],
    /// Whose balance it is.
    pub payee: String,
    /// What the payee gets.
    pub amount: Msat,
    /// Who bears the fee.
    pub fees_borne_by: FeesBorneBy,
    /// The first attempt.
    pub attempt: NewAttempt,
}

/// An attempt and its payout, as they stood when they were read.
#[derive(Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its name: what the wallet is asked about.
    pub id: [u8; 32],
    /// Its payout.
    pub payout: [u8; 32],
    /// Who is paid.
    pub payee: String,
    /// What the payee gets.
    pub amount: Msat,
    /// Where the payout stands.
    pub payout_state: PayoutState,
    /// How it pays.
    pub rail: Rail,
    /// The invoice or the offer.
    pub destination: String,
    /// The invoice's, or what the proof of an offer has shown.
    pub payment_hash: Option<[u8; 32]>,
    /// What its route may cost.
    pub fee_max: Msat,
    /// For how many blocks the money may be held on its way.
    pub cltv_max: u16,
    /// When the invoice ends, or until when an offer may be tried.
    pub expires_at_unix: u64,
    /// Where it stands.
    pub state: AttemptState,
    /// Why it failed, or cannot be decided.
    pub failure_class: Option<String>,
    /// How long it has been open, or has ended.
    pub age: Duration,
}

/// What [`attempt_of`] reads, of `attempts a` and `payouts p`.
const ATTEMPT: &str = "a.id, a.payout, p.worker, p.amount_msat, p.state AS payout_state, a.rail, a.destination,
    a.payment_hash, a.fee_max_msat, a.cltv_max, extract(epoch FROM a.expires_at)::bigint AS expires_at, a.state, a.failure_class,
    GREATEST(extract(epoch FROM now() - COALESCE(a.ended_at, a.created_at)), 0)::double precision AS age_s";

fn attempt_of(row: &PgRow) -> Result<Attempt, LedgerError> {
    let payment_hash: Option<Vec<u8>> = row.try_get("payment_hash")?;
    let unsigned = |name: &str| -> Result<u64, LedgerError> {
        u64::try_from(row.try_get::<i64, _>(name)?).map_err(|_| LedgerError::Corrupt("attempt"))
    };
    Ok(Attempt {
        id: array(row.try_get("id")?)?,
        payout: array(row.try_get("payout")?)?,
        payee: row.try_get("worker")?,
        amount: Msat::new(row.try_get("amount_msat")?),
        payout_state: PayoutState::parse(row.try_get("payout_state")?)?,
        rail: Rail::parse(row.try_get("rail")?)?,
        destination: row.try_get("destination")?,
        payment_hash: payment_hash.map(array).transpose()?,
        fee_max: Msat::new(row.try_get("fee_max_msat")?),
        cltv_max: u16::try_from(row.try_get::<i32, _>("cltv_max")?)
            .map_err(|_| LedgerError::Corrupt("attempt"))?,
        expires_at_unix: unsigned("expires_at")?,
        state: AttemptState::parse(row.try_get("state")?)?,
        failure_class: row.try_get("failure_class")?,
        age: Duration::from_secs_f64(row.try_get("age_s")?),
    })
}

impl Ledger {
    /// Sets the amount and the fee's limit aside, and notes the payout with its first attempt. The wallet may hear of the
    /// attempt once this has returned; if it never does, the attempt is looked at in `check_in`.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if the payee has not enough or a payout under way, [`LedgerError::Conflict`] if the payment
    /// hash or a name was used before.
    pub async fn begin_payout(
        &self,
        payout: &NewPayout,
        check_in: Duration,
    ) -> Result<(), LedgerError> {
        if payout.amount <= Msat::ZERO {
            return Err(LedgerError::Refused("a payout is of a positive amount"));
        }
        if payout.attempt.fee_max < Msat::ZERO {
            return Err(LedgerError::Refused("a fee is not negative"));
        }
        let mut transaction = self.begin().await?;
        // One payout of a payee begins at a time, whoever selects it.
        lock_payee(&mut transaction, &payout.payee).await?;
        let is_open: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM payouts WHERE worker = $1 AND state = 'reserved')",
        )
        .bind(&payout.payee)
        .fetch_one(&mut *transaction)
        .await?;
        if is_open {
            return Err(LedgerError::Refused("the payee has a payout under way"));
        }
        let fee_max = payout.attempt.fee_max;
        let money = Money::new(
            payout.id,
            &payout.payee,
            payout.amount,
            fee_max,
            payout.fees_borne_by,
            payout.attempt.rail,
        );
        for part in money.parts() {
            let pending = Transfer {
                phase: Phase::Pending,
                ..part
            };
            transfer(&mut transaction, &pending).await?;
        }
        sqlx::query(
            "INSERT INTO payouts (id, worker, amount_msat, state, payment_hash, fee_max_msat, transfer, fees_borne_by)
             VALUES ($1, $2, $3, 'reserved', $4, $5, $6, $7)",
        )
        .bind(payout.id.to_vec())
        .bind(&payout.payee)
        .bind(payout.amount.get())
        .bind(payout.attempt.payment_hash.map(|hash| hash.to_vec()))
        .bind(fee_max.get())
        .bind(money.amount_id().to_vec())
        .bind(payout.fees_borne_by.name())
        .execute(&mut *transaction)
        .await
        .map_err(used_before)?;
        attempts::insert(&mut transaction, payout.id, 1, &payout.attempt, check_in).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Gives a payout up and the money back. Only once each of its attempts is proven failed.
    ///
    /// # Errors
    /// [`LedgerError::Refused`] if it has ended, or an attempt of it has not failed.
    pub async fn give_payout_up(
        &self,
        payout: [u8; 32],
        failure_class: &str,
    ) -> Result<(), LedgerError> {
        let mut transaction = self.begin().await?;
        let money = Money::lock(&mut transaction, payout).await?;
        if money.state != PayoutState::Reserved {
            return Err(LedgerError::Refused("the payout has ended"));
        }
        for part in money.parts() {
            let purpose = format!("{} void", part.reason);
            let void = Transfer {
                id: TransferId::of(&purpose, &payout),
                phase: Phase::Void(part.id),
                ..part
            };
            transfer(&mut transaction, &void).await?;
        }
        sqlx::query("UPDATE payouts SET state = 'failed', failure_class = $2 WHERE id = $1")
            .bind(payout.to_vec())
            .bind(failure_class)
            .execute(&mut *transaction)
            .await
            .map_err(|error| not_a_step(error, "an attempt of the payout has not failed"))?;
        // What the wallet learns late it says of the newest attempt that it has heard of, and that need not be ours.
        sqlx::query("UPDATE attempts SET next_check_at = now() WHERE payout = $1")
            .bind(payout.to_vec())
            .execute(&mut *transaction)
            .await?;
        // The next payout may begin at once: it has waited for this one.
        sqlx::query("UPDATE payees SET next_try_at = now() WHERE payee = $1")
            .bind(&money.payee)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The row of the payee, locked; made if it is not there.
async fn lock_payee(connection: &mut PgConnection, payee: &str) -> Result<(), LedgerError> {
    sqlx::query("INSERT INTO payees (payee) VALUES ($1) ON CONFLICT (payee) DO NOTHING")
        .bind(payee)
        .execute(&mut *connection)
        .await?;
    sqlx::query("SELECT 1 FROM payees WHERE payee = $1 FOR UPDATE")
        .bind(payee)
        .execute(connection)
        .await?;
    Ok(())
}

fn used_before(error: sqlx::Error) -> LedgerError {
    let error = LedgerError::from(error);
    if error.broke("payouts_payment_hash_key") {
        LedgerError::Conflict("the payment hash was used before")
    } else if error.broke("payouts_pkey") || error.broke("attempts_pkey") {
        LedgerError::Conflict("the id names another payout or attempt")
    } else {
        error
    }
}

/// What a trigger refuses is no step that there is.
fn not_a_step(error: sqlx::Error, refused: &'static str) -> LedgerError {
    let is_restricted = error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("23001"));
    match is_restricted {
        true => LedgerError::Refused(refused),
        false => LedgerError::from(error),
    }
}

/// What a payout has set aside, and on which accounts.
struct Money {
    payout: [u8; 32],
    payee: String,
    worker: String,
    amount: Msat,
    fee_max: Msat,
    fees_borne_by: FeesBorneBy,
    /// All attempts of a payout are of one.
    rail: Rail,
    state: PayoutState,
}

impl Money {
    fn new(
        payout: [u8; 32],
        payee: &str,
        amount: Msat,
        fee_max: Msat,
        fees_borne_by: FeesBorneBy,
        rail: Rail,
    ) -> Self {
        Self {
            payout,
            payee: payee.to_owned(),
            worker: worker_account(payee),
            amount,
            fee_max,
            fees_borne_by,
            rail,
            state: PayoutState::Reserved,
        }
    }

    /// The payout's, under a lock of its row.
    async fn lock(connection: &mut PgConnection, payout: [u8; 32]) -> Result<Self, LedgerError> {
        let row = sqlx::query(
            "SELECT worker, amount_msat, fee_max_msat, fees_borne_by, state,
                    (SELECT rail FROM attempts a WHERE a.payout = p.id ORDER BY n LIMIT 1) AS rail
               FROM payouts p WHERE id = $1 FOR UPDATE",
        )
        .bind(payout.to_vec())
        .fetch_optional(connection)
        .await?
        .ok_or(LedgerError::Refused("no such payout"))?;
        let fee_max: Option<i64> = row.try_get("fee_max_msat")?;
        // What failed before there were attempts has none.
        let rail: Option<&str> = row.try_get("rail")?;
        let money = Self::new(
            payout,
            row.try_get("worker")?,
            Msat::new(row.try_get("amount_msat")?),
            Msat::new(fee_max.unwrap_or(0)),
            FeesBorneBy::parse(row.try_get("fees_borne_by")?)?,
            rail.map_or(Ok(Rail::Bolt11), Rail::parse)?,
        );
        Ok(Self {
            state: PayoutState::parse(row.try_get("state")?)?,
            ..money
        })
    }

    fn amount_id(&self) -> TransferId {
        TransferId::of("payout", &self.payout)
    }

    /// Whose account the fee is taken from.
    fn fee_account(&self) -> &str {
        match self.fees_borne_by {
            FeesBorneBy::Pool => self.rail.fees(),
            FeesBorneBy::Payee => &self.worker,
        }
    }

    /// The two reservations: the payee's amount, and the fee.
    fn parts(&self) -> [Transfer<'_>; 2] {
        [
            Transfer {
                id: self.amount_id(),
                phase: Phase::Pending,
                debit: &self.worker,
                credit: self.rail.account(),
                amount: self.amount,
                reason: "payout",
            },
            Transfer {
                id: TransferId::of("payout-fee", &self.payout),
                phase: Phase::Pending,
                debit: self.fee_account(),
                credit: self.rail.account(),
                amount: self.fee_max,
                reason: "payout fee",
            },
        ]
    }
}
