//! Classification of IP addresses by IANA's special-purpose address registries.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// For benchmarks (RFC 2544); fake-IP resolvers use all of it.
const BENCHMARKS: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), 15);
/// Likewise for IPv6 (RFC 5180).
const BENCHMARKS_V6: IpNet = IpNet::new_assert(IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0)), 48);
/// Reserved (RFC 1112, 4).
const RESERVED: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(240, 0, 0, 0)), 4);
/// The part of it that Istio uses.
const RESERVED_ISTIO: IpNet = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(240, 240, 0, 0)), 16);

/// How the egress policy treats an address by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressKind {
    /// Globally reachable: allowed.
    Public,
    /// Of a private network: allowed by a rule for the host.
    Private(&'static str),
    /// Of this host, of the cloud platform, or reserved: allowed only by a rule for a network.
    Protected(&'static str),
    /// Of a network that has no meaning on the Internet, and whose addresses fake-IP resolvers and service meshes hand out:
    /// allowed only by a rule for a network. With the network that such a resolver uses.
    HandedOut(&'static str, IpNet),
}

/// Extracts the IPv4 address that an IPv6 address embeds: mapped and compatible (RFC 4291, 2.5.5), translated
/// (RFC 2765, 2.1), 6to4 (RFC 3056) and NAT64 (RFC 6052). Packets reach the embedded address, so that one is classified.
pub(super) fn canonical(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => ip, // unspecified and loopback, not ::0.0.0.0 and ::0.0.0.1
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] // compatible, mapped
        | [0, 0, 0, 0, 0xffff, 0, high, low] // translated
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] // NAT64
        | [0x2002, high, low, ..] => v4(high, low), // 6to4
        _ => ip,
    }
}

/// Classifies an address that [`canonical`] returned.
pub(super) fn kind(ip: IpAddr) -> AddressKind {
    match ip {
        IpAddr::V4(ip) => kind_v4(ip),
        IpAddr::V6(ip) => kind_v6(ip),
    }
}

fn kind_v4(ip: Ipv4Addr) -> AddressKind {
    use AddressKind::{HandedOut, Private, Protected, Public};
    match ip.octets() {
        // Metadata and platform services outside of 169.254.0.0/16: Azure, Alibaba, Oracle.
        [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => {
            Protected("a cloud metadata or platform service")
        }
        [0, ..] => Protected("an address of this host"),
        [127, ..] => Protected("a loopback address"),
        [169, 254, ..] => Protected("a link-local address, with cloud metadata services"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private("a private address"),
        [100, 64..=127, ..] => Private("a shared address (RFC 6598)"),
        [192, 0, 0, _] => Protected("an address for IETF protocols"),
        [192, 88, 99, _] => Protected("a 6to4 relay"),
        [198, 18 | 19, ..] => HandedOut("an address for benchmarks", BENCHMARKS),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Protected("an address for documentation"),
        [224..=239, ..] => Protected("a multicast address"),
        [255, 255, 255, 255] => Protected("the broadcast address"),
        [240, 240, ..] => HandedOut("a reserved address", RESERVED_ISTIO),
        [240..=255, ..] => HandedOut("a reserved address", RESERVED),
        _ => Public,
    }
}

fn kind_v6(ip: Ipv6Addr) -> AddressKind {
    use AddressKind::{HandedOut, Private, Protected, Public};
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Protected("an address of this host"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Protected("a loopback address"),
        // Amazon's and Google's metadata services.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] => Protected("a cloud metadata or platform service"),
        [0xfc00..=0xfdff, ..] => Private("a unique local address"),
        [0xfec0..=0xfeff, ..] => Private("a site-local address"),
        [0xfe80..=0xfebf, ..] => Protected("a link-local address"),
        [0xff00..=0xffff, ..] => Protected("a multicast address"),
        [0x2001, 0, ..] => Protected("a Teredo address"),
        [0x2001, 2, 0, ..] => HandedOut("an address for benchmarks", BENCHMARKS_V6),
        [0x2001, 0x1..=0x1ff, ..] => Protected("an address for IETF protocols"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Protected("an address for documentation"),
        [0x2000..=0x3fff, ..] => Public,
        _ => Protected("not a global unicast address"),
    }
}
