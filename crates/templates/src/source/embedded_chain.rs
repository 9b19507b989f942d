//! The embedded chain as a template source: one task owns it, makes its templates and takes its
//! blocks.

use std::collections::VecDeque;
use std::time::Duration;

use bitcoin::{Block, BlockHash, Network};
use dovetail_units::time::header_time_now;
use stratum_core::template_distribution_sv2::{SetNewPrevHashOwned, SubmitSolutionOwned};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::chain::block_template::solved_block;
use crate::chain::{BlockRejection, RegtestChain};
use crate::error::TemplateError;
use crate::handle::Port;
use crate::request::{Request, TransactionData};

/// A fresh template comes this often even where nothing has changed. Some miners take the time of
/// their headers from the arrival of a job and never roll it; on a young chain it may not exceed
/// the median time yet, and they do nothing useful until the next job.
pub(super) const TEMPLATE_INTERVAL: Duration = Duration::from_secs(10);
/// Templates that are remembered, about a hundred bytes each; at the interval above half a day's.
const TEMPLATES_MAX: usize = 4_096;

/// Starts the source, with a fresh template at least every `renewal`. The first work is there when
/// this returns.
pub(super) fn start(
    bits: u32,
    network: Network,
    renewal: Duration,
    port: Port,
    shutdown: CancellationToken,
) -> Result<(), TemplateError> {
    let mut source = Embedded {
        chain: RegtestChain::new(network, bits)?,
        port,
        templates: VecDeque::new(),
        next_id: 1,
    };
    source.port.publisher.set_connected(true);
    source.publish();
    tokio::spawn(source.run(renewal, shutdown));
    Ok(())
}

struct Embedded {
    chain: RegtestChain,
    port: Port,
    /// The tips of recent templates, newest last; each names its template.
    templates: VecDeque<SetNewPrevHashOwned>,
    next_id: u64,
}

impl Embedded {
    async fn run(mut self, renewal: Duration, shutdown: CancellationToken) {
        let mut timer = template_timer(renewal);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                request = self.port.requests.recv() => match request {
                    Some(request) => {
                        if self.answer(request) {
                            self.publish();
                            timer.reset();
                        }
                    }
                    // Every handle is gone.
                    None => break,
                },
                _ = timer.tick() => self.publish(),
            }
        }
        self.port.publisher.set_connected(false);
    }

    fn publish(&mut self) {
        let (template, tip) = self.chain.template(self.next_id, header_time_now());
        self.next_id += 1;
        if self.templates.len() == TEMPLATES_MAX {
            self.templates.pop_front();
        }
        self.templates.push_back(tip.clone());
        self.port
            .publisher
            .publish(template, tip)
            .expect("the chain's own templates have a height and outputs");
    }

    /// Answers a request and says whether the tip has changed.
    fn answer(&mut self, request: Request) -> bool {
        match request {
            Request::TransactionData(id, reply) => {
                let data = self.tip_of(id).map(|_| TransactionData::default());
                let _ = reply.send(data);
                false
            }
            Request::Solution(solution, reply) => {
                let result = self.solve(&solution);
                let accepted = result.is_ok();
                let _ = reply.send(result);
                accepted
            }
            Request::Check(bytes, reply) => {
                let valid = self.chain.check_bytes(&bytes, header_time_now());
                let _ = reply.send(valid.map_err(TemplateError::from));
                false
            }
            Request::IsInChain(hash, reply) => {
                let _ = reply.send(Ok(self.chain.contains(hash)));
                false
            }
            Request::Block(bytes, reply) => {
                let result = self.chain.submit_bytes(&bytes, header_time_now());
                let accepted = result.is_ok();
                let _ = reply.send(self.report(result).map_err(TemplateError::from));
                accepted
            }
            Request::Equal(solved, reply) => {
                let (header, coinbase) = *solved;
                // The templates here have no other transactions.
                let txdata = vec![coinbase];
                let result = self
                    .chain
                    .submit(&Block { header, txdata }, header_time_now());
                let accepted = result.is_ok();
                let _ = reply.send(self.report(result).map_err(TemplateError::from));
                accepted
            }
            Request::Undo(reply) => {
                let undone = self.chain.undo();
                if let Some(hash) = undone {
                    tracing::info!(%hash, height = self.chain.height(), "block taken back");
                }
                let _ = reply.send(Ok(()));
                undone.is_some()
            }
        }
    }

    /// The tip of a known template, which must still be the chain's.
    fn tip_of(&self, id: u64) -> Result<&SetNewPrevHashOwned, TemplateError> {
        let tip = self
            .templates
            .iter()
            .find(|tip| tip.template_id == id)
            .ok_or(TemplateError::UnknownTemplate(id))?;
        let current = self.templates.back().map(|newest| &newest.prev_hash);
        match current == Some(&tip.prev_hash) {
            true => Ok(tip),
            false => Err(TemplateError::StaleTemplate(id)),
        }
    }

    fn solve(&mut self, solution: &SubmitSolutionOwned) -> Result<(), TemplateError> {
        let block = solved_block(solution, self.tip_of(solution.template_id)?)?;
        let result = self.chain.submit(&block, header_time_now());
        Ok(self.report(result)?)
    }

    fn report(&self, result: Result<BlockHash, BlockRejection>) -> Result<(), BlockRejection> {
        match result {
            Ok(hash) => {
                tracing::info!(%hash, height = self.chain.height(), "block accepted");
                Ok(())
            }
            Err(rejection) => {
                tracing::warn!(%rejection, "block rejected");
                Err(rejection)
            }
        }
    }
}

fn template_timer(renewal: Duration) -> Interval {
    let mut timer = interval(renewal);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is immediate, and the first template is out already.
    timer.reset();
    timer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::channel;
    use crate::test_work::{EASY_BITS, mined, solution};

    #[tokio::test]
    async fn fresh_templates_come_on_the_same_tip_and_older_ones_stay_good() {
        let (handle, port) = channel();
        let renewal = Duration::from_millis(10);
        let stop = CancellationToken::new();
        start(EASY_BITS, Network::Regtest, renewal, port, stop.clone()).unwrap();
        let first = handle.current().unwrap();
        let mut work = handle.subscribe();
        let third = work
            .wait_for(|work| work.as_ref().is_some_and(|work| work.sequence >= 3))
            .await
            .unwrap()
            .clone()
            .unwrap();
        assert_eq!(third.prev_hash(), first.prev_hash());
        assert!(third.template_id() > first.template_id());
        let solved = solution(first.template_id(), &mined(&first));
        handle.submit_solution(solved).await.unwrap();
        stop.cancel();
    }

    #[tokio::test]
    async fn a_block_is_in_the_chain_once_it_was_the_tip() {
        let (handle, port) = channel();
        let stop = CancellationToken::new();
        start(
            EASY_BITS,
            Network::Regtest,
            TEMPLATE_INTERVAL,
            port,
            stop.clone(),
        )
        .unwrap();
        let genesis = handle.current().unwrap();
        let found = mined(&genesis);
        assert!(!handle.is_in_chain(found.block_hash()).await.unwrap());
        let solved = solution(genesis.template_id(), &found);
        handle.submit_solution(solved).await.unwrap();
        assert!(handle.is_in_chain(found.block_hash()).await.unwrap());
        // Another one replaced it since.
        handle.undo_block().await.unwrap();
        assert!(handle.is_in_chain(found.block_hash()).await.unwrap());
        stop.cancel();
    }
}
