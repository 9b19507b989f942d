//! Which addresses of hosts are connected to. A name is resolved once, every address of it is looked at, and the
//! connection goes to one that was looked at: a second answer of the DNS cannot lead elsewhere.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::lookup_host;

/// How many addresses of a host are tried.
const ADDRESSES_MAX: usize = 4;

/// How names become addresses.
#[derive(Debug, Clone)]
pub enum Resolve {
    /// As the machine does it.
    System,
    /// These alone, whatever the port: for tests.
    Fixed(Arc<HashMap<String, SocketAddr>>),
}

impl Resolve {
    pub(crate) async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::System => Ok(lookup_host((host, port)).await?.take(64).collect()),
            Self::Fixed(known) => Ok(known.get(host).copied().into_iter().collect()),
        }
    }
}

/// The addresses to try, if all that the name leads to may be connected to.
pub(crate) fn allowed(found: &[SocketAddr], allow_private: bool) -> Option<&[SocketAddr]> {
    let is_allowed = |address: &SocketAddr| allow_private || is_public(address.ip());
    let are_allowed = !found.is_empty() && found.iter().all(is_allowed);
    are_allowed.then(|| &found[..found.len().min(ADDRESSES_MAX)])
}

/// Whether it is an address of the public Internet (IANA's registries of special-purpose addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        // "This network", shared by carriers, protocol assignments, 6to4's relays, benchmarks, reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast, but for what leads to IPv4 addresses inside it, protocol assignments and documentation.
    (0x2000..0x4000).contains(&a)
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && a != 0x2002
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for text in [
            "1.1.1.1",
            "93.184.216.34",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.88.99.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
            "3fff::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_host_with_one_private_address_is_not_asked_at_any() {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 443);
        let (public, private) = (at("1.1.1.1"), at("10.0.0.1"));
        assert_eq!(allowed(&[public], false), Some(&[public][..]));
        assert_eq!(allowed(&[public, private], false), None);
        assert_eq!(allowed(&[private], true), Some(&[private][..]));
        assert_eq!(allowed(&[], true), None);
        assert_eq!(allowed(&[public; 9], false).unwrap().len(), ADDRESSES_MAX);
    }
}
