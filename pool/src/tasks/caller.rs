//! Who orders tasks, as far as a port can tell callers apart. Agents have no accounts yet; an account will be one more
//! thing that tells them apart, here and in the queue.

use std::net::IpAddr;

use dovetail_sv2::places::{host_of, network_of};

/// A caller: its connection, the host that this comes from, and the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(super) connection: u64,
    pub(super) host: IpAddr,
    pub(super) network: IpAddr,
}

impl Caller {
    /// Who calls on the connection of this number, from this address.
    pub(crate) fn new(connection: u64, address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self {
            connection,
            host: host_of(address),
            network: network_of(address),
        }
    }

    /// The host that it calls from.
    pub(crate) fn host(&self) -> IpAddr {
        self.host
    }
}
