//! Keys with a budget: who pays, and what is said of a balance that does not do.

use dovetail_ledger::{Ledger, NewKey};
use dovetail_units::Msat;

use super::*;

/// Secrets of the form that the pool makes.
fn secret(n: u8) -> String {
    format!("sk-{}", hex::encode([n; 32]))
}

async fn add(ledger: &Ledger, name: &str, secret: &str, budget: i64, per_day: Option<i64>) {
    let key = NewKey {
        name,
        secret,
        budget: Msat::new(budget),
        per_day: per_day.map(Msat::new),
    };
    ledger.add_key(&key).await.unwrap();
}

/// Asks for eight tokens of 10 msat with this bearer; the answer's head, or why there is none.
async fn ask(pool: &Pool, shown: &str) -> Result<Response, (u16, Value)> {
    let shown = format!("Bearer {shown}");
    let body = pool.chat(json!({ "max_tokens": 8, "stream": true }));
    let response = pool.post(CHAT, &body, &[("authorization", &shown)]).await;
    match response.status().is_success() {
        true => Ok(response),
        false => {
            let retry_after = response.headers().contains_key("retry-after");
            let (status, mut body) = read(response).await;
            assert_described("Error", &body);
            assert!(!body.to_string().contains("sk-"), "{body}");
            body["error"]["retry_after"] = retry_after.into();
            Err((status.as_u16(), body["error"].take()))
        }
    }
}

async fn refused(pool: &Pool, shown: &str) -> (u16, Value) {
    ask(pool, shown).await.err().unwrap()
}

#[tokio::test]
async fn a_key_pays_for_what_its_bearer_asks_and_says_what_it_lacks() {
    let pool = Pool::start().await;
    let ledger = pool.database.ledger().await;
    let worker = pool.worker(FIRST);
    let (rich, poor, daily) = (secret(1), secret(2), secret(3));
    add(&ledger, "rich", &rich, 150, None).await;
    add(&ledger, "poor", &poor, 79, None).await;
    add(&ledger, "daily", &daily, 1_000, Some(100)).await;
    let first = ask(&pool, &rich).await.unwrap();
    let reserved = async |name: &str| {
        let keys = ledger.keys().await.unwrap();
        keys.iter()
            .find(|key| key.name == name)
            .unwrap()
            .reserved
            .get()
    };
    assert_eq!(reserved("rich").await, 80);

    // The balance would do, but the first request holds it: worth another try.
    let (status, error) = refused(&pool, &rich).await;
    assert_eq!((status, &error["code"]), (429, &json!("balance_reserved")));
    assert_eq!(error["retry_after"], true);
    let numbers = json!({ "balance_msat": 150, "reserved_msat": 80, "required_msat": 80 });
    assert_eq!(error["dovetail"], numbers);
    // What no key of this kind ever had is asked for: no agent may take that for a key that is used up.
    let (status, error) = refused(&pool, &poor).await;
    assert_eq!((status, &error["param"]), (400, &json!("max_tokens")));
    // The day is spent, the key is not.
    let of_today = ask(&pool, &daily).await.unwrap();
    let (status, error) = refused(&pool, &daily).await;
    assert!(
        matches!(
            (status, error["code"].as_str()),
            (429, Some("balance_reserved")) | (402, Some("daily_limit"))
        ),
        "{status} {error}"
    );
    drop((first, of_today));
    drop(worker);
    pool.end().await;
}

#[tokio::test]
async fn a_key_that_is_unknown_or_revoked_is_refused_and_any_other_word_is_the_operators_guest() {
    let pool = Pool::start().await;
    let ledger = pool.database.ledger().await;
    let worker = pool.worker(FIRST);
    add(&ledger, "alice", &secret(1), 1_000, None).await;
    ask(&pool, &secret(1)).await.unwrap();
    let (status, error) = refused(&pool, &secret(9)).await;
    assert_eq!((status, &error["code"]), (401, &json!("invalid_api_key")));
    ledger.revoke_key("alice").await.unwrap();
    let (status, _) = refused(&pool, &secret(1)).await;
    assert_eq!(status, 401);
    // As clients send that were told nothing.
    let mut guests = Vec::new();
    for word in ["none", "sk-proj-1234", "EMPTY"] {
        guests.push(ask(&pool, word).await.unwrap());
    }
    assert_eq!(ledger.subsidy().await.unwrap().reserved.get(), 3 * 80);
    drop(guests);
    drop(worker);
    pool.end().await;
}
