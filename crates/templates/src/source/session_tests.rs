use bitcoin::consensus::serialize;
use bitcoin::{Amount, Network, ScriptBuf, TxOut};
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

/// A session that has given its first work.
fn opened<'h>(history: &'h mut History, port: &mut Port) -> Session<'h> {
    let mut session = Session::new(history);
    feed(&mut session, port, 500);
    session
}

fn changed(source_id: u64, future: bool, change: impl FnOnce(&mut NewTemplateOwned)) -> Tdp {
    let (Tdp::NewTemplate(mut template), _) = messages(source_id, future) else {
        unreachable!()
    };
    change(&mut template);
    Tdp::NewTemplate(template)
}

fn changed_tip(source_id: u64, change: impl FnOnce(&mut SetNewPrevHashOwned)) -> Tdp {
    let (_, Tdp::SetNewPrevHash(mut tip)) = messages(source_id, true) else {
        unreachable!()
    };
    change(&mut tip);
    Tdp::SetNewPrevHash(tip)
}

#[test]
fn messages_that_make_no_sense_are_passed_over_as_long_as_the_tip_is_known() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut early = Session::new(&mut history);
    let (template, _) = messages(1, false);
    early.on_message(template, &mut port.publisher).unwrap();
    assert!(handle.current().is_none());

    let mut session = opened(&mut history, &mut port);
    let last = newest(&handle).sequence;
    let unknown = RequestTransactionDataErrorOwned {
        template_id: 77,
        error_code: "no-such-word".try_into().unwrap(),
    };
    let unasked = RequestTransactionDataSuccessOwned {
        template_id: 78,
        excess_data: Vec::new().try_into().unwrap(),
        transaction_list: Vec::new().try_into().unwrap(),
    };
    let odd = [
        Session::constraints(),
        Tdp::RequestTransactionDataError(unknown),
        Tdp::RequestTransactionDataSuccess(unasked),
        changed(2, false, |template| template.coinbase_tx_outputs_count = 2),
        changed(3, false, |template| {
            template.coinbase_tx_outputs_count = u32::MAX
        }),
        changed(4, false, |template| {
            template.coinbase_prefix = Vec::new().try_into().unwrap();
        }),
        changed(5, false, |template| {
            template.coinbase_tx_value_remaining = u64::MAX
        }),
        changed(6, true, |template| template.coinbase_tx_outputs_count = 2),
        // One more than it says.
        changed(8, false, |template| template.coinbase_tx_outputs_count = 0),
        changed_tip(500, |_| {}),
    ];
    for message in odd {
        let words = message.to_string();
        let taken = session.on_message(message, &mut port.publisher);
        assert!(taken.is_ok(), "{words}");
        assert_eq!(newest(&handle).sequence, last, "{words}");
    }
    let (template, _) = messages(7, false);
    session.on_message(template, &mut port.publisher).unwrap();
    assert_eq!(newest(&handle).sequence, last + 1);
}

#[test]
fn a_tip_that_makes_no_sense_ends_the_session_and_gives_no_work() {
    for nbits in [0, 1, 0x0492_3456, 0x217f_ffff, 0xff7f_ffff, u32::MAX] {
        let (handle, mut port) = channel();
        let mut history = History::default();
        let mut session = opened(&mut history, &mut port);
        let (template, _) = messages(2, true);
        session.on_message(template, &mut port.publisher).unwrap();
        let tip = changed_tip(2, |tip| tip.n_bits = nbits);
        let ended = session.on_message(tip, &mut port.publisher);
        assert!(matches!(ended, Err(TemplateError::Protocol(_))));
        assert_eq!(newest(&handle).sequence, 1);
    }
    let (_handle, mut port) = channel();
    let mut history = History::default();
    let mut session = opened(&mut history, &mut port);
    let unknown = changed_tip(9, |_| {});
    let ended = session.on_message(unknown, &mut port.publisher);
    assert!(matches!(ended, Err(TemplateError::Protocol(_))));
}

#[test]
fn a_tip_may_name_a_template_that_was_given_before() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = opened(&mut history, &mut port);
    let other = changed_tip(500, |tip| tip.n_bits = 0x1e03_ffff);
    session.on_message(other, &mut port.publisher).unwrap();
    let work = newest(&handle);
    assert_eq!((work.sequence, work.nbits()), (2, 0x1e03_ffff));
    // Its solution goes out under the source's number.
    let question = session.question().unwrap();
    assert!(matches!(question, Tdp::RequestTransactionData(of) if of.template_id == 500));
}

#[test]
fn future_templates_that_are_never_activated_push_out_no_later_one() {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = opened(&mut history, &mut port);
    for id in 0..1_000 {
        let (template, _) = messages(u64::MAX - id, true);
        session.on_message(template, &mut port.publisher).unwrap();
    }
    assert_eq!(session.futures.len(), FUTURES_MAX);
    feed(&mut session, &mut port, 7);
    assert_eq!(newest(&handle).sequence, 2);
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

/// The first template of a chain whose blocks have this target, changed, and its tip.
fn first_of_chain(bits: u32, change: impl FnOnce(&mut NewTemplateOwned)) -> [Tdp; 2] {
    let chain = RegtestChain::new(Network::Regtest, bits).unwrap();
    let (mut template, tip) = chain.template(1, 1_800_000_000);
    template.future_template = true;
    change(&mut template);
    [Tdp::NewTemplate(template), Tdp::SetNewPrevHash(tip)]
}

fn published(messages: [Tdp; 2]) -> Result<u64, String> {
    let (handle, mut port) = channel();
    let mut history = History::default();
    let mut session = Session::new(&mut history);
    for message in messages {
        session
            .on_message(message, &mut port.publisher)
            .map_err(|error| error.to_string())?;
    }
    Ok(newest(&handle).coinbase_value_remaining_sat())
}

#[test]
fn a_source_that_takes_the_reward_of_a_block_is_left() {
    let thief = TxOut {
        value: Amount::from_sat(4_999_999_999),
        script_pubkey: ScriptBuf::from_bytes([vec![0x00, 0x14], vec![0xee; 20]].concat()),
    };
    let pays_itself = first_of_chain(EASY_BITS, |template| {
        let outputs = [template.coinbase_tx_outputs.as_bytes(), &serialize(&thief)].concat();
        template.coinbase_tx_outputs_count = 2;
        template.coinbase_tx_outputs = outputs.try_into().unwrap();
        template.coinbase_tx_value_remaining = 1;
    });
    let refused = published(pays_itself).unwrap_err();
    assert!(refused.contains("49.99999999 BTC"), "{refused}");
    let left = |sat| first_of_chain(EASY_BITS, |t| t.coinbase_tx_value_remaining = sat);
    let refused = published(left(4_999_999_999)).unwrap_err();
    assert!(
        refused.contains("the subsidy at height 1 is 50 BTC"),
        "{refused}"
    );
    assert_eq!(published(left(5_000_000_000)), Ok(5_000_000_000));
    // With fees.
    assert_eq!(published(left(5_000_000_001)), Ok(5_000_000_001));
}

#[test]
fn how_much_the_subsidy_is_depends_on_the_network() {
    let at_150 = |bits, sat| {
        published(first_of_chain(bits, |template| {
            template.coinbase_prefix = vec![0x02, 0x96, 0x00].try_into().unwrap();
            template.coinbase_tx_value_remaining = sat;
        }))
    };
    assert!(at_150(EASY_BITS, 2_500_000_000).is_ok());
    assert!(at_150(EASY_BITS, 2_499_999_999).is_err());
    // Blocks this hard are the main network's.
    assert!(at_150(0x1d00_ffff, 2_500_000_000).is_err());
}
