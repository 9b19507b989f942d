//! What became of the attempts that were under way when the node stopped, decided before it starts again.
//!
//! LDK sends nothing before what it sends lies in its store: in a channel's monitor or an update of one, and it keeps a
//! payment in its manager, and then in its queue of events, until this node has taken the event. So a payment whose id stands
//! in none of these is neither on its way nor waiting to be told of: nothing left, and the attempt may be begun again, or
//! has failed if its payer has heard of it.
//! LDK's own list of payments proves less: it is written after the payment left.

use std::collections::HashSet;
use std::io;

use dovetail_lightning::{FailureClass, Hash32, Preimage};
use ldk_node::Node;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::util::persist::KVStoreSync;
use ldk_node::payment::{PaymentDetails, PaymentDirection, PaymentKind, PaymentStatus};

use crate::records::{Ending, Record, Records, State, Target};

/// What LDK's files hold while a payment may still move: the manager and the events, then the monitors and their updates.
const ALONE: [&str; 2] = ["manager", "events"];
const MONITORS: &str = "monitors";
const MONITOR_UPDATES: &str = "monitor_updates";

/// What is known of a payment from LDK's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trace {
    /// What LDK's list of payments says.
    listed: Option<Listed>,
    /// Whether LDK's files hold its id.
    is_mentioned: bool,
}

/// A line of LDK's list of payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    Pending,
    Ended(Ending),
}

/// What to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    /// LDK will tell how it ends, by an event.
    Wait,
    /// It has ended.
    End(Ending),
    /// Nothing left.
    Forget,
    /// It cannot be told.
    Review,
}

/// Decides every open attempt. `node` is built and not started; `store` is its store.
pub(crate) fn decide_open_attempts(
    records: &mut Records,
    node: &Node,
    store: &impl KVStoreSync,
) -> io::Result<()> {
    let open = records.open_attempts();
    if open.is_empty() {
        return Ok(());
    }
    let payments = node.list_payments();
    let wanted = payments.iter().map(|payment| payment.id.0);
    let wanted = wanted.chain(open.iter().filter_map(|it| it.payment_id.map(|id| id.0)));
    let mentioned = mentioned(store, &wanted.collect())?;
    for record in open {
        let id = record
            .payment_id
            .or_else(|| unclaimed(records, &record, &payments));
        let decision = match id {
            Some(id) => {
                let payment = payments.iter().find(|payment| payment.id.0 == id.0);
                let trace = Trace {
                    listed: payment.and_then(listed),
                    is_mentioned: mentioned.contains(&id.0),
                };
                decide(&record, trace, is_retry(records, &record))
            }
            None => decide_without_id(&record, records.is_marked(&record.attempt)?),
        };
        tracing::info!(attempt = %hex::encode(record.attempt.0), ?decision, "an attempt that was under way");
        apply(records, node, &record, id, decision)?;
    }
    Ok(())
}

fn apply(
    records: &mut Records,
    node: &Node,
    record: &Record,
    id: Option<Hash32>,
    decision: Decision,
) -> io::Result<()> {
    match decision {
        Decision::Wait => match id {
            Some(id) => records.sent(&record.attempt, id),
            None => Ok(()),
        },
        Decision::End(ending) => records.settle(&record.attempt, ending.state()),
        Decision::Review => records.settle(&record.attempt, State::Review),
        Decision::Forget => {
            // Else LDK would refuse to pay the invoice again, for a payment that it lists and does not have.
            if let Some(id) = id {
                node.remove_payment(&PaymentId(id.0))
                    .map_err(io::Error::other)?;
            }
            records.forget(&record.attempt)
        }
    }
}

/// An attempt whose payment id is known.
fn decide(record: &Record, trace: Trace, is_retry: bool) -> Decision {
    match trace.listed {
        Some(Listed::Ended(ending @ Ending::Success { .. })) => Decision::End(ending),
        // A failure that an event will tell of comes as an event: this one may be an earlier attempt's.
        _ if trace.is_mentioned => match (record.state, is_retry) {
            (State::Review, _) | (State::Noted, true) => Decision::Review,
            _ => Decision::Wait,
        },
        Some(Listed::Ended(ending)) => Decision::End(ending),
        None | Some(Listed::Pending) => match record.state {
            // The payer has heard that it is under way: it must hear the end.
            State::Sent => Decision::End(Ending::Failure(FailureClass::Other)),
            State::Review => Decision::Review,
            _ => Decision::Forget,
        },
    }
}

/// An offer's attempt, where LDK lists no payment that could be its. LDK wrote nothing between the note and the end of the
/// process (`is_marked`): then it has forgotten the payment as well.
fn decide_without_id(record: &Record, is_marked: bool) -> Decision {
    match record.state {
        State::Noted if !is_marked => Decision::Forget,
        _ => Decision::Review,
    }
}

/// Whether the payment hash was tried before, so that LDK's files may hold it from then.
fn is_retry(records: &Records, record: &Record) -> bool {
    match record.target {
        Target::Invoice { payment_hash } => records.attempts_of(&payment_hash) > 1,
        Target::Offer { .. } | Target::Unreadable => false,
    }
}

/// The one payment of LDK's list that can be this offer's and is nobody's yet. Offers are dispatched one after the other, so
/// at most one attempt stopped between its note and LDK's answer, and all payments of this node are attempts.
fn unclaimed(records: &Records, record: &Record, payments: &[PaymentDetails]) -> Option<Hash32> {
    let Target::Offer { offer, amount_msat } = record.target else {
        return None;
    };
    let is_candidate = |payment: &&PaymentDetails| {
        let is_of_offer = matches!(&payment.kind, PaymentKind::Bolt12Offer { offer_id, .. } if offer_id.0 == offer.0);
        is_of_offer
            && payment.direction == PaymentDirection::Outbound
            && payment.amount_msat == Some(amount_msat)
            // What LDK refused at once is listed as failed, and was answered then.
            && payment.status != PaymentStatus::Failed
            && !records.is_known(&Hash32(payment.id.0))
    };
    let mut candidates = payments.iter().filter(is_candidate);
    match (candidates.next(), candidates.next()) {
        (Some(only), None) => Some(Hash32(only.id.0)),
        _ => None,
    }
}

fn listed(payment: &PaymentDetails) -> Option<Listed> {
    if payment.direction != PaymentDirection::Outbound {
        return None;
    }
    Some(match payment.status {
        PaymentStatus::Pending => Listed::Pending,
        PaymentStatus::Failed => Listed::Ended(Ending::Failure(FailureClass::Other)),
        PaymentStatus::Succeeded => {
            // Without a proof it is no success that could be told; the event has it.
            success(payment).map_or(Listed::Pending, Listed::Ended)
        }
    })
}

/// A listed success, if the list has its proof.
pub(crate) fn success(payment: &PaymentDetails) -> Option<Ending> {
    let (hash, preimage) = match &payment.kind {
        PaymentKind::Bolt11 { hash, preimage, .. } => (*hash, (*preimage)?),
        PaymentKind::Bolt12Offer { hash, preimage, .. } => ((*hash)?, (*preimage)?),
        _ => return None,
    };
    (payment.status == PaymentStatus::Succeeded).then_some(Ending::Success {
        fee_msat: payment.fee_paid_msat.unwrap_or(0),
        preimage: Preimage(preimage.0),
        payment_hash: Hash32(hash.0),
    })
}

/// Which of these ids stand anywhere in LDK's files.
fn mentioned(store: &impl KVStoreSync, ids: &HashSet<[u8; 32]>) -> io::Result<HashSet<[u8; 32]>> {
    let mut found = HashSet::new();
    let mut search = |primary: &str, secondary: &str, keys: &[String]| {
        for key in keys {
            let bytes = match store.read(primary, secondary, key) {
                Ok(bytes) => bytes,
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(io::Error::other(error.to_string())),
            };
            find(&bytes, ids, &mut found);
        }
        Ok(())
    };
    let list = |primary: &str, secondary: &str| {
        let keys = store.list(primary, secondary);
        keys.map_err(|error| io::Error::other(error.to_string()))
    };
    search("", "", &ALONE.map(str::to_owned))?;
    let monitors = list(MONITORS, "")?;
    search(MONITORS, "", &monitors)?;
    for monitor in &monitors {
        search(MONITOR_UPDATES, monitor, &list(MONITOR_UPDATES, monitor)?)?;
    }
    Ok(found)
}

fn is_absent(error: &ldk_node::lightning::io::Error) -> bool {
    error.kind() == ldk_node::lightning::io::ErrorKind::NotFound
}

fn find(bytes: &[u8], ids: &HashSet<[u8; 32]>, found: &mut HashSet<[u8; 32]>) {
    for window in bytes.windows(32) {
        if let Some(id) = ids.get(window) {
            found.insert(*id);
        }
    }
}

#[cfg(test)]
mod tests;
