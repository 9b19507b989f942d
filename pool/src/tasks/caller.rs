//! Who orders tasks, as far as a port can tell callers apart. Who pays for them is another matter ([`super::Payment`]).

use std::net::IpAddr;

use dovetail_sv2::places::{host_of, network_of};

/// A host, with the number of a connection where that tells parties apart.
pub(super) type Party = (IpAddr, u64);

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

    /// Who is one, where each has a part of what is scarce: a host, and on this machine a connection, for those are the
    /// operator's, or a proxy's with many agents behind it.
    pub(super) fn party(&self) -> Party {
        match self.host.is_loopback() {
            true => (self.host, self.connection),
            false => (self.host, 0),
        }
    }
}
