//! Who is paid next, and the beginning of its payout.

use dovetail_commitment::WorkerKey;
use dovetail_ledger::{DuePayee, LedgerError, NewAttempt, NewPayout, PayeeQuery, Rail};
use dovetail_lightning::ParsedInvoice;
use dovetail_payee::LightningAddress;
use dovetail_units::Msat;
use dovetail_units::time::unix_now;

use super::destination::{Destination, NO_DESTINATION, onchain_threshold};
use super::invoices::{InvoiceRequest, accept, is_in_time};
use super::onchain::Terms;
use super::{PayoutError, Payouts, ROUND_MAX, pace};

impl Payouts {
    pub(super) async fn due_payees(&self, limit: u32) -> Result<Vec<DuePayee>, LedgerError> {
        let parts = &*self.parts;
        let connected: Vec<String> = parts
            .mailboxes
            .open_workers()
            .iter()
            .map(ToString::to_string)
            .collect();
        let query = PayeeQuery {
            connected: &connected,
            threshold: Msat::new(parts.config.payout_threshold_msat),
            payout_max: match parts.wallet {
                Some(_) => Msat::new(parts.config.payout_max_msat),
                None => Msat::ZERO,
            },
            onchain_threshold: self.onchain_threshold(),
            lightning_addresses: parts.lnurl.is_some()
                && self.hosts_asked.available_permits() >= ROUND_MAX,
            limit,
        };
        parts.ledger.claim_payees(&query, parts.pace.lease).await
    }

    /// Pays a payee that has enough, where it wants to be paid now.
    pub(super) async fn pay(&self, due: DuePayee) -> Result<(), PayoutError> {
        let begun = self.begin(&due).await;
        if let Err(error) = &begun
            && let Some(class) = class(error)
        {
            let backoff = self.parts.pace.backoff;
            let put_off = self.parts.ledger.put_payee_off(&due.payee, class, backoff);
            put_off.await?;
        }
        begun
    }

    /// What is paid on-chain at least; `None` if nothing is.
    fn onchain_threshold(&self) -> Option<Msat> {
        onchain_threshold(self.parts.onchain.as_ref())
    }

    async fn begin(&self, due: &DuePayee) -> Result<(), PayoutError> {
        let parts = &*self.parts;
        let destination = Destination::of(due, parts.network, self.onchain_threshold());
        let id: [u8; 32] = rand::random();
        let (terms, attempt) = match destination.ok_or(PayoutError::NoDestination)? {
            Destination::Onchain(address) => self.onchain(&address.to_string(), due.available)?,
            Destination::Offer(offer) => {
                let (terms, fee_max) = self.lightning_terms(due)?;
                (terms, self.offer(offer, fee_max))
            }
            Destination::Worker(key) => {
                let (terms, fee_max) = self.lightning_terms(due)?;
                (terms, self.invoice(key, id, terms.amount, fee_max).await?)
            }
            Destination::LightningAddress(address) => {
                let (terms, fee_max) = self.lightning_terms(due)?;
                let (amount, attempt) = self.of_host(&address, terms.amount, fee_max).await?;
                (Terms { amount, ..terms }, attempt)
            }
        };
        let payout = NewPayout {
            id,
            payee: due.payee.clone(),
            amount: terms.amount,
            fees_borne_by: terms.fees_borne_by,
            attempt,
        };
        let _place = self.paying.acquire().await;
        parts.ledger.begin_payout(&payout, parts.pace.lease).await?;
        match payout.attempt.rail {
            // A batch takes all that wait.
            Rail::Onchain => Ok(()),
            Rail::Bolt11 | Rail::Bolt12 => self.dispatch(first_attempt(payout)).await,
        }
    }

    /// What is paid over Lightning, and what its route may cost.
    fn lightning_terms(&self, due: &DuePayee) -> Result<(Terms, Msat), PayoutError> {
        let config = &self.parts.config;
        let (amount, fee_max) = pace::amount(config, due.available).ok_or(PayoutError::TooSmall)?;
        let terms = Terms {
            amount,
            fees_borne_by: config.fees_borne_by,
        };
        Ok((terms, fee_max))
    }

    fn offer(&self, offer: String, fee_max: Msat) -> NewAttempt {
        NewAttempt {
            id: rand::random(),
            rail: Rail::Bolt12,
            destination: offer,
            payment_hash: None,
            fee_max,
            cltv_max: self.parts.config.cltv_max,
            expires_at_unix: unix_now() + self.parts.pace.offer_life.as_secs(),
        }
    }

    async fn invoice(
        &self,
        worker: WorkerKey,
        payout_id: [u8; 32],
        amount: Msat,
        fee_max: Msat,
    ) -> Result<NewAttempt, PayoutError> {
        let parts = &*self.parts;
        let request = InvoiceRequest {
            worker,
            payout_id,
            amount_msat: u64::try_from(amount.get()).map_err(|_| PayoutError::Amount)?,
        };
        let _place = self.asked.acquire().await;
        let asking = parts.answers.ask(&parts.mailboxes, request, &parts.pace);
        let signed = asking.await?;
        let invoice = accept(&request, &signed, parts.network, &parts.config, &parts.pace)?;
        Ok(self.bolt11(signed.bolt11, &invoice, fee_max))
    }

    /// The attempt to pay what the host of a Lightning address gives, and how much it takes at once.
    async fn of_host(
        &self,
        address: &LightningAddress,
        amount: Msat,
        fee_max: Msat,
    ) -> Result<(Msat, NewAttempt), PayoutError> {
        let parts = &*self.parts;
        let lnurl = parts.lnurl.as_ref().ok_or(PayoutError::NoDestination)?;
        let amount_msat = u64::try_from(amount.get()).map_err(|_| PayoutError::Amount)?;
        let _place = self.hosts_asked.acquire().await;
        let fetched = lnurl.invoice(address, amount_msat, parts.network).await?;
        is_in_time(&fetched.invoice, parts.pace.fetched_life_min, &parts.config)?;
        // No more than was asked for.
        let taken = fetched.invoice.amount_msat;
        let taken = i64::try_from(taken).map_err(|_| PayoutError::Amount)?;
        let attempt = self.bolt11(fetched.bolt11, &fetched.invoice, fee_max);
        Ok((Msat::new(taken), attempt))
    }

    /// It ends when it is not tried any more, if the invoice lives longer.
    fn bolt11(&self, bolt11: String, invoice: &ParsedInvoice, fee_max: Msat) -> NewAttempt {
        let tried_until = unix_now() + self.parts.pace.invoice_life_max.as_secs();
        NewAttempt {
            id: rand::random(),
            rail: Rail::Bolt11,
            destination: bolt11,
            payment_hash: Some(invoice.payment_hash),
            fee_max,
            cltv_max: self.parts.config.cltv_max,
            expires_at_unix: invoice.expires_at_unix.min(tried_until),
        }
    }
}

/// Why the payee is put off; `None` if it is not its own doing.
fn class(error: &PayoutError) -> Option<&'static str> {
    match error {
        PayoutError::Invoice(error) => Some(error.class()),
        PayoutError::LightningAddress(error) => error.class(),
        // The payment hash of its invoice was used before: it was asked for a new one.
        PayoutError::Ledger(LedgerError::Conflict(_)) => Some("bad_invoice"),
        PayoutError::TooSmall => Some("too_small"),
        PayoutError::NoDestination => Some(NO_DESTINATION),
        PayoutError::Address(_) => Some("bad_address"),
        PayoutError::Ledger(_)
        | PayoutError::Wallet(_)
        | PayoutError::NoWallet
        | PayoutError::Amount => None,
    }
}

/// As the ledger has it now.
fn first_attempt(payout: NewPayout) -> dovetail_ledger::Attempt {
    let NewAttempt {
        id,
        rail,
        destination,
        payment_hash,
        fee_max,
        cltv_max,
        expires_at_unix,
    } = payout.attempt;
    dovetail_ledger::Attempt {
        id,
        payout: payout.id,
        payee: payout.payee,
        amount: payout.amount,
        payout_state: dovetail_ledger::PayoutState::Reserved,
        rail,
        destination,
        payment_hash,
        fee_max,
        cltv_max,
        expires_at_unix,
        state: dovetail_ledger::AttemptState::Prepared,
        failure_class: None,
        age: std::time::Duration::ZERO,
    }
}
