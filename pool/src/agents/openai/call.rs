//! What a request for a completion says in its headers: which task it is, if it is asked for again, and what becomes of it
//! when its client hangs up.

use axum::http::HeaderMap;
use dovetail_commitment::{TaskId, tagged_hash};

use super::error::{ApiError, Code};
use super::payer;
use crate::tasks::Caller;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Keys of clients are UUIDs.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
const SALT: &str = "x-dovetail-salt";
const ON_DISCONNECT: &str = "x-dovetail-on-disconnect";

/// What becomes of a task whose client hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDisconnect {
    /// It is cancelled at once.
    Cancel,
    /// It is cancelled unless the client is back soon: one that names a key can ask again for the same task.
    Wait,
    /// It goes on to its end.
    Continue,
}

/// A request's headers.
pub(super) struct Call {
    pub(super) caller: Caller,
    /// The task that the request's key names.
    pub(super) task: Option<TaskId>,
    /// The salt of the prompt's commitment, if the client has chosen one.
    pub(super) salt: Option<[u8; 32]>,
    pub(super) on_disconnect: OnDisconnect,
}

impl Call {
    /// Reads them. `secret` keeps the ids of tasks from being guessed, which are the only keys to the tasks.
    pub(super) fn read(
        headers: &HeaderMap,
        caller: Caller,
        secret: &[u8; 32],
    ) -> Result<Self, ApiError> {
        let key = text(headers, IDEMPOTENCY_KEY)?;
        if key.is_some_and(|key| !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())) {
            let reason = format!("it must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes");
            return Err(ApiError::invalid(IDEMPOTENCY_KEY, reason));
        }
        let task = key.map(|key| task_of(key, headers, &caller, secret));
        let on_disconnect = match (text(headers, ON_DISCONNECT)?, task) {
            (Some("cancel"), _) | (None, None) => OnDisconnect::Cancel,
            (Some("continue"), _) => OnDisconnect::Continue,
            (None, Some(_)) => OnDisconnect::Wait,
            _ => {
                return Err(ApiError::invalid(
                    ON_DISCONNECT,
                    "it must be cancel or continue",
                ));
            }
        };
        let salt = text(headers, SALT)?.map(|salt| {
            let mut bytes = [0; 32];
            let decoded = hex::decode_to_slice(salt, &mut bytes);
            let decoded = decoded.map(|()| bytes);
            decoded.map_err(|_| ApiError::invalid(SALT, "it must have 64 hex digits"))
        });
        Ok(Self {
            caller,
            task,
            salt: salt.transpose()?,
            on_disconnect,
        })
    }
}

/// The same key of another payer, or of another host where nobody pays, is another task.
fn task_of(key: &str, headers: &HeaderMap, caller: &Caller, secret: &[u8; 32]) -> TaskId {
    let scope = match payer::key(headers) {
        Some(payer) => format!("key {payer}"),
        None => format!("host {}", caller.host()),
    };
    let scope = tagged_hash("dovetail/idempotency-scope", &[scope.as_bytes()]);
    let parts: [&[u8]; 3] = [secret, &scope, key.as_bytes()];
    TaskId::from_bytes(tagged_hash("dovetail/idempotency", &parts))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let value = headers.get(name).map(|value| value.to_str());
    value
        .transpose()
        .map_err(|_| ApiError::new(Code::InvalidUtf8, format!("{name} is no text")).about(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    const SECRET: [u8; 32] = [7; 32];

    fn read(pairs: &[(&'static str, &str)]) -> Result<Call, ApiError> {
        let pairs = pairs.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        let caller = Caller::new(1, [192, 0, 2, 1].into());
        Call::read(&HeaderMap::from_iter(pairs), caller, &SECRET)
    }

    #[test]
    fn a_key_names_one_task_of_one_payer() {
        let task = |pairs: &[(&'static str, &str)]| read(pairs).unwrap().task;
        assert_eq!(task(&[]), None);
        let one = task(&[("idempotency-key", "a")]);
        assert_eq!(one, task(&[("idempotency-key", "a")]));
        let others = [
            task(&[("idempotency-key", "b")]),
            task(&[("idempotency-key", "a"), ("authorization", "Bearer sk-1")]),
            task(&[("idempotency-key", "a"), ("authorization", "Bearer sk-2")]),
        ];
        assert!(!others.contains(&one) && others[1] != others[2]);
        for key in ["", &"k".repeat(256)] {
            let refused = read(&[("idempotency-key", key)]).err().unwrap();
            assert_eq!(refused.code, Code::InvalidValue);
        }
    }

    #[test]
    fn a_task_ends_with_its_client_unless_the_client_says_otherwise_or_can_come_back() {
        let of = |pairs: &[(&'static str, &str)]| read(pairs).map(|call| call.on_disconnect);
        let (header, key) = ("x-dovetail-on-disconnect", ("idempotency-key", "a"));
        assert_eq!(of(&[]), Ok(OnDisconnect::Cancel));
        assert_eq!(of(&[key]), Ok(OnDisconnect::Wait));
        assert_eq!(of(&[key, (header, "cancel")]), Ok(OnDisconnect::Cancel));
        assert_eq!(of(&[(header, "continue")]), Ok(OnDisconnect::Continue));
        assert!(of(&[(header, "later")]).is_err());
    }

    #[test]
    fn a_salt_has_32_bytes() {
        let salt = "07".repeat(32);
        assert_eq!(
            read(&[("x-dovetail-salt", &salt)]).unwrap().salt,
            Some([7; 32])
        );
        assert!(read(&[("x-dovetail-salt", "07")]).is_err());
    }
}
