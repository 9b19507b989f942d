use std::collections::{HashMap, HashSet};

use ldk_node::lightning::io::{Error, ErrorKind};

use super::*;

const SUCCESS: Ending = Ending::Success {
    fee_msat: 0,
    preimage: Preimage([1; 32]),
    payment_hash: Hash32([9; 32]),
};
const FAILURE: Ending = Ending::Failure(FailureClass::Other);

fn record(state: State) -> Record {
    Record {
        attempt: Hash32([1; 32]),
        number: 1,
        target: Target::Invoice {
            payment_hash: Hash32([9; 32]),
        },
        payment_id: Some(Hash32([9; 32])),
        state,
    }
}

fn trace(listed: Option<Listed>, is_mentioned: bool) -> Trace {
    Trace {
        listed,
        is_mentioned,
    }
}

#[test]
fn what_ldks_files_do_not_hold_never_left() {
    for listed in [None, Some(Listed::Pending)] {
        let noted = decide(&record(State::Noted), trace(listed, false), false);
        assert_eq!(noted, Decision::Forget, "{listed:?}");
        // Its payer was told that it is pending: `unknown` would be no answer.
        let sent = decide(&record(State::Sent), trace(listed, false), false);
        assert_eq!(sent, Decision::End(FAILURE), "{listed:?}");
    }
}

#[test]
fn what_ldks_files_hold_is_waited_for_whatever_its_list_says() {
    let lists = [
        None,
        Some(Listed::Pending),
        // LDK's list was seen to say so of a payment that arrived.
        Some(Listed::Ended(FAILURE)),
    ];
    for state in [State::Noted, State::Sent] {
        for listed in lists {
            let decision = decide(&record(state), trace(listed, true), false);
            assert_eq!(decision, Decision::Wait, "{state:?} {listed:?}");
        }
    }
}

#[test]
fn a_second_attempt_that_stopped_half_way_may_be_mistaken_for_the_first() {
    let noted = decide(&record(State::Noted), trace(None, true), true);
    assert_eq!(noted, Decision::Review);
    let sent = decide(&record(State::Sent), trace(None, true), true);
    assert_eq!(sent, Decision::Wait);
}

#[test]
fn a_success_with_its_proof_is_one_in_every_state() {
    for state in [State::Noted, State::Sent, State::Review] {
        for is_mentioned in [false, true] {
            let listed = Some(Listed::Ended(SUCCESS));
            let decision = decide(&record(state), trace(listed, is_mentioned), true);
            assert_eq!(decision, Decision::End(SUCCESS));
        }
    }
}

#[test]
fn review_ends_by_a_proof_only() {
    for listed in [None, Some(Listed::Pending)] {
        for is_mentioned in [false, true] {
            let decision = decide(&record(State::Review), trace(listed, is_mentioned), false);
            assert_eq!(decision, Decision::Review);
        }
    }
}

#[test]
fn an_offer_without_an_id_is_forgotten_only_if_ldk_wrote_nothing() {
    let noted = record(State::Noted);
    assert_eq!(decide_without_id(&noted, false), Decision::Forget);
    assert_eq!(decide_without_id(&noted, true), Decision::Review);
    let review = record(State::Review);
    assert_eq!(decide_without_id(&review, false), Decision::Review);
}

/// LDK's files, by namespaces and key.
#[derive(Default)]
struct Files(HashMap<(String, String, String), Vec<u8>>);

impl Files {
    fn put(&mut self, primary: &str, secondary: &str, key: &str, id: u8) {
        let mut bytes = vec![0xee; 5];
        bytes.extend([id; 32]);
        bytes.push(0xee);
        let at = (primary.to_owned(), secondary.to_owned(), key.to_owned());
        self.0.insert(at, bytes);
    }
}

impl KVStoreSync for Files {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, Error> {
        let at = (primary.to_owned(), secondary.to_owned(), key.to_owned());
        let absent = || Error::new(ErrorKind::NotFound, "absent");
        self.0.get(&at).cloned().ok_or_else(absent)
    }

    fn write(&self, _: &str, _: &str, _: &str, _: Vec<u8>) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Other, "it is only read"))
    }

    fn remove(&self, _: &str, _: &str, _: &str, _: bool) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Other, "it is only read"))
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, Error> {
        let keys = self.0.keys();
        let keys = keys.filter(|(one, two, _)| one == primary && two == secondary);
        Ok(keys.map(|(_, _, key)| key.clone()).collect())
    }
}

#[test]
fn ids_are_found_wherever_ldk_keeps_a_payment_and_nowhere_else() -> io::Result<()> {
    let mut files = Files::default();
    files.put("", "", "manager", 1);
    files.put("", "", "events", 2);
    files.put("monitors", "", "channel_0", 3);
    files.put("monitor_updates", "channel_0", "7", 4);
    files.put("payments", "", "aa", 5);
    let ids: HashSet<[u8; 32]> = (1..=6).map(|id| [id; 32]).collect();
    let found = mentioned(&files, &ids)?;
    assert_eq!(found, (1..=4).map(|id| [id; 32]).collect());
    // A node that never ran has no files at all.
    assert!(mentioned(&Files::default(), &ids)?.is_empty());
    Ok(())
}
