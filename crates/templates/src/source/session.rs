//! The client's side of the Template Distribution Protocol (Sv2 specification 7): pairs templates
//! with tips, and keeps what is needed to turn solutions and whole blocks back into messages.
//!
//! A source numbers its templates as it likes and may start over after a reconnection. Handles see
//! numbers of our own, so that a solution never reaches a template that it was not made for.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{Block, Transaction};
use stratum_core::parsers_sv2::TemplateDistributionOwned as Tdp;
use stratum_core::template_distribution_sv2::{
    CoinbaseOutputConstraintsOwned, ERROR_CODE_REQUEST_TRANSACTION_DATA_STALE_TEMPLATE_ID,
    NewTemplateOwned, RequestTransactionDataErrorOwned, RequestTransactionDataOwned,
    RequestTransactionDataSuccessOwned, SetNewPrevHashOwned, SubmitSolutionOwned,
};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::network::compare_target;
use crate::block_publisher::solution_of;
use crate::error::TemplateError;
use crate::handle::Publisher;
use crate::request::{Reply, TransactionData};
use crate::snapshot::{SnapshotError, WorkSnapshot, is_target};

/// Room in bytes that every template keeps for coinbase outputs beyond its own: the pool's payout, the
/// commitment, and as much again for what a declared job adds. A coinbase with more of them may make a
/// block that is too heavy.
pub const COINBASE_BYTES_ADDITIONAL: u32 = 1_000;
const COINBASE_SIGOPS_ADDITIONAL: u16 = 100;
/// Templates that can still be solved, one or two kilobytes each. Providers offer a better one every
/// few seconds at most, so this is more than a tip usually lasts.
const TEMPLATES_MAX: usize = 1_024;
/// Work that nothing better follows is given again after this long, so that jobs carry the time of day: a job's headers
/// may be two hours ahead of its least time, and a tip may last longer than that.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(600);
/// Future templates that wait for their tip; providers send one.
const FUTURES_MAX: usize = 16;
/// The operator is told of messages that make no sense this often at most.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);
/// Requests for transactions in flight; callers ask once per declared job.
const WAITING_MAX: usize = 64;

/// The templates of all sessions with one source, newest last.
#[derive(Debug, Default)]
pub(super) struct History {
    known: VecDeque<Known>,
    session: u64,
    last_id: u64,
}

#[derive(Debug)]
struct Known {
    work: Arc<WorkSnapshot>,
    session: u64,
    /// The source's own number.
    source_id: u64,
}

/// One session with a source.
#[derive(Debug)]
pub(super) struct Session<'h> {
    history: &'h mut History,
    /// The newest last.
    futures: VecDeque<NewTemplateOwned>,
    tip: Option<SetNewPrevHashOwned>,
    /// When work was given last.
    given_at: Instant,
    /// When the operator was last told of a message that makes no sense.
    alarmed_at: Option<Instant>,
    /// Who waits for the transactions of a template, by the source's number, with ours.
    waiting: HashMap<u64, (u64, Vec<Reply<TransactionData>>)>,
}

impl<'h> Session<'h> {
    pub(super) fn new(history: &'h mut History) -> Self {
        history.session += 1;
        Self {
            history,
            futures: VecDeque::new(),
            tip: None,
            given_at: Instant::now(),
            alarmed_at: None,
            waiting: HashMap::new(),
        }
    }

    /// What a client says first.
    pub(super) fn constraints() -> Tdp {
        Tdp::CoinbaseOutputConstraints(CoinbaseOutputConstraintsOwned {
            coinbase_output_max_additional_size: COINBASE_BYTES_ADDITIONAL,
            coinbase_output_max_additional_sigops: COINBASE_SIGOPS_ADDITIONAL,
        })
    }

    /// Takes a message from the source. One that makes no sense is passed over, with an alarm, as long as the tip is
    /// known without it.
    ///
    /// # Errors
    /// [`TemplateError::Protocol`], [`TemplateError::WrongNetwork`]: the tip is not known any more, and the session is to be
    /// ended.
    pub(super) fn on_message(
        &mut self,
        message: Tdp,
        publisher: &mut Publisher,
    ) -> Result<(), TemplateError> {
        match message {
            Tdp::NewTemplate(template) => {
                if let Err(reason) = self.on_template(template, publisher) {
                    self.alarm(&reason);
                }
                Ok(())
            }
            Tdp::SetNewPrevHash(tip) => self.on_tip(tip, publisher),
            Tdp::RequestTransactionDataSuccess(data) => {
                self.on_transactions(data);
                Ok(())
            }
            Tdp::RequestTransactionDataError(error) => {
                self.on_no_transactions(&error);
                Ok(())
            }
            Tdp::CoinbaseOutputConstraints(_)
            | Tdp::RequestTransactionData(_)
            | Tdp::SubmitSolution(_) => {
                self.alarm("it sent a client's message");
                Ok(())
            }
        }
    }

    fn alarm(&mut self, reason: &str) {
        let is_new = self
            .alarmed_at
            .is_none_or(|at| at.elapsed() >= ALARM_INTERVAL);
        if is_new {
            self.alarmed_at = Some(Instant::now());
            tracing::error!(
                reason,
                "ALARM: the template source says what makes no sense; it is passed over"
            );
        }
    }

    fn on_template(
        &mut self,
        template: NewTemplateOwned,
        publisher: &mut Publisher,
    ) -> Result<(), String> {
        if template.future_template {
            let id = template.template_id;
            self.futures.retain(|known| known.template_id != id);
            if self.futures.len() == FUTURES_MAX {
                self.futures.pop_front();
            }
            self.futures.push_back(template);
            return Ok(());
        }
        let tip = self.tip.clone().ok_or("a template before any tip")?;
        self.publish(template.template_id, template, tip, publisher)
            .map_err(|error| format!("a template: {error}"))
    }

    fn on_tip(
        &mut self,
        tip: SetNewPrevHashOwned,
        publisher: &mut Publisher,
    ) -> Result<(), TemplateError> {
        let id = tip.template_id;
        if self.tip.as_ref() == Some(&tip) && self.given(id).is_some() {
            // Miners need no job for what they know.
            return Ok(());
        }
        let future = self.futures.iter().find(|known| known.template_id == id);
        let template = future
            .cloned()
            // Another target or time, and the same template.
            .or_else(|| self.given(id))
            .ok_or_else(|| protocol("a tip without its template"))?;
        if let Some(network) = publisher.network.filter(|_| is_target(tip.n_bits)) {
            compare_target(network, tip.n_bits)?;
        }
        self.futures.clear();
        self.tip = Some(tip.clone());
        self.publish(id, template, tip, publisher)
            .map_err(|error| protocol(&format!("a tip: {error}")))
    }

    /// The template that the source has given in this session under this number of its own.
    fn given(&self, source_id: u64) -> Option<NewTemplateOwned> {
        let session = self.history.session;
        let mut newest = self.history.known.iter().rev();
        let given = newest.find(|known| known.session == session && known.source_id == source_id);
        given.map(|known| known.work.template.clone())
    }

    fn publish(
        &mut self,
        source_id: u64,
        mut template: NewTemplateOwned,
        tip: SetNewPrevHashOwned,
        publisher: &mut Publisher,
    ) -> Result<(), SnapshotError> {
        self.history.last_id += 1;
        template.template_id = self.history.last_id;
        let work = publisher.publish(template, tip)?;
        self.remember(work, source_id);
        Ok(())
    }

    fn remember(&mut self, work: Arc<WorkSnapshot>, source_id: u64) {
        self.given_at = Instant::now();
        if self.history.known.len() == TEMPLATES_MAX {
            self.history.known.pop_front();
        }
        self.history.known.push_back(Known {
            work,
            session: self.history.session,
            source_id,
        });
    }

    /// When [`renew`](Self::renew) is due.
    pub(super) fn renewal_at(&self) -> Instant {
        self.given_at + RENEWAL_INTERVAL
    }

    /// Gives the newest work of this session again.
    pub(super) fn renew(&mut self, publisher: &mut Publisher) {
        self.given_at = Instant::now();
        let session = self.history.session;
        let newest = self.history.known.back();
        let Some(newest) = newest.filter(|known| known.session == session) else {
            return;
        };
        let (work, source_id) = (Arc::clone(&newest.work), newest.source_id);
        self.history.last_id += 1;
        let renewed = publisher.renew(&work, self.history.last_id);
        self.remember(renewed, source_id);
    }

    fn on_transactions(&mut self, data: RequestTransactionDataSuccessOwned) {
        let Some((_, replies)) = self.waiting.remove(&data.template_id) else {
            return;
        };
        let data = TransactionData {
            excess_data: data.excess_data.into_bytes(),
            transactions: data
                .transaction_list
                .into_inner()
                .into_iter()
                .map(stratum_core::binary_sv2::B016MOwned::into_bytes)
                .collect(),
        };
        for reply in replies {
            let _ = reply.send(Ok(data.clone()));
        }
    }

    fn on_no_transactions(&mut self, error: &RequestTransactionDataErrorOwned) {
        let Some((id, replies)) = self.waiting.remove(&error.template_id) else {
            return;
        };
        let stale = error.error_code.as_bytes()
            == ERROR_CODE_REQUEST_TRANSACTION_DATA_STALE_TEMPLATE_ID.as_bytes();
        for reply in replies {
            let _ = reply.send(Err(match stale {
                true => TemplateError::StaleTemplate(id),
                false => TemplateError::UnknownTemplate(id),
            }));
        }
    }

    /// The request for a template's transactions, unless the same has been asked already or must
    /// be refused. The reply is given when the source answers.
    pub(super) fn want_transactions(
        &mut self,
        id: u64,
        reply: Reply<TransactionData>,
    ) -> Option<Tdp> {
        let Some(template_id) = self.source_id(id) else {
            let _ = reply.send(Err(TemplateError::UnknownTemplate(id)));
            return None;
        };
        // Whoever has given up waiting makes room.
        self.waiting.retain(|_, (_, replies)| {
            replies.retain(|reply| !reply.is_closed());
            !replies.is_empty()
        });
        let in_flight: usize = self
            .waiting
            .values()
            .map(|(_, replies)| replies.len())
            .sum();
        if in_flight >= WAITING_MAX {
            let _ = reply.send(Err(TemplateError::TimeOut));
            return None;
        }
        let (_, replies) = self.waiting.entry(template_id).or_insert((id, Vec::new()));
        replies.push(reply);
        (replies.len() == 1).then_some(Tdp::RequestTransactionData(RequestTransactionDataOwned {
            template_id,
        }))
    }

    /// Something that a source which does not hang answers: the transactions of its newest template. Nobody waits
    /// for them.
    pub(super) fn question(&mut self) -> Option<Tdp> {
        let newest = self.history.known.back();
        let newest = newest.filter(|known| known.session == self.history.session)?;
        let id = newest.work.template_id();
        self.want_transactions(id, oneshot::channel().0)
    }

    /// The message of a solution, in the source's numbering.
    ///
    /// # Errors
    /// [`TemplateError::UnknownTemplate`].
    pub(super) fn solution(&self, mut solution: SubmitSolutionOwned) -> Result<Tdp, TemplateError> {
        let id = solution.template_id;
        solution.template_id = self
            .source_id(id)
            .ok_or(TemplateError::UnknownTemplate(id))?;
        Ok(Tdp::SubmitSolution(solution))
    }

    /// A whole block as the solution of the template whose transactions it has: the protocol has
    /// no message for blocks.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] if it is of no template of this session.
    pub(super) fn solution_of_block(&self, bytes: &[u8]) -> Result<Tdp, TemplateError> {
        let block: Block =
            deserialize(bytes).map_err(|error| TemplateError::MalformedBlock(error.to_string()))?;
        let coinbase = block
            .coinbase()
            .ok_or_else(|| TemplateError::MalformedBlock("it has no coinbase".into()))?;
        self.solution_of(&block.header, coinbase)
    }

    /// A header and its coinbase as the solution of the template whose transactions the header commits to.
    ///
    /// # Errors
    /// [`TemplateError::Unsupported`] if no template of this session has them.
    pub(super) fn solution_of(
        &self,
        header: &Header,
        coinbase: &Transaction,
    ) -> Result<Tdp, TemplateError> {
        let txid = coinbase.compute_txid().to_byte_array();
        let known = self
            .history
            .known
            .iter()
            .rev()
            .filter(|known| known.session == self.history.session)
            // The header's root covers every transaction, so an equal root is an equal list.
            .find(|known| {
                known.work.prev_hash() == header.prev_blockhash.to_byte_array()
                    && known.work.merkle_root(txid) == header.merkle_root.to_byte_array()
            })
            .ok_or(TemplateError::Unsupported)?;
        let solution = solution_of(header, coinbase, known.source_id);
        solution
            .map(Tdp::SubmitSolution)
            .ok_or_else(|| TemplateError::MalformedBlock("its coinbase is too long".into()))
    }

    /// The source's number for one of our templates. A template of an earlier session stands for
    /// an equal one of this session, if there is one: work that was handed out before a
    /// reconnection is still good.
    fn source_id(&self, id: u64) -> Option<u64> {
        let known = &self.history.known;
        let wanted = known.iter().find(|known| known.work.template_id() == id)?;
        if wanted.session == self.history.session {
            return Some(wanted.source_id);
        }
        known
            .iter()
            .rev()
            .filter(|known| known.session == self.history.session)
            .find(|known| {
                known.work.prev_hash() == wanted.work.prev_hash()
                    && known.work.template.merkle_path == wanted.work.template.merkle_path
                    && known.work.required_outputs() == wanted.work.required_outputs()
            })
            .map(|known| known.source_id)
    }
}

fn protocol(reason: &str) -> TemplateError {
    TemplateError::Protocol(reason.to_owned())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
