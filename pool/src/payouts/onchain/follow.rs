//! A batch's way into the chain: handed out, replaced, booked, watched.

use bitcoin::hashes::Hash;
use bitcoin::{Amount, BlockHash, FeeRate, OutPoint, Transaction, Txid, consensus};
use dovetail_ledger::{BookedOutput, OnchainBatch, OnchainTransaction, TransactionState};
use dovetail_onchain::{
    ChainTip, ComposeError, Payment, Replaced, Request, Taken, compose, fee_shares,
};
use dovetail_telemetry::Event;
use dovetail_units::Msat;

use super::batch::{inputs_of, stored};
use super::search::{DEPTH_MAX, Found, Place, Search, Wanted};
use super::{OnchainError, OnchainPayouts};
use crate::payouts::told::PaidOut;

/// The class of attempts whose batch can never confirm: they are tried again.
const CONFLICT: &str = "conflict";
/// A batch has failed once what contradicts it is as deep as this, or as the operator asks if that is more.
const CONFLICT_DEPTH_MIN: u32 = 6;
/// What nodes of all ages ask of a replacement besides: 1 sat/vB.
const INCREMENTAL_MIN: FeeRate = FeeRate::BROADCAST_MIN;
const RAIL: &str = "onchain";

impl OnchainPayouts {
    /// Brings the open batch on.
    pub(super) async fn follow(
        &mut self,
        batch: &OnchainBatch,
        tip: ChainTip,
    ) -> Result<(), OnchainError> {
        match self
            .search
            .find(&self.parts.node, batch, Wanted::Its, tip)
            .await?
        {
            Found::At(place) => {
                let depth = tip.height.saturating_sub(place.height).saturating_add(1);
                match depth >= self.parts.config.confirmations {
                    true => self.book(batch, place).await,
                    false => Ok(()),
                }
            }
            Found::NotYet => Ok(()),
            Found::Nowhere => {
                let refused = self.hand_out(batch).await?;
                if refused.is_some() {
                    match self.contradiction(batch, tip).await? {
                        Some(Found::At(place)) => {
                            return self.contradicted(batch, place, tip).await;
                        }
                        Some(Found::Nowhere) => tracing::error!(
                            batch = batch.number,
                            "ALARM: a coin that a batch of payouts spends is not in the chain any more, and nothing there spends it; the batch waits for it"
                        ),
                        Some(Found::NotYet) => return Ok(()),
                        None => {}
                    }
                }
                if batch.conflict_height.is_some() {
                    self.parts.ledger.note_conflict(batch.number, None).await?;
                }
                self.replace_if_late(batch, tip, refused.is_some()).await
            }
        }
    }

    /// Hands the newest transaction to the node, unless it has it; says why it does not want it.
    pub(super) async fn hand_out(
        &self,
        batch: &OnchainBatch,
    ) -> Result<Option<String>, OnchainError> {
        let newest = newest(batch)?;
        let node = &self.parts.node;
        let is_there = node
            .is_in_memory(Txid::from_byte_array(newest.txid))
            .await?;
        if !is_there && let Taken::No(reason) = node.broadcast(&newest.raw).await? {
            tracing::warn!(
                batch = batch.number,
                txid = %Txid::from_byte_array(newest.txid),
                reason,
                "the node does not take a transaction; it is handed out again"
            );
            return Ok(Some(reason));
        }
        if newest.state == TransactionState::Prepared {
            self.parts.ledger.note_broadcast(newest.txid).await?;
            self.tell(batch, newest, "broadcast");
        }
        Ok(None)
    }

    /// Where the chain spends what every transaction of the batch spends, without being one of them; `None` if all of that
    /// is unspent.
    async fn contradiction(
        &mut self,
        batch: &OnchainBatch,
        tip: ChainTip,
    ) -> Result<Option<Found>, OnchainError> {
        let node = &self.parts.node;
        // All later ones spend what the first does.
        let first = batch.transactions.first();
        let first = decoded(batch, first.ok_or(OnchainError::Corrupt(batch.number))?)?;
        let spent: Vec<OutPoint> = inputs_of(&first).collect();
        let mut is_unspent = true;
        for &input in &spent {
            is_unspent &= node.is_unspent(input, false).await?;
        }
        if is_unspent {
            return Ok(None);
        }
        let wanted = Wanted::SpenderOf(&spent);
        Ok(Some(self.spender.find(node, batch, wanted, tip).await?))
    }

    /// Something else has spent what the batch spends, as deep as this.
    async fn contradicted(
        &mut self,
        batch: &OnchainBatch,
        place: Place,
        tip: ChainTip,
    ) -> Result<(), OnchainError> {
        let ledger = &self.parts.ledger;
        if batch.conflict_height != Some(place.height) {
            tracing::error!(
                batch = batch.number,
                by = %place.txid,
                "ALARM: somebody else has spent what a batch of payouts spends: who else has the wallet's keys?"
            );
            let height = Some(place.height);
            return Ok(ledger.note_conflict(batch.number, height).await?);
        }
        let depth = tip.height.saturating_sub(place.height).saturating_add(1);
        if depth < self.parts.config.confirmations.max(CONFLICT_DEPTH_MIN) {
            return Ok(());
        }
        let backoff = self.parts.backoff;
        ledger.fail_batch(batch.number, CONFLICT, backoff).await?;
        tracing::error!(
            batch = batch.number,
            "ALARM: a batch of payouts has failed; its payees are paid by another one"
        );
        self.tell(batch, newest(batch)?, "failed");
        (self.search, self.spender) = (Search::default(), Search::default());
        Ok(())
    }

    /// Replaces the newest transaction by one with a higher fee if its time has passed, or the node would not have it.
    async fn replace_if_late(
        &mut self,
        batch: &OnchainBatch,
        tip: ChainTip,
        is_refused: bool,
    ) -> Result<(), OnchainError> {
        let newest = newest(batch)?;
        let age = tip.height.saturating_sub(newest.tip_height);
        let is_late = age >= u32::from(self.parts.config.conf_target);
        if !(is_late || is_refused) || tip.height < self.replace_after {
            return Ok(());
        }
        // The wallet is not searched for a replacement again before the next block.
        self.replace_after = tip.height.saturating_add(1);
        match self.replace(batch, newest, tip).await {
            // As much as was set aside is offered; the chain takes it sooner or later.
            Err(OnchainError::Compose(error @ ComposeError::TooCostly { .. })) => {
                tracing::warn!(batch = batch.number, %error, "no higher fee is paid");
                Ok(())
            }
            replaced => replaced,
        }
    }

    async fn replace(
        &self,
        batch: &OnchainBatch,
        newest: &OnchainTransaction,
        tip: ChainTip,
    ) -> Result<(), OnchainError> {
        let before = decoded(batch, newest)?;
        let fee_before = amount(batch, newest.fee_sat)?;
        let rate_before = fee_before / before.weight();
        let fee_rate = self
            .fee_rate()
            .await?
            .max(quarter_more(rate_before))
            .min(self.fee_rate_max());
        if fee_rate <= rate_before {
            return Ok(());
        }
        let spent: Vec<OutPoint> = inputs_of(&before).collect();
        let (required, spare) = self.coins(&spent).await?;
        if required.len() != spent.len() {
            // The chain has spent some since: the next round finds out what that means.
            return Ok(());
        }
        let payments: Vec<Payment> = before
            .output
            .iter()
            .take(batch.outputs.len())
            .map(|output| Payment {
                script: output.script_pubkey.clone(),
                amount: output.value,
            })
            .collect();
        let change = self.parts.keys.change_script(u64::from(batch.since_height));
        let incremental = self.parts.node.relay_fees().await?.incremental;
        let composed = compose(
            &self.parts.keys,
            &Request {
                payments: &payments,
                required: &required,
                spare: &spare,
                change: &change,
                fee_rate,
                fee_max: fee_max(batch)?,
                replaces: Some(Replaced {
                    fee: fee_before,
                    incremental: incremental.max(INCREMENTAL_MIN),
                }),
            },
        )?;
        if let Taken::No(reason) = self.parts.node.would_take(&composed.transaction).await? {
            return Err(OnchainError::NotTaken(reason));
        }
        let ledger = &self.parts.ledger;
        ledger
            .add_transaction(batch.number, &stored(&composed, tip)?)
            .await?;
        tracing::info!(
            batch = batch.number,
            fee_sat = composed.fee.to_sat(),
            "a transaction is replaced by one with a higher fee"
        );
        if let Some(batch) = ledger.open_batch().await? {
            self.hand_out(&batch).await?;
        }
        Ok(())
    }

    async fn book(&mut self, batch: &OnchainBatch, place: Place) -> Result<(), OnchainError> {
        let txid = place.txid.to_byte_array();
        let is_it = |transaction: &&OnchainTransaction| transaction.txid == txid;
        let transaction = batch.transactions.iter().find(is_it);
        let transaction = transaction.ok_or(OnchainError::Corrupt(batch.number))?;
        let shares: Vec<Msat> =
            fee_shares(amount(batch, transaction.fee_sat)?, batch.outputs.len())
                .iter()
                .map(|share| i64::try_from(share.to_sat()).ok()?.checked_mul(1_000))
                .map(|msat| msat.map(Msat::new))
                .collect::<Option<_>>()
                .ok_or(ComposeError::Amount)?;
        let block = (place.block.to_byte_array(), place.height);
        let booked = self
            .parts
            .ledger
            .confirm_batch(batch.number, txid, block, &shares)
            .await?;
        self.tell(batch, transaction, "confirmed");
        for output in &booked {
            self.tell_paid(output);
        }
        // What waits need wait no longer, and the change can be spent.
        self.make_after = None;
        (self.search, self.spender) = (Search::default(), Search::default());
        Ok(())
    }

    fn tell_paid(&self, output: &BookedOutput) {
        let paid = PaidOut {
            payout: output.payout,
            payee: &output.payee,
            amount: output.amount,
            fee: output.fee,
            rail: RAIL,
            alarm: "a payout that was given up was paid on the chain",
        };
        paid.tell(output.success, &self.parts.telemetry, &self.parts.mailboxes);
    }

    /// Looks whether the chain still has a paid batch, until it is deep. If it has not, its transaction is handed out again.
    pub(super) async fn watch(
        &mut self,
        batch: &OnchainBatch,
        tip: ChainTip,
    ) -> Result<(), OnchainError> {
        let paid = batch.transactions.iter().find_map(|transaction| {
            let (block, height) = transaction.block?;
            Some((transaction, BlockHash::from_byte_array(block), height))
        });
        let (transaction, block, height) = paid.ok_or(OnchainError::Corrupt(batch.number))?;
        let (node, ledger) = (&self.parts.node, &self.parts.ledger);
        if node.block_at(height).await? == Some(block) {
            if tip.height.saturating_sub(height) >= DEPTH_MAX {
                ledger.note_buried(batch.number).await?;
            }
            return Ok(());
        }
        // From the beginning: nothing is remembered of it. Only a reorganisation comes here.
        match Search::default()
            .find(node, batch, Wanted::Its, tip)
            .await?
        {
            Found::At(place) if place.txid.to_byte_array() == transaction.txid => {
                let block = (place.block.to_byte_array(), place.height);
                ledger.note_moved(transaction.txid, block).await?;
            }
            Found::At(place) => {
                tracing::error!(
                    batch = batch.number,
                    txid = %place.txid,
                    "ALARM: after a reorganisation another transaction of a paid batch is in the chain: its payees have their money, its fee differs from what was booked"
                );
            }
            Found::Nowhere | Found::NotYet => {
                let txid = Txid::from_byte_array(transaction.txid);
                if !node.is_in_memory(txid).await? {
                    let taken = node.broadcast(&transaction.raw).await?;
                    tracing::error!(
                        batch = batch.number,
                        %txid,
                        ?taken,
                        "ALARM: the chain no longer has a paid batch of payouts; its transaction is handed out again"
                    );
                    self.tell(batch, transaction, "reorganised");
                }
            }
        }
        Ok(())
    }

    fn tell(&self, batch: &OnchainBatch, transaction: &OnchainTransaction, state: &str) {
        let txid = Txid::from_byte_array(transaction.txid).to_string();
        self.parts.telemetry.emit(&Event::OnchainBatch {
            batch: batch.number,
            state,
            txid: &txid,
            payees: batch.outputs.len(),
            fee_sat: transaction.fee_sat,
        });
    }
}

fn newest(batch: &OnchainBatch) -> Result<&OnchainTransaction, OnchainError> {
    batch.newest().ok_or(OnchainError::Corrupt(batch.number))
}

fn decoded(
    batch: &OnchainBatch,
    transaction: &OnchainTransaction,
) -> Result<Transaction, OnchainError> {
    consensus::deserialize(&transaction.raw).map_err(|_| OnchainError::Corrupt(batch.number))
}

fn amount(batch: &OnchainBatch, sat: i64) -> Result<Amount, OnchainError> {
    u64::try_from(sat)
        .map(Amount::from_sat)
        .map_err(|_| OnchainError::Corrupt(batch.number))
}

/// What was set aside for the batch's fee, in whole satoshi.
fn fee_max(batch: &OnchainBatch) -> Result<Amount, OnchainError> {
    let msat = batch
        .outputs
        .iter()
        .try_fold(0_i64, |sum, output| sum.checked_add(output.fee_max.get()));
    amount(batch, msat.ok_or(ComposeError::Amount)? / 1_000)
}

fn quarter_more(rate: FeeRate) -> FeeRate {
    let kwu = rate.to_sat_per_kwu();
    FeeRate::from_sat_per_kwu(kwu.saturating_add(kwu.div_ceil(4)))
}
