//! One entry of an egress policy, and its notation.

use crate::address;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use url::Host;

/// A host or a network that an [`Egress`](crate::Egress) allows. Parsed from and written as `HOST[:PORT]`, `CIDR`,
/// `IP[:PORT]` or `[IPv6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressRule {
    /// A name with the public and private addresses that it resolves to. Loopback, link-local and other protected addresses
    /// need a [`Network`](Self::Network).
    Host {
        /// In lower case and punycode, without a trailing dot.
        host: String,
        /// `None`: any.
        port: Option<u16>,
        /// Written with a final dot: it is looked up as absolute. Without, it is looked up as written, so that `/etc/hosts` and
        /// the resolver's search list apply.
        absolute: bool,
    },
    /// Every address in the network, whatever name resolves to it.
    Network {
        /// Not one of IPv6 addresses that embed IPv4 addresses: the embedded address is compared.
        network: IpNet,
        /// `None`: any.
        port: Option<u16>,
    },
}

impl EgressRule {
    /// The rule for one host of a URL, which may be an address.
    pub(crate) fn for_host(host: &str, port: u16) -> Self {
        match host.parse() {
            Ok(ip) => Self::for_address(ip, port),
            Err(_) => EgressRule::Host { host: host.to_owned(), port: Some(port), absolute: false },
        }
    }

    /// The rule for a name at every port, as it is written.
    pub(crate) fn for_name(host: &str) -> Self {
        EgressRule::Host { host: host.to_owned(), port: None, absolute: false }
    }

    pub(crate) fn for_address(ip: IpAddr, port: u16) -> Self {
        EgressRule::Network { network: address::canonical(ip).into(), port: Some(port) }
    }

    fn network(network: IpNet, port: Option<u16>) -> Result<Self, &'static str> {
        Ok(EgressRule::Network { network: not_embedding(network)?, port })
    }

    pub(super) fn names(&self, host: &str, port: u16) -> bool {
        matches!(self, EgressRule::Host { host: name, port: only, .. }
            if name == host && only.is_none_or(|only| only == port))
    }

    pub(super) fn is_absolute(&self) -> bool {
        matches!(self, EgressRule::Host { absolute: true, .. })
    }

    pub(super) fn contains(&self, ip: IpAddr, port: u16) -> bool {
        matches!(self, EgressRule::Network { network, port: only }
            if network.contains(&ip) && only.is_none_or(|only| only == port))
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EgressRule::Host { host, port, absolute } => {
                write!(f, "{host}{}", if *absolute { "." } else { "" })?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
            // A network has a port only where it is a single address.
            EgressRule::Network { network, port: Some(port) } => {
                write!(f, "{}", SocketAddr::new(network.addr(), *port))
            }
            EgressRule::Network { network, port: None } => write!(f, "{network}"),
        }
    }
}

/// A text is not an [`EgressRule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no HOST[:PORT], IP[:PORT], [IPv6]:PORT or CIDR: {problem}")]
pub struct EgressRuleError {
    text: String,
    problem: &'static str,
}

impl FromStr for EgressRule {
    type Err = EgressRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| EgressRuleError { text: text.to_owned(), problem };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text.contains("://") {
            return Err(error("write the host alone, without a scheme"));
        }
        if text.contains('*') {
            return Err(error("wildcards are not supported"));
        }
        if text.contains('/') {
            let network = parse_network(text).map_err(error)?;
            return Ok(EgressRule::Network { network, port: None });
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Self::network(ip.into(), None).map_err(error);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                return Err(error("an IPv6 address with a port is written as [IPv6]:PORT"));
            }
            Some((host, port)) if !text.ends_with(']') => {
                let port = port.parse().ok().filter(|&port| port != 0);
                (host, Some(port.ok_or_else(|| error("a port is a number from 1 to 65535"))?))
            }
            _ => (text, None),
        };
        match Host::parse(host).map_err(|_| error("it is neither a host name nor an address"))? {
            Host::Ipv4(ip) => Self::network(IpAddr::from(ip).into(), port).map_err(error),
            Host::Ipv6(ip) => Self::network(IpAddr::from(ip).into(), port).map_err(error),
            Host::Domain(name) => match without_final_dot(&name) {
                "" => Err(error("it is neither a host name nor an address")),
                host if has_empty_label(host) => Err(error("it has two dots in a row")),
                host => Ok(EgressRule::Host { host: host.to_owned(), port, absolute: host != name }),
            },
        }
    }
}

/// A network that an [`Egress`](crate::Egress) denies. Parsed from and written as a CIDR; an address alone is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressNetwork(pub(super) IpNet);

impl EgressNetwork {
    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }
}

impl fmt::Display for EgressNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text is not an [`EgressNetwork`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no CIDR: {problem}")]
pub struct EgressNetworkError {
    text: String,
    problem: &'static str,
}

impl FromStr for EgressNetwork {
    type Err = EgressNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = match text.parse::<IpAddr>() {
            Ok(ip) => not_embedding(ip.into()),
            Err(_) => parse_network(text),
        };
        network.map(Self).map_err(|problem| EgressNetworkError { text: text.to_owned(), problem })
    }
}

fn parse_network(text: &str) -> Result<IpNet, &'static str> {
    let network: IpNet = text.parse().map_err(|_| "write a network such as 10.0.0.0/8")?;
    if network.trunc() != network {
        return Err("the address has bits set outside of the prefix");
    }
    not_embedding(network)
}

fn not_embedding(network: IpNet) -> Result<IpNet, &'static str> {
    if address::canonical(network.addr()) != network.addr() {
        return Err("an address that embeds an IPv4 address is treated as that: write the IPv4 network");
    }
    Ok(network)
}

/// Whether a name without its final dot has nothing between two dots, or in front of the first.
pub(super) fn has_empty_label(host: &str) -> bool {
    host.split('.').any(str::is_empty)
}

/// Removes the dot that makes a name absolute: with it, a name is the same host. [`url::Url`] and [`Host`] have lowered the case
/// already.
#[must_use]
pub fn without_final_dot(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}
