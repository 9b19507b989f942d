//! Where payees have stated to be paid: when it holds, what cannot be changed, and who is chosen then.

use dovetail_payee::{PayTo, PayToKind, Schedule, Statement};

use super::*;
use crate::{Destinations, DuePayee, StatementRefusal};

const LEASE: Duration = Duration::from_secs(3_600);
const HOLD: Duration = Duration::from_secs(86_400);

fn address(text: &str) -> PayTo {
    PayTo::kept(PayToKind::LightningAddress, text.to_owned())
}

fn statement(account: &str, pay_to: PayTo, made: u64) -> Statement {
    Statement {
        pool: [7; 32],
        network: bitcoin::Network::Regtest,
        account: account.to_owned(),
        pay_to,
        fallback: None,
        threshold_msat: None,
        schedule: Schedule::AsEarned,
        made_unix: 1_790_000_000 + made,
    }
}

/// States it, to hold at once. Whether the proof is one is not the ledger's affair.
pub(in super::super) async fn state(ledger: &Ledger, account: &str, to: &str, made: u64) {
    let statement = statement(account, address(to), made);
    let stated = ledger.state_destination(&statement, &[1; 64], Duration::ZERO);
    stated.await.unwrap();
}

/// Where it leads now, and will.
async fn leads(ledger: &Ledger, account: &str) -> (Option<String>, Option<String>) {
    let Destinations { active, pending } = ledger.destinations(account).await.unwrap();
    let value = |record: crate::DestinationRecord| record.pay_to.value().to_owned();
    (active.map(value), pending.map(value))
}

/// As if so many hours had passed: the only way is past the triggers.
async fn pass_hours(db: &Database, hours: i32) {
    let mut connection = db.connection().await;
    let back = format!(
        "SET session_replication_role = replica;
         UPDATE destinations SET created_at = created_at - interval '{hours} hours', active_from = active_from - interval '{hours} hours';
         UPDATE payouts SET created_at = created_at - interval '{hours} hours'"
    );
    sqlx::raw_sql(AssertSqlSafe(back))
        .execute(&mut connection)
        .await
        .unwrap();
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_change_holds_after_its_hold_and_a_newer_statement_takes_it_back() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        let change = |to: &str, made| statement("alice", address(to), made);
        let state =
            async |statement: Statement| ledger.state_destination(&statement, &[1; 64], HOLD).await;
        assert_eq!(leads(&ledger, "alice").await, (None, None));
        state(change("alice@a.example", 1)).await.unwrap();
        assert_eq!(
            leads(&ledger, "alice").await,
            (None, text("alice@a.example"))
        );
        pass_hours(&db, 24).await;
        assert_eq!(
            leads(&ledger, "alice").await,
            (text("alice@a.example"), None)
        );
        // A thief states another place. The owner sees it, and states the old one: that holds at once.
        state(change("thief@b.example", 2)).await.unwrap();
        let under_way = (text("alice@a.example"), text("thief@b.example"));
        assert_eq!(leads(&ledger, "alice").await, under_way);
        pass_hours(&db, 23).await;
        assert_eq!(leads(&ledger, "alice").await, under_way);
        state(change("alice@a.example", 3)).await.unwrap();
        assert_eq!(
            leads(&ledger, "alice").await,
            (text("alice@a.example"), None)
        );
        pass_hours(&db, 48).await;
        assert_eq!(
            leads(&ledger, "alice").await,
            (text("alice@a.example"), None)
        );
        // Another change ends one that waits.
        state(change("first@c.example", 4)).await.unwrap();
        state(change("second@c.example", 5)).await.unwrap();
        pass_hours(&db, 24).await;
        assert_eq!(
            leads(&ledger, "alice").await,
            (text("second@c.example"), None)
        );
        let rules = ledger.check_consistency().await.unwrap();
        assert_eq!(rules.differences, []);
    });
}

#[test]
fn what_leads_nowhere_else_holds_at_once() {
    run(|_db, ledger| async move {
        let worker = "4f355bdcb7cc0af728ef3cceb9615d90684bb5b2ca5f859ab0f0b704075871aa";
        earn(&ledger, &[worker], 10_000).await;
        let own = PayTo::kept(PayToKind::Worker, worker.to_owned());
        let mut same = statement(worker, own, 1);
        same.threshold_msat = Some(50_000);
        same.schedule = Schedule::Weekly {
            weekday: 6,
            hour: 23,
        };
        let taken = ledger.state_destination(&same, &[1; 64], HOLD).await;
        let taken = taken.unwrap();
        let stated = ledger.destinations(worker).await.unwrap();
        assert_eq!((stated.active, stated.pending), (Some(taken.clone()), None));
        assert_eq!(
            (taken.threshold, taken.schedule),
            (Some(Msat::new(50_000)), same.schedule)
        );
        // An address besides is another place.
        let mut besides = Statement {
            made_unix: same.made_unix + 1,
            ..same
        };
        besides.fallback = text("bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x");
        ledger
            .state_destination(&besides, &[1; 64], HOLD)
            .await
            .unwrap();
        let stated = ledger.destinations(worker).await.unwrap();
        assert_eq!(stated.active, Some(taken));
        assert_eq!(stated.pending.unwrap().fallback, besides.fallback);
    });
}

#[test]
fn a_statement_is_taken_once_and_older_ones_not_at_all() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        let state = async |account: &str, to: &str, made| {
            let statement = statement(account, address(to), made);
            ledger.state_destination(&statement, &[1; 64], HOLD).await
        };
        let unknown = state("nobody", "a@b.example", 1).await;
        assert!(matches!(unknown, Err(StatementRefusal::AccountUnknown)));
        let first = state("alice", "a@b.example", 5).await.unwrap();
        assert_eq!(state("alice", "a@b.example", 5).await.unwrap(), first);
        let count = async || -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM destinations")
                .fetch_one(&ledger.pool)
                .await
                .unwrap()
        };
        assert_eq!(count().await, 1);
        for (to, made) in [
            ("other@b.example", 5),
            ("a@b.example", 4),
            ("other@b.example", 4),
        ] {
            let stale = state("alice", to, made).await;
            assert!(matches!(stale, Err(StatementRefusal::Stale)), "{to} {made}");
        }
        for made in 6..21 {
            state("alice", "a@b.example", made).await.unwrap();
        }
        let many = state("alice", "a@b.example", 21).await;
        assert!(matches!(many, Err(StatementRefusal::TooMany)));
        assert_eq!(count().await, 16);
    });
}

#[test]
fn two_statements_at_once_follow_on_each_other() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        let other = db.ledger().await;
        for round in 0..6 {
            let [a, b] = [2 * round, 2 * round + 1]
                .map(|made| statement("alice", address(&format!("n{made}@b.example")), made));
            let (a, b) = tokio::join!(
                ledger.state_destination(&a, &[1; 64], HOLD),
                other.state_destination(&b, &[1; 64], HOLD)
            );
            // The older one may have come too late.
            assert!(a.is_ok() || matches!(a, Err(StatementRefusal::Stale)));
            b.unwrap();
        }
        assert_eq!(leads(&ledger, "alice").await, (None, text("n11@b.example")));
        assert_eq!(ledger.check_consistency().await.unwrap().differences, []);
    });
}

#[test]
fn statements_are_facts() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice"], 10_000).await;
        state(&ledger, "alice", "a@b.example", 1).await;
        let mut connection = db.connection().await;
        for change in [
            "UPDATE destinations SET value = 'thief@b.example'",
            "UPDATE destinations SET active_from = now() + interval '1 day'",
            "DELETE FROM destinations",
            "TRUNCATE destinations CASCADE",
            // Backdated, or older than the newest.
            "INSERT INTO destinations (payee, kind, value, made_at, statement, proof, created_at, active_from)
             SELECT payee, kind, 'c@b.example', made_at, statement, proof, now(), now() FROM destinations",
            "INSERT INTO destinations (payee, kind, value, made_at, statement, proof, created_at, active_from)
             SELECT payee, kind, 'c@b.example', made_at + interval '1 s', statement, proof, now(), now() - interval '1 s'
               FROM destinations",
        ] {
            let refused = sqlx::raw_sql(change).execute(&mut connection).await;
            assert!(refused.is_err(), "{change}");
        }
        assert_eq!(leads(&ledger, "alice").await, (text("a@b.example"), None));
    });
}

/// A query in which everything is possible.
fn everything<'a>(connected: &'a [String]) -> PayeeQuery<'a> {
    PayeeQuery {
        connected,
        threshold: Msat::new(1_000),
        payout_max: Msat::new(100_000),
        onchain_threshold: Some(Msat::new(50_000)),
        lightning_addresses: true,
        limit: 32,
    }
}

async fn due(ledger: &Ledger, query: &PayeeQuery<'_>) -> Vec<DuePayee> {
    let mut due = ledger.claim_payees(query, LEASE).await.unwrap();
    due.sort_by(|a, b| a.payee.cmp(&b.payee));
    // The next one who asks is to see them too.
    sqlx::query("UPDATE payees SET next_try_at = now() - interval '1 s'")
        .execute(&ledger.pool)
        .await
        .unwrap();
    due
}

async fn due_names(ledger: &Ledger, query: &PayeeQuery<'_>) -> Vec<String> {
    let due = due(ledger, query).await;
    due.into_iter().map(|due| due.payee).collect()
}

const ONCHAIN: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";
const LEGACY: &str = "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn";

#[test]
fn rich_accounts_that_nothing_leads_to_keep_nobody_waiting() {
    run(|_db, ledger| async move {
        // More than are chosen at once, and richer: the first of them in the table too.
        let plain: Vec<String> = (0..40).map(|n| format!("plain-miner-{n}")).collect();
        let away: Vec<String> = (0..40).map(|n| format!("{n:064x}")).collect();
        let rich: Vec<&str> = plain.iter().chain(&away).map(|name| &**name).collect();
        earn(&ledger, &rich, 90_000).await;
        let offer = format!("lno1{}", "q".repeat(60));
        let names = [
            "you@wallet.example",
            ONCHAIN,
            LEGACY,
            &offer,
            &plain[39],
            &away[39],
        ];
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(&ledger, dir.path()).await;
        for (n, name) in (200..).zip(&names[..4]) {
            let share = numbered_share(n, name, 60_000);
            running.committer.commit(share).await.unwrap();
        }
        running.stop().await;
        state(&ledger, &plain[39], "plain@wallet.example", 1).await;
        state(&ledger, &away[39], "away@wallet.example", 1).await;
        let mut expected = names.map(str::to_owned);
        expected.sort();
        assert_eq!(due_names(&ledger, &everything(&[])).await, expected);
        // Nobody else was read either.
        let scanned: i64 = sqlx::query_scalar("SELECT count(*) FROM payees")
            .fetch_one(&ledger.pool)
            .await
            .unwrap();
        assert_eq!(scanned, 6);
        let fewer = PayeeQuery {
            onchain_threshold: None,
            lightning_addresses: false,
            ..everything(&[])
        };
        assert_eq!(due_names(&ledger, &fewer).await, [offer]);
        let higher = PayeeQuery {
            onchain_threshold: Some(Msat::new(60_001)),
            ..everything(&[])
        };
        assert_eq!(due_names(&ledger, &higher).await.len(), 4);
    });
}

#[test]
fn a_payee_is_found_where_it_has_stated_and_no_more_where_its_name_says() {
    run(|db, ledger| async move {
        let (name, other) = (format!("{:064x}", 1), format!("{:064x}", 2));
        earn(&ledger, &[&name], 90_000).await;
        let connected = [name.clone()];
        let found = async |connected: &[String]| {
            let due = due(&ledger, &everything(connected)).await;
            due.into_iter().map(|due| due.stated).next()
        };
        assert_eq!(found(&connected).await, Some(None));
        assert_eq!(found(&[]).await, None);
        // At another worker: only while that one is there.
        let to = PayTo::kept(PayToKind::Worker, other.clone());
        let statement = statement(&name, to.clone(), 1);
        ledger
            .state_destination(&statement, &[1; 64], HOLD)
            .await
            .unwrap();
        assert_eq!(found(&connected).await, Some(None));
        pass_hours(&db, 24).await;
        assert_eq!(found(&connected).await, None);
        assert_eq!(found(&[other]).await, Some(Some(to)));
        state(&ledger, &name, "you@wallet.example", 2).await;
        assert_eq!(found(&[]).await, Some(Some(address("you@wallet.example"))));
    });
}

#[test]
fn a_payee_that_lightning_does_not_reach_is_found_for_its_address() {
    run(|_db, ledger| async move {
        earn(&ledger, &["alice", ONCHAIN], 60_000).await;
        let stated = Statement {
            fallback: text(LEGACY),
            ..statement("alice", address("alice@wallet.example"), 1)
        };
        ledger
            .state_destination(&stated, &[1; 64], Duration::ZERO)
            .await
            .unwrap();
        state(&ledger, ONCHAIN, "you@wallet.example", 1).await;
        let without_lightning = PayeeQuery {
            lightning_addresses: false,
            ..everything(&[])
        };
        for tries in 0..8 {
            assert_eq!(due(&ledger, &without_lightning).await, [], "{tries}");
            for payee in ["alice", ONCHAIN] {
                let put_off = ledger.put_payee_off(payee, "no_route", Duration::ZERO);
                put_off.await.unwrap();
            }
        }
        let due_now = due(&ledger, &without_lightning).await;
        let [alice, by_name] = &due_now[..] else {
            panic!("{due_now:?}");
        };
        assert_eq!((alice.tries, &alice.fallback), (8, &text(LEGACY)));
        assert_eq!((by_name.tries, &*by_name.payee), (8, ONCHAIN));
        // Below what is paid on-chain it goes on over Lightning.
        let large = PayeeQuery {
            onchain_threshold: Some(Msat::new(60_001)),
            ..without_lightning
        };
        assert_eq!(due(&ledger, &large).await, []);
    });
}

#[test]
fn a_payees_own_threshold_and_schedule_hold() {
    run(|db, ledger| async move {
        earn(&ledger, &["alice"], 60_000).await;
        let mut made = 0;
        let mut with = async |threshold_msat, schedule| {
            made += 1;
            let stated = Statement {
                threshold_msat,
                schedule,
                ..statement("alice", address("alice@wallet.example"), made)
            };
            let stated = ledger.state_destination(&stated, &[1; 64], Duration::ZERO);
            stated.await.unwrap();
            due_names(&ledger, &everything(&[])).await.len()
        };
        assert_eq!(with(Some(60_000), Schedule::AsEarned).await, 1);
        assert_eq!(with(Some(60_001), Schedule::AsEarned).await, 0);
        // No lower than the pool's.
        assert_eq!(with(Some(1), Schedule::AsEarned).await, 1);
        let hour = u8::try_from(unix_now() / 3_600 % 24).unwrap();
        assert_eq!(with(None, Schedule::Daily { hour }).await, 1);
        begin(&ledger, 1, "alice", 1_000).await.unwrap();
        ledger.note_succeeded([1; 32], &proof(1, 0)).await.unwrap();
        assert_eq!(with(None, Schedule::AsEarned).await, 1);
        assert_eq!(with(None, Schedule::Daily { hour }).await, 0);
        // It was paid in this period, however its beginning is put.
        let next = (hour + 1) % 24;
        assert_eq!(with(None, Schedule::Daily { hour: next }).await, 0);
        pass_hours(&db, 25).await;
        assert_eq!(with(None, Schedule::Daily { hour }).await, 1);
        let weekdays = (0..7).map(|weekday| Schedule::Weekly { weekday, hour });
        let mut due = 0;
        for schedule in weekdays {
            due += with(None, schedule).await;
        }
        // Of the weeks that begin at this hour, one began since the payout, and perhaps another while this ran.
        assert!((1..=2).contains(&due), "{due}");
    });
}
