use bitcoin::secp256k1::{Keypair, SECP256K1, SecretKey};
use dovetail_api::codes::code_of;

use super::*;
use crate::test_support::Database;

const POOL: [u8; 32] = [7; 32];

fn keys(n: u8) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &SecretKey::from_slice(&[n; 32]).unwrap())
}

fn account(n: u8) -> String {
    keys(n).x_only_public_key().0.to_string()
}

async fn service(database: &Database) -> PayoutsService {
    let mut config: Config =
        toml::from_str(include_str!("../../../../../config/dovetail-pool.toml")).unwrap();
    config.mining.network = Network::Regtest;
    let ledger = database.ledger().await;
    ledger.migrate().await.unwrap();
    PayoutsService::new(ledger, POOL, &config)
}

/// To be paid at this Lightning address, by the owner of key 1.
fn request(to: &str, made_unix: u64) -> v1::SetDestinationRequest {
    signed(
        v1::SetDestinationRequest {
            account: account(1),
            kind: v1::DestinationKind::LightningAddress.into(),
            destination: to.to_owned(),
            made_unix,
            ..Default::default()
        },
        1,
        POOL,
    )
}

/// The request with the proof of this key, for this pool.
fn signed(
    mut request: v1::SetDestinationRequest,
    n: u8,
    pool: [u8; 32],
) -> v1::SetDestinationRequest {
    let pay_to = PayTo::kept(
        kind_of(request.kind()).unwrap(),
        request.destination.clone(),
    );
    let statement = Statement {
        pool,
        network: Network::Regtest,
        account: request.account.clone(),
        pay_to,
        fallback: None,
        threshold_msat: u64::try_from(request.threshold_msat)
            .ok()
            .filter(|msat| *msat > 0),
        schedule: request.schedule.parse().unwrap_or_default(),
        made_unix: request.made_unix,
    };
    request.proof = statement.sign(&keys(n)).to_vec();
    request
}

async fn set(
    service: &PayoutsService,
    request: v1::SetDestinationRequest,
) -> Result<v1::Terms, String> {
    match service.set_destination(Request::new(request)).await {
        Ok(response) => Ok(response.into_inner().terms.unwrap()),
        Err(status) => Err(code_of(&status).unwrap().to_owned()),
    }
}

async fn get(service: &PayoutsService, account: &str) -> v1::GetDestinationResponse {
    let request = v1::GetDestinationRequest {
        account: account.to_owned(),
    };
    let answered = service.get_destination(Request::new(request)).await;
    answered.unwrap().into_inner()
}

#[tokio::test]
async fn an_owner_changes_where_it_is_paid_and_sees_the_change_before_it_holds() {
    let database = Database::create().await;
    let service = service(&database).await;
    database.credit(&account(1), 1_000).await;
    let before = get(&service, &account(1)).await;
    let active = before.active.unwrap();
    assert_eq!(active.kind(), v1::DestinationKind::Worker);
    assert_eq!((active.destination, active.made_unix), (account(1), 0));
    assert_eq!((before.pending, before.can_be_set), (None, true));
    let now = unix_now();
    let taken = set(&service, request("alice@wallet.com", now))
        .await
        .unwrap();
    assert!(taken.active_from_unix >= now + 86_400, "{taken:?}");
    let after = get(&service, &account(1)).await;
    assert_eq!(after.active.unwrap().kind(), v1::DestinationKind::Worker);
    assert_eq!(after.pending, Some(taken.clone()));
    assert_eq!(taken.destination, "a...@wallet.com");
    // Once more is harmless; upper case is the same account.
    let mut again = request("alice@wallet.com", now);
    again.account = again.account.to_uppercase();
    assert_eq!(set(&service, again).await, Ok(taken));
    database.drop().await;
}

#[tokio::test]
async fn a_threshold_and_a_schedule_hold_at_once_within_their_bounds() {
    let database = Database::create().await;
    let service = service(&database).await;
    database.credit(&account(1), 1_000).await;
    let with = |threshold_msat, schedule: &str, made_unix| {
        let request = v1::SetDestinationRequest {
            account: account(1),
            kind: v1::DestinationKind::Worker.into(),
            destination: account(1),
            threshold_msat,
            schedule: schedule.to_owned(),
            made_unix,
            ..Default::default()
        };
        signed(request, 1, POOL)
    };
    let now = unix_now();
    for (threshold, schedule) in [(9_999, ""), (-1, ""), (i64::MAX, ""), (10_000, "hourly")] {
        let refused = set(&service, with(threshold, schedule, now)).await;
        assert_eq!(
            refused,
            Err("destination-invalid".to_owned()),
            "{threshold} {schedule}"
        );
    }
    let taken = set(&service, with(10_000, "weekly@sun@23", now))
        .await
        .unwrap();
    assert!(taken.active_from_unix <= now + 60);
    let active = get(&service, &account(1)).await.active.unwrap();
    assert_eq!(
        (active.threshold_msat, &*active.schedule),
        (10_000, "weekly@sun@23")
    );
    database.drop().await;
}

async fn refusal_of(service: &PayoutsService, request: v1::SetDestinationRequest) -> String {
    set(service, request).await.unwrap_err()
}

#[tokio::test]
async fn what_is_not_the_owners_word_or_not_new_is_refused_with_the_reason() {
    let database = Database::create().await;
    let service = service(&database).await;
    let now = unix_now();
    let refused = async |request| refusal_of(&service, request).await;
    assert_eq!(refused(request("a@b.com", now)).await, "account-unknown");
    database.credit(&account(1), 1_000).await;
    let good = request("a@b.com", now);
    // Another's signature, one for another pool, one for another destination, an old one, one from the future.
    let invalid = [
        signed(good.clone(), 2, POOL),
        signed(good.clone(), 1, [8; 32]),
        v1::SetDestinationRequest {
            destination: "thief@b.com".to_owned(),
            ..good.clone()
        },
        v1::SetDestinationRequest {
            proof: vec![0; 64],
            ..good.clone()
        },
        v1::SetDestinationRequest {
            proof: Vec::new(),
            ..good.clone()
        },
        request("a@b.com", now - 86_500),
        request("a@b.com", now + 400),
        request("a@b.com", u64::MAX),
    ];
    for request in invalid {
        assert_eq!(refused(request).await, "statement-invalid");
    }
    set(&service, good).await.unwrap();
    let older = request("a@b.com", now - 1);
    assert_eq!(refused(older).await, "statement-stale");
    let as_old = request("other@b.com", now);
    assert_eq!(refused(as_old).await, "statement-stale");
    let count = database.number("SELECT count(*) FROM destinations").await;
    assert_eq!(count, 1);
    database.drop().await;
}

#[tokio::test]
async fn accounts_and_destinations_that_cannot_be_are_refused_with_the_reason() {
    let database = Database::create().await;
    let service = service(&database).await;
    database.credit(&account(1), 1_000).await;
    let refused = async |request| refusal_of(&service, request).await;
    let good = request("a@b.com", unix_now());
    for account in [
        "alice",
        "you@wallet.com",
        &format!("lno1{}", "q".repeat(60)),
    ] {
        let fixed = v1::SetDestinationRequest {
            account: account.to_owned(),
            ..good.clone()
        };
        assert_eq!(refused(fixed).await, "destination-fixed", "{account}");
        assert!(!get(&service, account).await.can_be_set);
    }
    for account in [String::new(), "a".repeat(256), "a\0".to_owned()] {
        let malformed = v1::SetDestinationRequest {
            account,
            ..good.clone()
        };
        assert_eq!(refused(malformed).await, "argument-invalid");
    }
    let elsewhere = [
        (v1::DestinationKind::LightningAddress, "nobody"),
        (v1::DestinationKind::Bolt12, "lno1qqqq"),
        (v1::DestinationKind::Worker, "1234"),
    ];
    for (kind, destination) in elsewhere {
        let nowhere = v1::SetDestinationRequest {
            kind: kind.into(),
            destination: destination.to_owned(),
            ..good.clone()
        };
        assert_eq!(
            refused(nowhere).await,
            "destination-invalid",
            "{destination}"
        );
    }
    database.drop().await;
}

#[tokio::test]
async fn an_account_sees_why_it_is_not_paid_and_when_it_is_tried_next() {
    let database = Database::create().await;
    let service = service(&database).await;
    let plain = get(&service, "alice").await;
    assert_eq!(
        (plain.active, &*plain.failure_class),
        (None, "no_destination")
    );
    let ledger = database.ledger().await;
    let backoff = Duration::from_secs(600);
    let put_off = ledger.put_payee_off("you@wallet.com", "address_unreachable", backoff);
    put_off.await.unwrap();
    let waiting = get(&service, "you@wallet.com").await;
    assert_eq!(
        (waiting.tries, &*waiting.failure_class),
        (1, "address_unreachable")
    );
    assert!(waiting.next_try_unix > unix_now());
    assert_eq!(waiting.active.unwrap().destination, "you@wallet.com");
    database.drop().await;
}
