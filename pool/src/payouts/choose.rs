//! Who is paid next, and the beginning of its payout.

use bitcoin::Network;
use dovetail_ledger::{DuePayee, LedgerError, NewAttempt, NewPayout, PayeeQuery, Rail};
use dovetail_sv2::identity::{Identity, Payee};
use dovetail_units::Msat;
use dovetail_units::time::unix_now;

use super::invoices::{InvoiceRequest, accept};
use super::{PayoutError, Payouts, pace};

/// The class of a payee that is not paid out yet: nothing leads to it but its name.
const NO_DESTINATION: &str = "no_destination";

/// Why this account cannot be paid, if its name says nothing about where to: a Lightning address and a plain name wait, and a
/// Bitcoin address where nobody is paid on the chain.
pub(super) fn destination_class(account: &str, onchain: bool) -> Option<&'static str> {
    match Identity::parse(account).map(|identity| identity.payee) {
        Ok(Payee::WorkerKey(_) | Payee::Offer(_)) => None,
        Ok(Payee::Address(_)) if onchain => None,
        _ => Some(NO_DESTINATION),
    }
}

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
            payout_max: Msat::new(parts.config.payout_max_msat),
            limit,
        };
        let mut due = match parts.wallet {
            Some(_) => parts.ledger.claim_payees(&query, parts.pace.lease).await?,
            None => Vec::new(),
        };
        if let Some(onchain) = &parts.onchain {
            let threshold = Msat::new(onchain.threshold_msat);
            let prefixes = address_prefixes(parts.network);
            let claim =
                parts
                    .ledger
                    .claim_address_payees(&prefixes, threshold, limit, parts.pace.lease);
            due.extend(claim.await?);
        }
        Ok(due)
    }

    /// Pays a payee that has enough: by its offer, or by an invoice that it is asked for.
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

    async fn begin(&self, due: &DuePayee) -> Result<(), PayoutError> {
        let payee = Identity::parse(&due.payee).map(|identity| identity.payee);
        if let Ok(Payee::Address(address)) = &payee {
            let (terms, attempt) = self.onchain(address, due.available)?;
            let payout = NewPayout {
                id: rand::random(),
                payee: due.payee.clone(),
                amount: terms.amount,
                fees_borne_by: terms.fees_borne_by,
                attempt,
            };
            let (ledger, lease) = (&self.parts.ledger, self.parts.pace.lease);
            return Ok(ledger.begin_payout(&payout, lease).await?);
        }
        let (amount, fee_max) =
            pace::amount(&self.parts.config, due.available).ok_or(PayoutError::TooSmall)?;
        let id: [u8; 32] = rand::random();
        let attempt = match payee {
            Ok(Payee::Offer(offer)) => self.offer(offer, fee_max),
            Ok(Payee::WorkerKey(key)) => self.invoice(&key, id, amount, fee_max).await?,
            _ => return Err(PayoutError::NoDestination),
        };
        let payout = NewPayout {
            id,
            payee: due.payee.clone(),
            amount,
            fees_borne_by: self.parts.config.fees_borne_by,
            attempt,
        };
        let _place = self.paying.acquire().await;
        let (ledger, lease) = (&self.parts.ledger, self.parts.pace.lease);
        ledger.begin_payout(&payout, lease).await?;
        self.dispatch(first_attempt(payout)).await
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
        worker: &str,
        payout_id: [u8; 32],
        amount: Msat,
        fee_max: Msat,
    ) -> Result<NewAttempt, PayoutError> {
        let parts = &*self.parts;
        let request = InvoiceRequest {
            worker: worker.parse().map_err(|_| PayoutError::NoDestination)?,
            payout_id,
            amount_msat: u64::try_from(amount.get()).map_err(|_| PayoutError::Amount)?,
        };
        let _place = self.asked.acquire().await;
        let asking = parts.answers.ask(&parts.mailboxes, request, &parts.pace);
        let signed = asking.await?;
        let invoice = accept(&request, &signed, parts.network, &parts.config, &parts.pace)?;
        Ok(NewAttempt {
            id: rand::random(),
            rail: Rail::Bolt11,
            destination: signed.bolt11,
            payment_hash: Some(invoice.payment_hash),
            fee_max,
            cltv_max: parts.config.cltv_max,
            expires_at_unix: invoice.expires_at_unix,
        })
    }
}

/// How the addresses of a network begin. Names that are no addresses may begin so too.
fn address_prefixes(network: Network) -> Vec<String> {
    let prefixes: &[&str] = match network {
        Network::Bitcoin => &["bc1", "1", "3"],
        Network::Regtest => &["bcrt1", "m", "n", "2"],
        _ => &["tb1", "m", "n", "2"],
    };
    prefixes.iter().map(ToString::to_string).collect()
}

/// Why the payee is put off; `None` if it is not its own doing.
fn class(error: &PayoutError) -> Option<&'static str> {
    match error {
        PayoutError::Invoice(error) => Some(error.class()),
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
