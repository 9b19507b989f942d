//! What agents speak to. Each transport translates between its messages and [`crate::tasks`], and decides nothing.

use std::net::Ipv4Addr;

use crate::grpc_listener::Origin;
use crate::tasks::Caller;

pub(crate) mod grpc;
pub(crate) mod openai;

/// Who calls. Connections whose address is gone share one.
fn caller(origin: Option<&Origin>) -> Caller {
    let connection = origin.map_or(0, |origin| origin.connection);
    let address = origin.and_then(|origin| origin.address);
    Caller::new(connection, address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}
