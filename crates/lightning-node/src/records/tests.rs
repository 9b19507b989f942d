use std::io;

use dovetail_lightning::{FailureClass, Hash32, PaymentStatus, Preimage};

use crate::test_folder::TestFolder;

use super::{Begun, Ending, Records, State, Target};

const HASH: Hash32 = Hash32([9; 32]);
const INVOICE: Target = Target::Invoice { payment_hash: HASH };
const OFFER: Target = Target::Offer {
    offer: Hash32([8; 32]),
    amount_msat: 1_000,
};
const NO_ROUTE: Ending = Ending::Failure(FailureClass::NoRoute);

fn attempt(n: u8) -> Hash32 {
    Hash32([n; 32])
}

fn success(hash: Hash32) -> Ending {
    Ending::Success {
        fee_msat: 3,
        preimage: Preimage([1; 32]),
        payment_hash: hash,
    }
}

fn paid(hash: Hash32) -> PaymentStatus {
    PaymentStatus::Succeeded {
        fee_msat: 3,
        preimage: Preimage([1; 32]),
        payment_hash: hash,
    }
}

fn failed() -> PaymentStatus {
    PaymentStatus::failed(FailureClass::NoRoute)
}

#[test]
fn an_attempt_is_begun_once_also_after_a_start() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Unknown);
    assert_eq!(
        records.begin(attempt(1), INVOICE, State::Noted)?,
        Begun::Now
    );
    let mut records = Records::open(folder.path())?;
    let again = records.begin(attempt(1), INVOICE, State::Noted)?;
    assert_eq!(again, Begun::Before(PaymentStatus::Pending));
    assert_eq!(
        records.begin(attempt(1), OFFER, State::Noted)?,
        Begun::Reused
    );
    Ok(())
}

#[test]
fn a_hash_is_tried_again_only_after_a_proven_failure() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    records.begin(attempt(1), INVOICE, State::Noted)?;
    for state in [State::Sent, State::Review] {
        records.settle(&attempt(1), state)?;
        let begun = records.begin(attempt(2), INVOICE, State::Noted)?;
        assert_eq!(begun, Begun::HashInFlight);
        assert_eq!(records.status(&attempt(2)), PaymentStatus::Unknown);
    }
    records.settle(&attempt(1), State::Sent)?;
    assert_eq!(records.end(HASH, NO_ROUTE)?, Some(attempt(1)));
    assert_eq!(
        records.begin(attempt(2), INVOICE, State::Noted)?,
        Begun::Now
    );
    assert_eq!(records.end(HASH, success(HASH))?, Some(attempt(2)));
    let third = records.begin(attempt(3), INVOICE, State::Noted)?;
    assert_eq!(third, Begun::HashInFlight);
    Ok(())
}

#[test]
fn a_success_is_never_taken_back_and_a_late_one_is_the_newest_attempts() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    for n in 1..=2 {
        records.begin(attempt(n), INVOICE, State::Noted)?;
        records.end(HASH, NO_ROUTE)?;
    }
    // The order is that of the attempts, not of their names or files.
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.end(HASH, success(HASH))?, Some(attempt(2)));
    assert_eq!(records.end(HASH, NO_ROUTE)?, None);
    records.settle(&attempt(2), State::Review)?;
    let records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), failed());
    assert_eq!(records.status(&attempt(2)), paid(HASH));
    Ok(())
}

#[test]
fn an_offers_payment_is_found_by_ldks_id_and_never_by_a_hash_that_the_payee_chose() -> io::Result<()>
{
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    records.begin(attempt(1), INVOICE, State::Noted)?;
    records.begin(attempt(2), OFFER, State::Noted)?;
    records.sent(&attempt(2), Hash32([7; 32]))?;
    let mut records = Records::open(folder.path())?;
    assert_eq!(
        records.end(Hash32([7; 32]), success(HASH))?,
        Some(attempt(2))
    );
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Pending);
    Ok(())
}

#[test]
fn an_unknown_id_is_the_offers_whose_id_is_not_noted_if_there_is_one() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    let id = Hash32([7; 32]);
    assert_eq!(records.end(id, success(HASH))?, None);
    records.begin(attempt(1), OFFER, State::Noted)?;
    records.begin(attempt(2), OFFER, State::Noted)?;
    assert_eq!(records.end(id, success(HASH))?, None, "it may be either's");
    records.sent(&attempt(2), Hash32([6; 32]))?;
    records.settle(&attempt(1), State::Review)?;
    assert_eq!(records.end(id, success(HASH))?, Some(attempt(1)));
    assert_eq!(records.status(&attempt(1)), paid(HASH));
    Ok(())
}

#[test]
fn ldk_may_tell_the_end_before_its_answer_is_noted() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    records.begin(attempt(1), INVOICE, State::Noted)?;
    records.end(HASH, success(HASH))?;
    records.sent(&attempt(1), HASH)?;
    assert_eq!(records.status(&attempt(1)), paid(HASH));
    Ok(())
}

#[test]
fn a_damaged_record_is_for_review_still_guards_its_hash_and_hinders_no_other() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    let other = Target::Invoice {
        payment_hash: Hash32([5; 32]),
    };
    records.begin(attempt(1), INVOICE, State::Noted)?;
    records.begin(attempt(2), other, State::Sent)?;
    records.begin(attempt(3), OFFER, State::Sent)?;
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with("0101") || name.starts_with("0303") {
            std::fs::write(path, "{")?;
        }
    }
    // What a crash left half-written is nobody's record.
    std::fs::write(folder.path().join("0404.partial"), "{")?;
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Review);
    assert_eq!(records.status(&attempt(2)), PaymentStatus::Pending);
    assert_eq!(records.status(&attempt(3)), PaymentStatus::Review);
    let begun = records.begin(attempt(4), INVOICE, State::Noted)?;
    assert_eq!(begun, Begun::HashInFlight);
    let again = records.begin(attempt(3), OFFER, State::Noted)?;
    assert_eq!(again, Begun::Before(PaymentStatus::Review));
    // An invoice's failure may be an earlier attempt's; a success has a proof.
    assert_eq!(records.end(HASH, NO_ROUTE)?, None);
    assert_eq!(records.end(HASH, success(HASH))?, Some(attempt(1)));
    assert_eq!(
        Records::open(folder.path())?.status(&attempt(1)),
        paid(HASH)
    );
    Ok(())
}

#[test]
fn what_is_forgotten_may_be_begun_again() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    records.begin(attempt(1), OFFER, State::Noted)?;
    std::fs::write(records.mark(&attempt(1)), "")?;
    assert!(records.is_marked(&attempt(1))?);
    records.forget(&attempt(1))?;
    assert!(!records.is_marked(&attempt(1))?);
    let mut records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), PaymentStatus::Unknown);
    assert_eq!(records.begin(attempt(1), OFFER, State::Noted)?, Begun::Now);
    Ok(())
}

#[test]
fn a_refused_offer_that_is_none_stays_failed_after_a_start() -> io::Result<()> {
    let folder = TestFolder::new()?;
    let mut records = Records::open(folder.path())?;
    let reason = FailureClass::Invalid;
    records.begin(attempt(1), Target::Unreadable, State::Failed { reason })?;
    let records = Records::open(folder.path())?;
    assert_eq!(records.status(&attempt(1)), PaymentStatus::failed(reason));
    Ok(())
}
