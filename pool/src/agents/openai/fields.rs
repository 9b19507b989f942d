//! A request's body: bounded in bytes and in time, one JSON object, read field by field, so that a refusal names the field.
//! Fields that nobody reads are ignored, since SDKs and agents add some.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, header};
use dovetail_api::MESSAGE_BYTES_MAX;
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::error::{ApiError, Code};

/// A body that has not come by then is not waited for.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Reads a body of at most as many bytes as a message of gRPC may have: four times the longest prompt, as JSON writes it.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    read_within(headers, body, BODY_TIME_MAX).await
}

async fn read_within(
    headers: &HeaderMap,
    body: Body,
    time_max: Duration,
) -> Result<Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    // Also keeps a page in somebody's browser from asking: it may send forms and plain text to other hosts, and no JSON.
    if !kind.to_ascii_lowercase().starts_with("application/json") {
        let message = "the body must be application/json";
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    let too_large = || {
        let message = format!("the body may have {MESSAGE_BYTES_MAX} bytes");
        ApiError::new(Code::RequestTooLarge, message)
    };
    if body.size_hint().lower() > MESSAGE_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let read = timeout(time_max, to_bytes(body, MESSAGE_BYTES_MAX)).await;
    let late = |_| ApiError::new(Code::RequestTimeout, "the body did not come in time");
    read.map_err(late)?.map_err(|error| {
        let limited = error
            .source()
            .is_some_and(|source| source.is::<LengthLimitError>());
        match limited {
            true => too_large(),
            false => ApiError::new(Code::InvalidValue, "the body did not come whole"),
        }
    })
}

/// The fields of a JSON object, each as it was written.
pub(super) struct Fields {
    fields: BTreeMap<String, Box<RawValue>>,
    #[cfg(test)]
    pub(super) asked_for: std::cell::RefCell<std::collections::BTreeSet<&'static str>>,
}

impl Fields {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|_| ApiError::new(Code::InvalidUtf8, "the body is not UTF-8"))?;
        let fields = serde_json::from_str(text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let message = format!("the body is not a JSON object ({place})");
            ApiError::new(Code::InvalidValue, message)
        })?;
        Ok(Self {
            fields,
            #[cfg(test)]
            asked_for: std::cell::RefCell::default(),
        })
    }

    /// A field's value as it was written; none where it is absent or null.
    pub(super) fn raw(&self, name: &'static str) -> Option<&RawValue> {
        #[cfg(test)]
        self.asked_for.borrow_mut().insert(name);
        let value = self.fields.get(name)?;
        (value.get() != "null").then_some(value)
    }

    /// A field's value; none where it is absent or null.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, ApiError> {
        let value = self.raw(name).map(|raw| serde_json::from_str(raw.get()));
        // The error's own words may quote much of the value; its kind is said by what the field is to be.
        value
            .transpose()
            .map_err(|_| ApiError::invalid(name, "this is not of the type that the field has"))
    }

    /// The value of a field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, ApiError> {
        self.get(name)?
            .ok_or_else(|| ApiError::invalid(name, "this field is required"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn json() -> HeaderMap {
        let kind = HeaderValue::from_static("application/json; charset=utf-8");
        HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_not_further() {
        let body = |bytes: usize| Body::from(vec![b' '; bytes]);
        let read_json = async |body| {
            let read = read(&json(), body).await;
            read.map(drop).map_err(|error| error.code)
        };
        assert!(read_json(body(MESSAGE_BYTES_MAX)).await.is_ok());
        let refused = read_json(body(MESSAGE_BYTES_MAX + 1)).await;
        assert_eq!(refused, Err(Code::RequestTooLarge));
        // One that does not say its length.
        let pieces = (0..=MESSAGE_BYTES_MAX / 1_024)
            .map(|_| Ok::<_, std::io::Error>([b' '; 1_024].to_vec()));
        let endless = Body::from_stream(futures::stream::iter(pieces));
        assert_eq!(read_json(endless).await, Err(Code::RequestTooLarge));
        let refused = read(&HeaderMap::new(), body(1))
            .await
            .map_err(|error| error.code);
        assert_eq!(refused, Err(Code::UnsupportedMediaType));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let headers = json();
        let read = read_within(&headers, silent, Duration::from_millis(20));
        let refused = read.await.map_err(|error| error.code);
        assert_eq!(refused, Err(Code::RequestTimeout));
    }

    #[test]
    fn a_refusal_names_the_field_and_quotes_nothing() {
        let fields = Fields::parse(br#"{"model": 7, "user": null, "n": 1, "n": 2}"#).unwrap();
        let refused = fields.required::<String>("model").unwrap_err().envelope();
        assert_eq!(refused["error"]["param"], "model");
        assert!(!refused.to_string().contains('7'));
        assert_eq!(fields.get::<String>("user"), Ok(None));
        assert_eq!(fields.get("n"), Ok(Some(2)));
        let missing = fields.required::<String>("messages").unwrap_err();
        assert_eq!(missing.code, Code::InvalidValue);
        for (body, code) in [
            (&b"{\xff}"[..], Code::InvalidUtf8),
            (b"[1]", Code::InvalidValue),
        ] {
            assert_eq!(Fields::parse(body).err().unwrap().code, code);
        }
    }
}
