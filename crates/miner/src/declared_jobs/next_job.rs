//! Which job is declared next: a pure decision, from the newest accepted job and what is wanted.

use bitcoin::Target;
use dovetail_commitment::BatchRoot;

use super::Demand;
use crate::pool_session::Channel;
use crate::search::Hash256;

/// How much the channel's target may move before a job is made again for it. A job keeps its target.
const TARGET_FACTOR: f64 = 2.0;

/// A job to be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextJob {
    /// One that carries a batch.
    Batch {
        /// The batch.
        root: BatchRoot,
        /// The request for a share of it.
        request: u64,
    },
    /// A plain one, since there is none on this tip.
    Tip,
    /// A plain one that is only better than the job on this tip.
    Renewal,
}

/// The newest job that the pool has accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a> {
    pub(super) tip: Hash256,
    pub(super) template: u64,
    /// The request that it was made for, if it carries a batch.
    pub(super) request: Option<u64>,
    /// The channel that it was built for.
    pub(super) channel: &'a Channel,
}

/// What the decision is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// The tip and the number of our newest template.
    pub(super) tip: Hash256,
    pub(super) template: u64,
    pub(super) channel: &'a Channel,
    pub(super) accepted: Option<Accepted<'a>>,
    pub(super) demand: Demand,
    /// The last request that was answered.
    pub(super) answered: u64,
    /// Whether plain jobs are declared between batches.
    pub(super) between_batches: bool,
}

/// The job to be declared next, if any.
pub(super) fn next_job(view: &View<'_>) -> Option<NextJob> {
    let good = view.accepted.filter(|job| {
        job.tip == view.tip
            && job.channel.extranonce_prefix == view.channel.extranonce_prefix
            && job.channel.extranonce_size == view.channel.extranonce_size
    });
    if let Demand::Share { root, request } = view.demand
        && request != view.answered
    {
        let serves = good.is_some_and(|job| {
            job.request == Some(request) && harder(job.channel, view.channel) < TARGET_FACTOR
        });
        return (!serves).then_some(NextJob::Batch { root, request });
    }
    if !view.between_batches {
        return None;
    }
    let Some(job) = good else {
        return Some(NextJob::Tip);
    };
    let settled = job.request.is_some() && matches!(view.demand, Demand::Nothing { .. });
    let factor = harder(job.channel, view.channel);
    let moved = factor >= TARGET_FACTOR || factor <= 1.0 / TARGET_FACTOR;
    (settled || moved || job.template != view.template).then_some(NextJob::Renewal)
}

/// How much harder a share was when the job was built than it would be now.
fn harder(built_for: &Channel, now: &Channel) -> f64 {
    let work = |target: &Hash256| Target::from_le_bytes(*target).difficulty_float();
    work(&built_for.target) / work(&now.target)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: BatchRoot = BatchRoot::from_bytes([3; 32]);
    const NOTHING: Demand = Demand::Nothing { hash_on: true };

    fn channel(top_byte: u8) -> Channel {
        let mut target = [0xff; 32];
        target[31] = top_byte;
        Channel {
            id: 2,
            target,
            extranonce_prefix: vec![1; 4],
            extranonce_size: 12,
            group_id: 1,
        }
    }

    fn view<'a>(channel: &'a Channel, accepted: Option<Accepted<'a>>) -> View<'a> {
        View {
            tip: [1; 32],
            template: 7,
            channel,
            accepted,
            demand: NOTHING,
            answered: 0,
            between_batches: true,
        }
    }

    fn accepted(channel: &Channel, request: Option<u64>) -> Accepted<'_> {
        Accepted {
            tip: [1; 32],
            template: 7,
            request,
            channel,
        }
    }

    #[test]
    fn a_plain_job_is_due_on_every_tip_and_renewed_for_better_fees() {
        let channel = channel(0x0f);
        assert_eq!(next_job(&view(&channel, None)), Some(NextJob::Tip));
        let mut now = view(&channel, Some(accepted(&channel, None)));
        assert_eq!(next_job(&now), None);
        now.template = 8;
        assert_eq!(next_job(&now), Some(NextJob::Renewal));
        now.tip = [2; 32];
        assert_eq!(next_job(&now), Some(NextJob::Tip));
        now.between_batches = false;
        assert_eq!(next_job(&now), None);
    }

    #[test]
    fn a_batch_takes_the_jobs_place_until_its_share_is_found_and_a_plain_job_follows_it() {
        let channel = channel(0x0f);
        let mut now = view(&channel, Some(accepted(&channel, None)));
        now.demand = Demand::Share {
            root: ROOT,
            request: 1,
        };
        let batch = Some(NextJob::Batch {
            root: ROOT,
            request: 1,
        });
        assert_eq!(next_job(&now), batch);
        now.accepted = Some(accepted(&channel, Some(1)));
        assert_eq!(next_job(&now), None);
        // A better template is no reason while the share is awaited, a new tip is.
        now.template = 8;
        assert_eq!(next_job(&now), None);
        now.tip = [2; 32];
        assert_eq!(next_job(&now), batch);
        // While the claim is audited the job is hashed on; on a new tip a plain one follows.
        (now.tip, now.template, now.answered) = ([1; 32], 7, 1);
        assert_eq!(next_job(&now), None);
        now.tip = [2; 32];
        assert_eq!(next_job(&now), Some(NextJob::Tip));
        (now.tip, now.demand) = ([1; 32], NOTHING);
        assert_eq!(next_job(&now), Some(NextJob::Renewal));
        // The share was stale: another request needs another job.
        now.demand = Demand::Share {
            root: ROOT,
            request: 2,
        };
        let again = NextJob::Batch {
            root: ROOT,
            request: 2,
        };
        assert_eq!(next_job(&now), Some(again));
    }

    #[test]
    fn a_job_is_made_again_for_a_target_or_an_extranonce_that_moved() {
        let (hard, easy) = (channel(0x0f), channel(0x3f));
        let plain = |built_for, now| next_job(&view(now, Some(accepted(built_for, None))));
        assert_eq!(plain(&hard, &easy), Some(NextJob::Renewal));
        assert_eq!(plain(&easy, &hard), Some(NextJob::Renewal));
        let mut batch = view(&easy, Some(accepted(&hard, Some(1))));
        batch.demand = Demand::Share {
            root: ROOT,
            request: 1,
        };
        assert!(matches!(next_job(&batch), Some(NextJob::Batch { .. })));
        // A harder target is no reason to wait longer for the share of a batch.
        (batch.channel, batch.accepted) = (&hard, Some(accepted(&easy, Some(1))));
        assert_eq!(next_job(&batch), None);
        let mut moved = hard.clone();
        moved.extranonce_prefix = vec![2; 4];
        assert_eq!(plain(&hard, &moved), Some(NextJob::Tip));
    }
}
