//! What follows from a wallet's word about an attempt. A pure function of what the ledger has, what the wallet says and the
//! time, so that it can be tried against every order of events.

use std::time::Duration;

use dovetail_ledger::{Attempt, AttemptState, PayoutState, Proof, Rail};
use dovetail_lightning::{FailureClass, PaymentStatus};
use dovetail_units::Msat;

/// Why an attempt failed that the wallet never heard of and now need not.
const NOT_SENT: &str = "not_sent";
/// Why an attempt is in review: the wallet had it under way and has forgotten it.
const FORGOTTEN: &str = "forgotten";
/// Why an attempt is in review: the wallet says that it cannot tell.
const WALLET_CANNOT_TELL: &str = "wallet";

/// What to do about an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Tell the wallet to pay. It dispatches an attempt once, however often it is told.
    Dispatch,
    /// Look again later.
    Wait,
    /// Note that it is under way.
    NoteDispatched,
    /// Book the success.
    Succeed(Proof),
    /// Note that it is proven failed.
    Fail(&'static str),
    /// Leave it to a person.
    Review(&'static str),
}

/// What follows for `attempt` from `status`. `unheard`: how long after its end a request of ours may still reach the
/// wallet.
pub(super) fn decide(
    attempt: &Attempt,
    status: &PaymentStatus,
    now_unix: u64,
    unheard: Duration,
) -> Step {
    match (attempt.state, status) {
        // A success ends everything, also after a failure.
        (AttemptState::Succeeded, _) => Step::Wait,
        (
            _,
            PaymentStatus::Succeeded {
                fee_msat,
                preimage,
                payment_hash,
            },
        ) => Step::Succeed(Proof {
            payment_hash: payment_hash.0,
            preimage: preimage.0,
            fee: Msat::new(i64::try_from(*fee_msat).unwrap_or(i64::MAX)),
        }),
        // Its failure is noted; only a late success is of interest.
        (AttemptState::Failed, _) => Step::Wait,
        (_, PaymentStatus::Failed { reason }) => Step::Fail(reason.name()),
        (AttemptState::Prepared, PaymentStatus::Unknown) => unheard_of(attempt, now_unix, unheard),
        (AttemptState::Prepared, PaymentStatus::Pending) => Step::NoteDispatched,
        // Whether it has paid nobody can know: paying again might pay twice, giving it up might give away what was paid.
        (AttemptState::Dispatched, PaymentStatus::Unknown) => Step::Review(FORGOTTEN),
        (AttemptState::Prepared | AttemptState::Dispatched, PaymentStatus::Review) => {
            Step::Review(WALLET_CANNOT_TELL)
        }
        (AttemptState::Dispatched, PaymentStatus::Pending)
        | (
            AttemptState::Review,
            PaymentStatus::Unknown | PaymentStatus::Pending | PaymentStatus::Review,
        ) => Step::Wait,
    }
}

/// The pool stopped between its note and the wallet's, or the wallet refused: nothing has left. A request of ours may still
/// be on its way, so it is not given up as long as the wallet might pay it.
fn unheard_of(attempt: &Attempt, now_unix: u64, unheard: Duration) -> Step {
    let is_over = now_unix > attempt.expires_at_unix.saturating_add(unheard.as_secs());
    let is_needed = attempt.payout_state == PayoutState::Reserved;
    match (is_needed, now_unix < attempt.expires_at_unix) {
        (true, true) => Step::Dispatch,
        (_, false) if !is_over => Step::Wait,
        (_, false) => Step::Fail(NOT_SENT),
        // Another attempt has paid the payout. An invoice is paid once; an offer's end is waited for.
        (false, true) if attempt.rail == Rail::Bolt11 => Step::Fail(NOT_SENT),
        (false, true) => Step::Wait,
    }
}

/// Whether the same invoice or offer is worth another attempt after this failure.
pub(super) fn is_worth_a_retry(last: &Attempt, now_unix: u64, life_min: Duration) -> bool {
    let failure = last.failure_class.as_deref();
    let is_hopeless = [FailureClass::Invalid, FailureClass::Expired]
        .iter()
        .any(|class| failure == Some(class.name()));
    !is_hopeless && now_unix + life_min.as_secs() < last.expires_at_unix
}
