//! Shares that wait for their settlement.

use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use dovetail_commitment::BatchRoot;
use dovetail_units::Work;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};

use super::acks::{Difficulty, Place};
use crate::claims::settle::Settled;

/// A share whose settlement is under way.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(super) channel_id: u32,
    pub(super) sequence_number: u32,
    /// Where it stands among its channel's shares.
    pub(super) place: Place,
    pub(super) difficulty: Difficulty,
    pub(super) account: String,
    /// The device that found it, if it has a name.
    pub(super) device: Option<String>,
    pub(super) work: Work,
    /// The batch that the share claims.
    pub(super) claimed: Option<BatchRoot>,
    pub(super) settled: Settled,
}

/// Begins here and now: a share is in the log's queue, and a claim in its worker's line, in the order in which they came and
/// whatever becomes of the connection.
pub(super) fn begun<T: Send + 'static>(
    mut settling: BoxFuture<'static, T>,
) -> BoxFuture<'static, T> {
    // Nobody waits with this waker: what is not done is polled again, by whoever awaits it.
    let mut context = Context::from_waker(Waker::noop());
    match settling.as_mut().poll(&mut context) {
        Poll::Ready(done) => Box::pin(std::future::ready(done)),
        Poll::Pending => settling,
    }
}

/// The shares of one connection that are under way.
#[derive(Debug, Default)]
pub(crate) struct PendingShares {
    /// Nobody locks it: only so may the connection be looked at while it waits for something else.
    waiting: Mutex<FuturesUnordered<BoxFuture<'static, InFlight>>>,
    count: usize,
}

impl PendingShares {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Takes a settlement that has begun.
    pub(super) fn push(&mut self, settling: BoxFuture<'static, InFlight>) {
        self.waiting().push(settling);
        self.count += 1;
    }

    /// The next one that has ended; `None` if none is under way. Dropping this loses nothing.
    pub(crate) async fn next(&mut self) -> Option<InFlight> {
        let done = self.waiting().next().await?;
        self.count = self.count.saturating_sub(1);
        Some(done)
    }

    /// One that has ended already.
    pub(super) fn next_ended(&mut self) -> Option<InFlight> {
        self.next().now_or_never()?
    }

    fn waiting(&mut self) -> &mut FuturesUnordered<BoxFuture<'static, InFlight>> {
        self.waiting
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
