//! `decide` against every order of events that 10,000 seeds come to: a wallet that answers late, errs, forgets and lies, a
//! network that holds and delivers late, and a pool that may stop between any two steps.

use std::collections::HashMap;
use std::time::Duration;

use dovetail_ledger::{Attempt, AttemptState, PayoutState, Rail};
use dovetail_lightning::{FailureClass, Hash32, PaymentStatus, Preimage};
use dovetail_units::{Msat, SplitMix64};

use super::decide::{Step, decide, is_worth_a_retry};

const SEEDS: u64 = 10_000;
const STEPS: usize = 200;
/// How long an invoice or offer lives here, in seconds.
const LIFE_S: u64 = 100;
/// A request reaches the wallet within this, or never.
const UNHEARD: Duration = Duration::from_secs(40);

/// What left the wallet for an attempt, and has neither arrived nor come back.
struct Flight {
    attempt: [u8; 32],
    hash: [u8; 32],
}

/// A wallet and the network behind it.
#[derive(Default)]
struct Wallet {
    notes: HashMap<[u8; 32], PaymentStatus>,
    hashes: HashMap<[u8; 32], [u8; 32]>,
    flights: Vec<Flight>,
    /// Requests on their way: when they were made.
    requests: Vec<(u64, Attempt)>,
    /// Payment hashes that were paid: how often.
    paid: HashMap<[u8; 32], u32>,
    dispatched: HashMap<[u8; 32], u32>,
    next_hash: u8,
}

/// What the ledger has.
#[derive(Default)]
struct Book {
    attempts: Vec<Attempt>,
    payout: Option<PayoutState>,
    payouts: u8,
    /// Payment hashes that were booked.
    booked: Vec<[u8; 32]>,
    losses: u32,
    has_lied: bool,
    has_reviewed: bool,
}

struct World {
    random: SplitMix64,
    now: u64,
    rail: Rail,
    wallet: Wallet,
    book: Book,
}

impl Wallet {
    fn status(&self, attempt: &[u8; 32]) -> PaymentStatus {
        self.notes
            .get(attempt)
            .copied()
            .unwrap_or(PaymentStatus::Unknown)
    }

    /// As wallets have promised: an attempt is dispatched once, a hash is not under way twice, an ended invoice is not paid.
    fn pay(&mut self, attempt: &Attempt, now: u64) {
        if self.notes.contains_key(&attempt.id) {
            return;
        }
        let hash = attempt.payment_hash.unwrap_or_else(|| {
            self.next_hash += 1;
            [self.next_hash; 32]
        });
        let is_in_flight = self.hashes.iter().any(|(id, of)| {
            *of == hash && !matches!(self.status(id), PaymentStatus::Failed { .. })
        });
        if is_in_flight {
            return;
        }
        self.hashes.insert(attempt.id, hash);
        if attempt.rail == Rail::Bolt11 && now >= attempt.expires_at_unix {
            let ended = PaymentStatus::failed(FailureClass::Expired);
            self.notes.insert(attempt.id, ended);
            return;
        }
        *self.dispatched.entry(attempt.id).or_default() += 1;
        self.notes.insert(attempt.id, PaymentStatus::Pending);
        self.flights.push(Flight {
            attempt: attempt.id,
            hash,
        });
    }

    /// A payment arrives: its payee takes a hash once.
    fn arrive(&mut self, flight: &Flight) {
        *self.paid.entry(flight.hash).or_default() += 1;
        let under_way = self
            .hashes
            .iter()
            .find(|(id, of)| **of == flight.hash && self.status(id) == PaymentStatus::Pending)
            .map_or(flight.attempt, |(id, _)| *id);
        let succeeded = PaymentStatus::Succeeded {
            fee_msat: 0,
            preimage: Preimage(flight.hash),
            payment_hash: Hash32(flight.hash),
        };
        self.notes.insert(under_way, succeeded);
        // The others of this hash have come back then.
        let hash = flight.hash;
        self.flights.retain(|other| other.hash != hash);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let rail = match random.below(2) {
            0 => Rail::Bolt11,
            _ => Rail::Bolt12,
        };
        Self {
            random,
            now: 1_000,
            rail,
            wallet: Wallet::default(),
            book: Book::default(),
        }
    }

    fn prepare(&mut self, destination_of: Option<&Attempt>) {
        let n = u8::try_from(self.book.attempts.len() + 1).unwrap();
        let payment_hash = match (self.rail, destination_of) {
            (Rail::Bolt12 | Rail::Onchain, _) => None,
            (Rail::Bolt11, Some(last)) => last.payment_hash,
            (Rail::Bolt11, None) => Some([128 + self.book.payouts; 32]),
        };
        let expires_at_unix = destination_of.map_or(self.now + LIFE_S, |last| last.expires_at_unix);
        self.book.attempts.push(Attempt {
            id: [n; 32],
            payout: [self.book.payouts; 32],
            payee: String::new(),
            amount: Msat::new(1),
            payout_state: PayoutState::Reserved,
            rail: self.rail,
            destination: String::new(),
            payment_hash,
            fee_max: Msat::ZERO,
            cltv_max: 432,
            expires_at_unix,
            state: AttemptState::Prepared,
            failure_class: None,
            age: Duration::ZERO,
        });
    }

    /// A payout begins, is tried again or given up: what the service does without the wallet.
    fn turn(&mut self, may_begin: bool) {
        match (self.book.payout, self.book.attempts.last().cloned()) {
            (None | Some(PayoutState::Paid | PayoutState::Failed), _)
                if may_begin && self.book.payouts < 3 =>
            {
                self.book.payouts += 1;
                self.book.payout = Some(PayoutState::Reserved);
                self.prepare(None);
            }
            (Some(PayoutState::Reserved), Some(last)) if last.state == AttemptState::Failed => {
                let is_worth = is_worth_a_retry(&last, self.now, Duration::from_secs(5));
                if is_worth && self.book.attempts.len() < 100 {
                    self.prepare(Some(&last));
                } else {
                    self.set_payout(last.payout, PayoutState::Failed);
                }
            }
            _ => {}
        }
    }

    fn set_payout(&mut self, payout: [u8; 32], state: PayoutState) {
        for attempt in &mut self.book.attempts {
            if attempt.payout == payout {
                attempt.payout_state = state;
            }
        }
        if payout == [self.book.payouts; 32] {
            self.book.payout = Some(state);
        }
    }

    /// The pool looks at an attempt. It may stop between the wallet's answer and its own note, and the wallet may not answer.
    fn check(&mut self, index: usize) {
        let attempt = self.book.attempts[index].clone();
        let status = self.wallet.status(&attempt.id);
        if self.random.below(4) == 0 {
            return;
        }
        let step = decide(&attempt, &status, self.now, UNHEARD);
        self.apply(index, step);
    }

    fn apply(&mut self, index: usize, step: Step) {
        let attempt = self.book.attempts[index].clone();
        let state = &mut self.book.attempts[index].state;
        match step {
            Step::Wait => {}
            Step::Dispatch => {
                assert_eq!(*state, AttemptState::Prepared);
                self.wallet.requests.push((self.now, attempt));
            }
            Step::NoteDispatched => {
                assert_eq!(*state, AttemptState::Prepared);
                *state = AttemptState::Dispatched;
            }
            Step::Review(_) => {
                assert!(matches!(
                    *state,
                    AttemptState::Prepared | AttemptState::Dispatched
                ));
                *state = AttemptState::Review;
                self.book.has_reviewed = true;
            }
            Step::Fail(class) => {
                assert!(state.is_open());
                *state = AttemptState::Failed;
                self.book.attempts[index].failure_class = Some(class.to_owned());
                self.is_proven(&attempt);
            }
            Step::Succeed(proof) => self.succeed(index, proof.payment_hash),
        }
    }

    /// Nothing is called failed that the wallet has not, and that it might still pay.
    fn is_proven(&self, attempt: &Attempt) {
        let status = self.wallet.status(&attempt.id);
        if self.book.has_lied || matches!(status, PaymentStatus::Failed { .. }) {
            return;
        }
        let flies = |flight: &Flight| flight.attempt == attempt.id;
        assert!(!self.wallet.flights.iter().any(flies), "it is on its way");
        let is_paid = |(hash, _): (&[u8; 32], &u32)| Some(*hash) == attempt.payment_hash;
        assert!(
            !self.wallet.hashes.contains_key(&attempt.id) || self.wallet.paid.iter().any(is_paid),
            "the wallet has heard of it"
        );
        let asked = |(at, request): &(u64, Attempt)| {
            request.id == attempt.id
                && self.now < at + UNHEARD.as_secs()
                && (attempt.rail == Rail::Bolt12 || self.now < attempt.expires_at_unix)
        };
        let is_paid = self.wallet.paid.iter().any(is_paid);
        assert!(
            is_paid || !self.wallet.requests.iter().any(asked),
            "the wallet may hear of it"
        );
    }

    /// As the ledger books it.
    fn succeed(&mut self, index: usize, hash: [u8; 32]) {
        let attempt = self.book.attempts[index].clone();
        assert_ne!(attempt.state, AttemptState::Succeeded);
        self.book.attempts[index].state = AttemptState::Succeeded;
        for other in &mut self.book.attempts {
            if other.payment_hash == Some(hash) && other.state == AttemptState::Prepared {
                other.state = AttemptState::Failed;
            }
        }
        if self.book.booked.contains(&hash) {
            return;
        }
        self.book.booked.push(hash);
        match attempt.payout_state {
            PayoutState::Reserved => {}
            PayoutState::Failed | PayoutState::Paid => self.book.losses += 1,
        }
        self.set_payout(attempt.payout, PayoutState::Paid);
    }

    /// Something happens in the wallet or the network.
    fn happen(&mut self) {
        if !self.wallet.requests.is_empty() && self.random.below(2) == 0 {
            let (at, attempt) = self.wallet.requests.remove(0);
            // Some are lost with their connection.
            let is_in_time = self.now < at + UNHEARD.as_secs();
            if is_in_time && self.random.below(5) != 0 {
                self.wallet.pay(&attempt, self.now);
            }
        }
        if self.wallet.flights.is_empty() {
            return;
        }
        let failed = PaymentStatus::failed(FailureClass::NoRoute);
        match self.random.below(40) {
            0..8 => {
                let flight = self.wallet.flights.remove(0);
                self.wallet.arrive(&flight);
            }
            8..20 => {
                let flight = self.wallet.flights.remove(0);
                self.wallet.notes.insert(flight.attempt, failed);
            }
            20..22 => {
                let flight = &self.wallet.flights[0];
                self.wallet.notes.insert(flight.attempt, failed);
                self.book.has_lied = true;
            }
            22 => {
                let flight = &self.wallet.flights[0];
                self.wallet.notes.remove(&flight.attempt);
                self.book.has_lied = true;
            }
            23 => {
                let flight = &self.wallet.flights[0];
                self.wallet
                    .notes
                    .insert(flight.attempt, PaymentStatus::Review);
                self.book.has_lied = true;
            }
            _ => {}
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.below(5) {
                0 => self.turn(true),
                1 => self.now += self.random.below(15),
                2 => self.happen(),
                _ if self.book.attempts.is_empty() => {}
                _ => {
                    let count = u64::try_from(self.book.attempts.len()).unwrap();
                    let index = usize::try_from(self.random.below(count)).unwrap();
                    self.check(index);
                }
            }
        }
        self.come_to_rest();
    }

    /// What is on its way arrives, and everything is looked at until nothing changes.
    fn come_to_rest(&mut self) {
        for _ in 0..8 {
            while let Some(flight) = self.wallet.flights.pop() {
                self.wallet.arrive(&flight);
            }
            self.now += LIFE_S + UNHEARD.as_secs() + 1;
            self.wallet.requests.clear();
            for index in 0..self.book.attempts.len() {
                let attempt = self.book.attempts[index].clone();
                let status = self.wallet.status(&attempt.id);
                let step = decide(&attempt, &status, self.now, UNHEARD);
                self.apply(index, step);
            }
            self.turn(false);
        }
    }

    fn check_all(&self) {
        let book = &self.book;
        // A wallet that has forgotten may be told again, and keeps to its word otherwise.
        let once = self.wallet.dispatched.values().all(|times| *times == 1);
        assert!(once || book.has_lied, "an attempt is dispatched once");
        let in_review = book
            .attempts
            .iter()
            .any(|attempt| attempt.state == AttemptState::Review);
        // Nothing stays open but what a person has to decide.
        for attempt in &book.attempts {
            assert!(!attempt.state.is_open() || attempt.state == AttemptState::Review);
        }
        assert!(in_review || book.payout != Some(PayoutState::Reserved));
        // What was paid is booked, and the other way round; what the wallet has forgotten only a person can book.
        for (hash, times) in &self.wallet.paid {
            assert_eq!(*times, 1, "a payee takes a hash once");
            assert!(book.booked.contains(hash) || book.has_reviewed || book.has_lied);
        }
        assert!(
            book.booked
                .iter()
                .all(|hash| self.wallet.paid.contains_key(hash))
        );
        if !book.has_lied {
            assert_eq!(self.wallet.paid.len(), book.booked.len());
            assert_eq!(book.losses, 0, "an honest wallet makes no loss");
            assert!(!book.has_reviewed, "an honest wallet leaves nothing open");
            assert!(book.booked.len() <= usize::from(book.payouts));
        }
    }
}

#[test]
fn no_order_of_events_pays_twice_or_loses_what_an_honest_wallet_says() {
    let (mut paid, mut lies, mut reviews, mut losses) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            world.check_all();
            world.book
        });
        let book = run.unwrap_or_else(|_| panic!("seed {seed}"));
        paid += book.booked.len();
        lies += usize::from(book.has_lied);
        reviews += usize::from(book.has_reviewed);
        losses += usize::from(book.losses > 0);
    }
    println!("{paid} paid; seeds: {lies} with lies, {reviews} with reviews, {losses} with losses");
    assert!(paid > 5_000 && lies > 1_000 && reviews > 100 && losses > 20);
}
