//! The key that pays for an agent's tasks, as a pool's operator has given it.

use std::fmt;
use std::str::FromStr;

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

/// The longest key that is taken.
const KEY_BYTES_MAX: usize = 256;

/// A secret that is shown to the pool with each new task. Neither its `Debug` nor an error shows it.
#[derive(Clone)]
pub struct AgentKey(MetadataValue<Ascii>);

/// What was given is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key looks like sk- and 64 letters or digits, without spaces")]
pub struct NotAKey;

impl FromStr for AgentKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || !(1..=KEY_BYTES_MAX).contains(&text.len()) {
            return Err(NotAKey);
        }
        let mut value = MetadataValue::try_from(format!("Bearer {text}")).map_err(|_| NotAKey)?;
        // Logs of the transport leave it out, and it is in no table of headers that both sides remember.
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(..)")
    }
}

impl AgentKey {
    pub(crate) fn show_with<T>(&self, request: &mut Request<T>) {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_a_bearers_and_nowhere_else() {
        let key: AgentKey = "sk-0123".parse().unwrap();
        let mut request = Request::new(());
        key.show_with(&mut request);
        let shown = request.metadata().get("authorization").unwrap();
        assert_eq!(shown.to_str().unwrap(), "Bearer sk-0123");
        assert!(shown.is_sensitive());
        assert!(!format!("{key:?} {request:?}").contains("0123"));
        for text in ["", "sk 1", "sk-\n", "sk-ä", &"k".repeat(257)] {
            assert!(text.parse::<AgentKey>().is_err(), "{text:?}");
        }
    }
}
