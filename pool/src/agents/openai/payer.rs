//! Who pays for what a request asks: the key that it shows, or else the operator, within the budget of `[inference.subsidy]`.
//! Clients of OpenAI's API always send a key, and local set-ups send any word; so a word that does not have the form of this
//! pool's keys is no key.

use axum::http::{HeaderMap, header};

use super::error::{ApiError, Code};
use crate::agent_keys::is_secret;
use crate::agents::bearer;
use crate::tasks::{AdmissionError, Payment, Tasks};

/// The key that a request was sent with.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// Who is to pay for it.
pub(super) async fn payment(tasks: &Tasks, headers: &HeaderMap) -> Result<Payment, ApiError> {
    let Some(secret) = key(headers) else {
        return Ok(Payment::Subsidy);
    };
    if !is_secret(secret) {
        return match tasks.operator_pays() {
            true => Ok(Payment::Subsidy),
            false => Err(ApiError::new(
                Code::InvalidApiKey,
                "this is no key of this pool's, and its operator pays for nobody: ask the operator for a key",
            )),
        };
    }
    let found = tasks.key(secret).await.map_err(AdmissionError::Ledger)?;
    let key = found.ok_or(AdmissionError::KeyInvalid)?;
    Ok(Payment::Key(key.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_key_is_what_stands_behind_bearer() {
        let of = |value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            key(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer sk-1").as_deref(), Some("sk-1"));
        assert_eq!(of("Basic c2s6"), None);
        assert_eq!(key(&HeaderMap::new()), None);
    }
}
