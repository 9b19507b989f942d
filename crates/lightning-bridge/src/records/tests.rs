use std::io;

use dovetail_lightning::{FailureClass, Hash32, PaymentStatus, Preimage};

use super::{Begun, New, Records, State, Target};

const HASH: Hash32 = Hash32([9; 32]);
const INVOICE: Target = Target::Invoice { payment_hash: HASH };
const OFFER: Target = Target::Offer {
    offer: Hash32([8; 32]),
    amount_msat: 1_000,
};
const SENT: State = State::Sent {
    over_unix: 7,
    gave_up: None,
};
const FAILED: State = State::Failed {
    reason: FailureClass::NoRoute,
};
const SUCCEEDED: State = State::Succeeded {
    fee_msat: 3,
    preimage: Preimage([1; 32]),
    payment_hash: HASH,
};

fn attempt(n: u8) -> Hash32 {
    Hash32([n; 32])
}

fn new(n: u8, target: Target, state: State) -> New {
    New {
        attempt: attempt(n),
        target,
        amount_msat: 1_000,
        state,
    }
}

fn is_current(records: &Records, n: u8) -> bool {
    records.is_current(records.get(&attempt(n)).unwrap())
}

#[test]
fn an_attempt_is_begun_once_also_after_a_start() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Unknown);
    assert_eq!(records.begin(new(1, INVOICE, SENT))?, Begun::Now);
    let mut records = Records::open(folder.path())?;
    let again = records.begin(new(1, INVOICE, SENT))?;
    assert_eq!(again, Begun::Before(PaymentStatus::Pending));
    assert_eq!(records.begin(new(1, OFFER, State::Asked))?, Begun::Reused);
    Ok(())
}

#[test]
fn a_hash_is_tried_again_only_after_a_proven_failure() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    records.begin(new(1, INVOICE, SENT))?;
    for state in [SENT, State::Review] {
        records.settle(&attempt(1), state)?;
        assert_eq!(records.begin(new(2, INVOICE, SENT))?, Begun::HashInFlight);
        assert_eq!(records.status(&attempt(2)), PaymentStatus::Unknown);
    }
    records.settle(&attempt(1), FAILED)?;
    assert_eq!(records.begin(new(2, INVOICE, SENT))?, Begun::Now);
    records.settle(&attempt(2), SUCCEEDED)?;
    assert_eq!(records.begin(new(3, INVOICE, SENT))?, Begun::HashInFlight);
    Ok(())
}

#[test]
fn a_success_is_never_taken_back_and_a_late_one_is_the_newest_sent_attempts() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    for n in 1..=2 {
        records.begin(new(n, INVOICE, SENT))?;
        records.settle(&attempt(n), FAILED)?;
    }
    // It failed before the node heard of it: the node's payment is not its.
    records.begin(new(3, INVOICE, FAILED))?;
    // The order is that of the attempts, not of their names or files.
    let mut records = Records::open(folder.path())?;
    assert_eq!(
        [1, 2, 3].map(|n| is_current(&records, n)),
        [false, true, false]
    );
    records.settle(&attempt(2), SUCCEEDED)?;
    records.settle(&attempt(2), State::Review)?;
    let records = Records::open(folder.path())?;
    let failed = PaymentStatus::failed(FailureClass::NoRoute);
    assert_eq!(records.status(&attempt(1)), failed);
    assert!(records.status(&attempt(2)).is_final());
    assert_ne!(records.status(&attempt(2)), failed);
    Ok(())
}

#[test]
fn an_offer_that_stopped_before_its_invoice_was_noted_has_failed() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    records.begin(new(1, OFFER, State::Asked))?;
    records.begin(new(2, OFFER, State::Asked))?;
    assert!(records.invoiced(&attempt(2), HASH, 7)?);
    let records = Records::open(folder.path())?;
    let failed = PaymentStatus::failed(FailureClass::Other);
    assert_eq!(records.status(&attempt(1)), failed);
    assert_eq!(records.status(&attempt(2)), PaymentStatus::Pending);
    assert!(is_current(&records, 2));
    Ok(())
}

#[test]
fn an_offers_invoice_is_no_other_attempts_whoever_came_first() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    records.begin(new(1, OFFER, State::Asked))?;
    records.begin(new(2, OFFER, State::Asked))?;
    assert!(records.invoiced(&attempt(1), HASH, 7)?);
    assert!(!records.invoiced(&attempt(2), HASH, 7)?);
    assert_eq!(records.begin(new(3, INVOICE, SENT))?, Begun::HashInFlight);
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.begin(new(3, INVOICE, SENT))?, Begun::HashInFlight);
    Ok(())
}

#[test]
fn a_damaged_record_is_for_review_still_guards_its_hash_and_hinders_no_other() -> io::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut records = Records::open(folder.path())?;
    let other = Target::Invoice {
        payment_hash: Hash32([5; 32]),
    };
    records.begin(new(1, INVOICE, SENT))?;
    records.begin(new(2, other, SENT))?;
    records.begin(new(3, OFFER, State::Asked))?;
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("0101") || name.starts_with("0303") {
            std::fs::write(&path, "{")?;
        }
    }
    // What a crash left half-written is nobody's record.
    let partial = folder.path().join("0404.partial");
    std::fs::write(&partial, "{")?;
    let mut records = Records::open(folder.path())?;
    assert!(!partial.exists());
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Review);
    assert_eq!(records.status(&attempt(2)), PaymentStatus::Pending);
    assert_eq!(records.status(&attempt(3)), PaymentStatus::Review);
    assert_eq!(records.open_counts(), (1, 2));
    assert_eq!(records.begin(new(4, INVOICE, SENT))?, Begun::HashInFlight);
    let again = records.begin(new(3, OFFER, State::Asked))?;
    assert_eq!(again, Begun::Before(PaymentStatus::Review));
    // The node's list may have the proof.
    assert!(is_current(&records, 1));
    records.settle(&attempt(1), SUCCEEDED)?;
    let records = Records::open(folder.path())?;
    assert!(records.status(&attempt(1)).is_final());
    Ok(())
}
