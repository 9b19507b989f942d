//! What agents speak to. Each transport translates between its messages and [`crate::tasks`], and decides nothing.

use std::net::Ipv4Addr;

use crate::grpc_listener::Origin;
use crate::tasks::Caller;

pub(crate) mod grpc;
pub(crate) mod openai;
mod unread_body;

/// Who calls. Connections whose address is gone share one.
fn caller(origin: Option<&Origin>) -> Caller {
    let connection = origin.map_or(0, |origin| origin.connection);
    let address = origin.and_then(|origin| origin.address);
    Caller::new(connection, address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

/// What is shown by `Bearer <secret>`, the scheme in any case (RFC 9110, 11.1).
fn bearer(shown: &str) -> Option<&str> {
    let (scheme, secret) = shown.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| secret.trim())
        .filter(|secret| !secret.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_a_bearers_and_in_no_other_way() {
        for shown in ["Bearer sk-1", "bearer  sk-1 ", "BEARER sk-1"] {
            assert_eq!(bearer(shown), Some("sk-1"), "{shown}");
        }
        for shown in ["", "sk-1", "Bearer", "Bearer ", "Basic sk-1"] {
            assert_eq!(bearer(shown), None, "{shown}");
        }
    }
}
