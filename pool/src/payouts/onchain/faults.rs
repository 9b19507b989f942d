//! The service's own code on a real Postgres and a node behind its socket, from a seed. The service is killed at any await;
//! calls break before and after they are done; the node forgets its memory, the chain is reorganised, and somebody else
//! spends the wallet's coins. Then everything is brought to an end, and the books are held against the chain.
//!
//! `DOVETAIL_PAYOUT_SEEDS` sets how many seeds are run, `DOVETAIL_TEST_SEED` the first of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bitcoin::{Amount, Network, ScriptBuf};
use dovetail_bitcoin_rpc::{Credentials, RpcClient};
use dovetail_ledger::{FeesBorneBy, Ledger, NewAttempt, NewPayout, PayoutState, Rail};
use dovetail_onchain::{Node, WalletKeys};
use dovetail_telemetry::Telemetry;
use dovetail_units::time::unix_now;
use dovetail_units::{Msat, SplitMix64};

use super::scripted_node::ScriptedNode;
use super::{OnchainParts, OnchainPayouts};
use crate::config::OnchainConfig;
use crate::mailboxes::Mailboxes;
use crate::test_support::Database;

const SEEDS: u64 = 8;
const FAULTY_STEPS: usize = 60;
const ENDING_STEPS_MAX: usize = 400;
/// Within so many polls a round dies, if it does.
const AWAITS_MAX: u64 = 60;
const TPRV: &str = "tprv8ZgxMBicQKsPeDgjzdC36fs6bMjGApWDNLR9erAXMs5skhMv36j9MV5ecvfavji5khqjWaWSFhN3YcCUUdiKH6isR4Pwy3U5y5egddBr16m";
const PAYEES: [&str; 3] = [
    "bcrt1qa0sm0hxzj0x25rh8gw5xlzwlsfvvyz8u8nhukw",
    "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202",
    "bcrt1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqc8gma6",
];

/// A future that is cut off after so many polls.
struct CutOff<F> {
    inner: Pin<Box<F>>,
    polls: u64,
}

impl<F: Future> Future for CutOff<F> {
    /// Whether it came to its end.
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if self.polls == 0 {
            return Poll::Ready(false);
        }
        self.polls -= 1;
        self.inner.as_mut().poll(context).map(|_| true)
    }
}

struct World {
    database: Database,
    ledger: Ledger,
    keys: WalletKeys,
    node: ScriptedNode,
    random: SplitMix64,
    seed: u64,
    payouts: u8,
}

impl World {
    async fn new(seed: u64) -> Self {
        let database = Database::create().await;
        let ledger = database.ledger().await;
        ledger.migrate().await.unwrap();
        let descriptor = format!("wpkh({TPRV}/0/*)");
        let keys = WalletKeys::parse(&descriptor, Network::Regtest, 10).unwrap();
        let coins = [1_000_000; 12];
        let node = ScriptedNode::start(&keys, &coins, seed).await;
        for payee in PAYEES {
            database.credit(payee, 1_000_000_000).await;
        }
        Self {
            database,
            ledger,
            keys,
            node,
            random: SplitMix64::new(seed ^ 0x006f_6e63_6861_696e),
            seed,
            payouts: 0,
        }
    }

    /// A service that has just started, with connections of its own.
    async fn start(&self) -> OnchainPayouts {
        let text = "rpc = ''\ndescriptor = ''\ninterval_s = 0\nconfirmations = 2\nconf_target = 2\nthreshold_msat = 5000000";
        let config: OnchainConfig = toml::from_str(text).unwrap();
        let credentials = Credentials::UserPassword("a:b".to_owned());
        OnchainPayouts::new(OnchainParts {
            ledger: self.database.ledger().await,
            node: Node::new(RpcClient::new(self.node.address.clone(), credentials)),
            keys: self.keys.clone(),
            config,
            network: Network::Regtest,
            mailboxes: Mailboxes::default(),
            telemetry: Telemetry::none(),
            backoff: Duration::ZERO,
        })
    }

    /// A payee wants money, if it has nothing under way.
    async fn begin(&mut self) {
        self.payouts += 1;
        let payee = PAYEES[usize::try_from(self.random.below(3)).unwrap()];
        let sat = 5_000 + i64::try_from(self.random.below(40_000)).unwrap();
        let payout = NewPayout {
            id: [self.payouts; 32],
            payee: payee.to_owned(),
            amount: Msat::new(sat * 1_000),
            fees_borne_by: match self.random.below(2) {
                0 => FeesBorneBy::Pool,
                _ => FeesBorneBy::Payee,
            },
            attempt: NewAttempt {
                id: [self.payouts; 32],
                rail: Rail::Onchain,
                destination: payee.to_owned(),
                payment_hash: None,
                fee_max: Msat::new(3_000_000),
                cltv_max: 1,
                expires_at_unix: unix_now() + 3_600,
            },
        };
        // It may have one under way.
        let _ = self.ledger.begin_payout(&payout, Duration::ZERO).await;
    }

    /// What the service for payees does with payouts whose attempts have failed.
    async fn retry(&mut self) {
        for last in self.ledger.claim_retries(9, Duration::ZERO).await.unwrap() {
            let next = rand::random();
            let _ = self
                .ledger
                .prepare_attempt(last.payout, next, Duration::ZERO)
                .await;
        }
    }

    /// One round, which may die; then it starts again.
    async fn round(&mut self, mut service: OnchainPayouts, may_die: bool) -> OnchainPayouts {
        service.make_after = None;
        let polls = match may_die && self.random.below(2) == 0 {
            true => self.random.below(AWAITS_MAX),
            false => u64::MAX,
        };
        let ended = CutOff {
            inner: Box::pin(service.round()),
            polls,
        };
        match ended.await {
            true => service,
            false => self.start().await,
        }
    }

    /// Something happens to the chain. A seed has thefts or deep reorganisations: a payout that was paid, and that both
    /// together took back, is lost, and no pool can help it.
    fn happen(&mut self) {
        let has_thefts = self.seed.is_multiple_of(3);
        let mut node = self.node.state();
        match self.random.below(12) {
            0..=3 => node.mine_block(true),
            4..=6 => node.mine_block(false),
            7 => node.lose_memory(),
            8 if has_thefts => {
                // Not paid yet: what is two deep is booked.
                node.reorganise(1, self.random.below(2) == 0);
            }
            8 => {
                let depth = 1 + self.random.below(4);
                node.reorganise(usize::try_from(depth).unwrap(), self.random.below(2) == 0);
            }
            9 if has_thefts => node.steal(ScriptBuf::from_bytes(vec![0x51])),
            _ => {}
        }
    }

    async fn open(&self) -> usize {
        let records = self.ledger.payout_records(None, true, 99).await.unwrap();
        records.len()
    }
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    let mut service = world.start().await;
    world.node.state().breaks = true;
    for _ in 0..FAULTY_STEPS {
        match world.random.below(4) {
            0 => world.begin().await,
            1 => world.happen(),
            _ => {}
        }
        service = world.round(service, true).await;
        world.retry().await;
    }
    world.node.state().breaks = false;
    // Blocks come, and nothing else happens.
    let mut steps = 0;
    while world.open().await > 0 {
        steps += 1;
        assert!(steps < ENDING_STEPS_MAX, "seed {seed}: payouts do not end");
        world.node.state().mine_block(true);
        service = world.round(service, false).await;
        service = world.round(service, false).await;
        world.retry().await;
    }
    // Also what a reorganisation has taken back comes again.
    for _ in 0..4 {
        service = world.round(service, false).await;
        world.node.state().mine_block(true);
    }
    check(&world).await;
}

/// What the ledger calls paid, each payee has, once.
async fn check(world: &World) {
    let seed = world.seed;
    let records = world.ledger.payout_records(None, false, 999).await.unwrap();
    for payee in PAYEES {
        let script = payee
            .parse::<bitcoin::Address<bitcoin::address::NetworkUnchecked>>()
            .unwrap()
            .assume_checked()
            .script_pubkey();
        let booked: i64 = records
            .iter()
            .filter(|record| record.payee == payee && record.state == PayoutState::Paid)
            .map(|record| record.amount.get() / 1_000)
            .sum();
        let paid = Amount::from_sat(world.node.state().paid(&script));
        assert_eq!(
            i64::try_from(paid.to_sat()).unwrap(),
            booked,
            "seed {seed}: {payee}"
        );
    }
    let found = world.ledger.check_consistency().await.unwrap();
    assert_eq!(found.differences, [], "seed {seed}");
    assert!(
        records
            .iter()
            .any(|record| record.state == PayoutState::Paid),
        "seed {seed}: nobody was paid"
    );
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_and_whenever_each_payee_has_what_is_booked_and_has_it_once() {
    let first = variable("DOVETAIL_TEST_SEED").unwrap_or(1);
    let seeds = variable("DOVETAIL_PAYOUT_SEEDS").unwrap_or(SEEDS);
    for seed in first..first + seeds {
        run(seed).await;
    }
}
