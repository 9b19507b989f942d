//! Who pays for what a request asks: the operator, within the budget of `[inference.subsidy]`, whatever key comes with it.
//! Clients always send one, and local set-ups send any word.

use axum::http::{HeaderMap, header};

/// The key that a request was sent with.
pub(super) fn key(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
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
        assert_eq!(of("bearer  sk-1 ").as_deref(), Some("sk-1"));
        for value in ["Bearer", "Bearer ", "Basic c2s6", "sk-1"] {
            assert_eq!(of(value), None);
        }
        assert_eq!(key(&HeaderMap::new()), None);
    }
}
