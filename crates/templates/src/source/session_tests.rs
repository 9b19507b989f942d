use bitcoin::Network;
use bitcoin::consensus::serialize;
use tokio::sync::oneshot;

use super::*;
use crate::chain::RegtestChain;
use crate::handle::{Port, TemplateHandle, channel};
use crate::test_work::{EASY_BITS, mined, solution};

fn messages(source_id: u64, future: bool) -> (Tdp, Tdp) {
    let chain = RegtestChain::new(Network::Regtest, EASY_BITS).unwrap();
    let (mut template, tip) = chain.template(source_id, 1_800_000_000);
    template.future_template = future;
    (Tdp::NewTemplate(template), Tdp::SetNewPrevHash(tip))
}

fn feed(session: &mut Session<'_>, port: &mut Port, source_id: u64) {
    let (template, tip) = messages(source_id, true);
    session.on_message(template, &mut port.publisher).unwrap();
    session.on_message(tip, &mut port.publisher).unwrap();
}

fn newest(handle: &TemplateHandle) -> Arc<WorkSnapshot> {
    handle.current().unwrap()
}

fn source_id(message: &Tdp) -> u64 {
    match message {
        Tdp::SubmitSolution(solution) => solution.template_id,
        other => panic!("not a solution: {other}"),
    }
}

#[test]
fn a_future_template_is_published_with_its_tip_and_not_before() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    let (template, tip) = messages(70, true);
    session.on_message(template, &mut port.publisher).unwrap();
    assert!(handle.current().is_none());
    session.on_message(tip, &mut port.publisher).unwrap();
    assert!(!newest(&handle).template.future_template);
    let (template, _) = messages(71, false);
    session.on_message(template, &mut port.publisher).unwrap();
    assert_eq!(newest(&handle).sequence, 2);
}

#[test]
fn messages_that_make_no_sense_end_the_session() {
    let (_handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    let (template, tip) = messages(1, false);
    let (Tdp::NewTemplate(mut broken), _) = messages(2, true) else {
        unreachable!()
    };
    broken.coinbase_tx_outputs_count = 2;
    session
        .on_message(Tdp::NewTemplate(broken), &mut port.publisher)
        .unwrap();
    let Tdp::SetNewPrevHash(mut broken_tip) = tip.clone() else {
        unreachable!()
    };
    broken_tip.template_id = 2;
    for message in [
        template,
        tip,
        Session::constraints(),
        Tdp::SetNewPrevHash(broken_tip),
    ] {
        let result = session.on_message(message, &mut port.publisher);
        assert!(matches!(result, Err(TemplateError::Protocol(_))));
    }
}

#[test]
fn solutions_carry_the_sources_own_numbers() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    feed(&mut session, &mut port, 500);
    let work = newest(&handle);
    let message = session
        .solution(solution(work.template_id(), &mined(&work)))
        .unwrap();
    assert_eq!(source_id(&message), 500);
    let block = serialize(&mined(&work));
    assert_eq!(source_id(&session.solution_of_block(&block).unwrap()), 500);
}

#[test]
fn a_solution_from_before_a_reconnection_goes_to_the_equal_template() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    feed(&mut Session::new(&mut history), &mut port, 500);
    let work = newest(&handle);
    let solved = solution(work.template_id(), &mined(&work));
    let mut session = Session::new(&mut history);
    let refused = session.solution(solved.clone());
    assert!(matches!(refused, Err(TemplateError::UnknownTemplate(_))));
    feed(&mut session, &mut port, 3);
    assert_eq!(source_id(&session.solution(solved).unwrap()), 3);
}

#[test]
fn requests_for_the_same_transactions_are_asked_once_and_all_answered() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    feed(&mut session, &mut port, 9);
    let id = newest(&handle).template_id();
    let (first, mut first_answer) = oneshot::channel();
    let (second, mut second_answer) = oneshot::channel();
    assert!(session.want_transactions(id, first).is_some());
    assert!(session.want_transactions(id, second).is_none());
    let error = RequestTransactionDataErrorOwned {
        template_id: 9,
        error_code: ERROR_CODE_REQUEST_TRANSACTION_DATA_STALE_TEMPLATE_ID
            .try_into()
            .unwrap(),
    };
    session
        .on_message(Tdp::RequestTransactionDataError(error), &mut port.publisher)
        .unwrap();
    for answer in [&mut first_answer, &mut second_answer] {
        let stale = answer.try_recv().unwrap();
        assert!(matches!(stale, Err(TemplateError::StaleTemplate(stale)) if stale == id));
    }
}

#[test]
fn no_more_than_the_limit_wait_for_transactions() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    feed(&mut session, &mut port, 9);
    let id = newest(&handle).template_id();
    let mut waiting = Vec::new();
    for _ in 0..WAITING_MAX {
        let (reply, answer) = oneshot::channel();
        session.want_transactions(id, reply);
        waiting.push(answer);
    }
    let (reply, mut answer) = oneshot::channel();
    assert!(session.want_transactions(id, reply).is_none());
    assert!(answer.try_recv().unwrap().is_err());
    // Those who gave up make room.
    waiting.clear();
    let (reply, mut answer) = oneshot::channel();
    assert!(session.want_transactions(id, reply).is_some());
    assert!(answer.try_recv().is_err());
}

#[test]
fn work_is_given_again_as_the_same_template_of_the_source_and_only_of_this_session() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    session.renew(&mut port.publisher);
    assert!(handle.current().is_none());
    feed(&mut session, &mut port, 500);
    let first = newest(&handle);
    session.renew(&mut port.publisher);
    let renewed = newest(&handle);
    assert_eq!(renewed.sequence, first.sequence + 1);
    assert_ne!(renewed.template_id(), first.template_id());
    assert_eq!(renewed.prev_hash.template_id, renewed.template_id());
    // It is as old as before: nothing new was heard of the source.
    assert_eq!(renewed.received_at, first.received_at);
    let solved = solution(renewed.template_id(), &mined(&renewed));
    assert_eq!(source_id(&session.solution(solved).unwrap()), 500);
    let mut session = Session::new(&mut history);
    session.renew(&mut port.publisher);
    assert_eq!(newest(&handle).sequence, renewed.sequence);
}

#[test]
fn a_source_is_asked_for_what_it_has_given_in_this_session_and_as_often_as_it_takes() {
    let (_handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    assert!(session.question().is_none());
    feed(&mut session, &mut port, 500);
    for _ in 0..2 * WAITING_MAX {
        let question = session.question().unwrap();
        assert!(matches!(question, Tdp::RequestTransactionData(of) if of.template_id == 500));
    }
    assert!(Session::new(&mut history).question().is_none());
}
