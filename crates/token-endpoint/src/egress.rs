//! What may be connected to. Whoever may create a TokenSource chooses where the operator connects, so by default
//! that is public addresses only.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::address::{self, Kind};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use url::{Host, Url};

/// One entry of `--egress-allow` or `--egress-only`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressRule {
    /// `HOST[:PORT]`: whatever the name resolves to, but for addresses that need an explicit network.
    Host {
        /// In lower case and punycode, without a trailing dot.
        host: String,
        /// `None`: any.
        port: Option<u16>,
    },
    /// `CIDR`, `IP[:PORT]` or `[IPv6]:PORT`: every address in it, whatever name leads there.
    Network {
        /// IPv4 or IPv6; IPv4 in IPv6 clothes is judged as IPv4.
        network: IpNet,
        /// `None`: any.
        port: Option<u16>,
    },
}

impl EgressRule {
    fn network(network: IpNet, port: Option<u16>) -> Result<Self, &'static str> {
        if address::canonical(network.addr()) != network.addr() {
            return Err("addresses that carry an IPv4 address are judged as that: write the IPv4 network");
        }
        Ok(EgressRule::Network { network, port })
    }

    fn names(&self, host: &str, port: u16) -> bool {
        matches!(self, EgressRule::Host { host: name, port: only }
            if name == host && only.is_none_or(|only| only == port))
    }

    fn contains(&self, ip: IpAddr, port: u16) -> bool {
        matches!(self, EgressRule::Network { network, port: only }
            if network.contains(&ip) && only.is_none_or(|only| only == port))
    }
}

/// Why a text is no [`EgressRule`].
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
            let network: IpNet =
                text.parse().map_err(|_| error("what has a slash must be a network such as 10.0.0.0/8"))?;
            if network.trunc() != network {
                return Err(error("the address has bits set outside of the prefix"));
            }
            return Self::network(network, None).map_err(error);
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
            Host::Domain(name) => match normalise(&name) {
                "" => Err(error("it is neither a host name nor an address")),
                name => Ok(EgressRule::Host { host: name.to_owned(), port }),
            },
        }
    }
}

/// The policy. It is asked twice: about the URL, and about every address that is about to be connected to (a name
/// may resolve to anything, and to something else a moment later).
#[derive(Clone, Debug)]
pub struct Egress {
    allow: Vec<EgressRule>,
    only: Option<Vec<EgressRule>>,
    allow_http: bool,
    api_server: Vec<IpAddr>,
}

impl Egress {
    /// `allow` permits what the default policy (public addresses) denies. With `only`, nothing but its entries may
    /// be connected to; they permit as `allow` does. `api_server` are the addresses of the Kubernetes API server.
    #[must_use]
    pub fn new(
        allow: Vec<EgressRule>,
        only: Option<Vec<EgressRule>>,
        allow_http: bool,
        api_server: Vec<IpAddr>,
    ) -> Self {
        let api_server = api_server.into_iter().map(address::canonical).collect();
        Self { allow, only, allow_http, api_server }
    }

    /// Judges scheme, host and port of a token URL, and the address where the host is one in any notation.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn check_url(&self, url: &Url) -> Result<(), EgressRefused> {
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            "http" => return Err(EgressRefused::PlainHttp),
            _ => return Err(EgressRefused::Scheme),
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(EgressRefused::Scheme);
        };
        match host {
            Host::Ipv4(ip) => self.check_address(&ip.to_string(), port, ip.into()),
            Host::Ipv6(ip) => self.check_address(&ip.to_string(), port, ip.into()),
            Host::Domain(name) => {
                let host = normalise(name);
                // A network in the list can only be judged when the addresses are known.
                let possible =
                    |rule: &EgressRule| rule.names(host, port) || matches!(rule, EgressRule::Network { .. });
                match &self.only {
                    Some(only) if !only.iter().any(possible) => {
                        Err(EgressRefused::NotListed { host: host.to_owned(), port, ip: None })
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    /// Judges a URL that a proxy will connect to, which then also resolves its name: the policy rests on the lists of hosts,
    /// and on names that cannot be public. An address in the URL is judged as ever.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn check_proxied(&self, url: &Url) -> Result<(), EgressRefused> {
        self.check_url(url)?;
        let (Some(Host::Domain(name)), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Ok(());
        };
        let host = normalise(name);
        let named = |rules: &[EgressRule]| rules.iter().any(|rule| rule.names(host, port));
        match &self.only {
            Some(only) if named(only) => Ok(()),
            Some(_) => Err(EgressRefused::NotListed { host: host.to_owned(), port, ip: None }),
            None if is_public_name(host) || named(&self.allow) => Ok(()),
            None => Err(EgressRefused::ProxiedName { host: host.to_owned(), port }),
        }
    }

    /// Judges one address that `host` has.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn check_address(&self, host: &str, port: u16, ip: IpAddr) -> Result<(), EgressRefused> {
        let host = normalise(host);
        let judged = address::canonical(ip);
        let listed = |rule: &EgressRule| rule.names(host, port) || rule.contains(judged, port);
        if self.only.as_ref().is_some_and(|only| !only.iter().any(listed)) {
            return Err(EgressRefused::NotListed { host: host.to_owned(), port, ip: Some(ip) });
        }
        let mut permits = self.allow.iter().chain(self.only.iter().flatten());
        let (allowed, kind, by_host) = match address::kind(judged) {
            _ if self.api_server.contains(&judged) => {
                (permits.any(|rule| rule.contains(judged, port)), "the Kubernetes API server", false)
            }
            Kind::Public => return Ok(()),
            Kind::Private(kind) => (permits.any(listed), kind, true),
            Kind::Protected(kind) => (permits.any(|rule| rule.contains(judged, port)), kind, false),
        };
        if allowed {
            return Ok(());
        }
        Err(EgressRefused::Address { host: host.to_owned(), port, ip, judged, kind, by_host })
    }
}

/// The policy does not allow a connection. The message names the address, the flag and the Helm value to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressRefused {
    /// Neither https nor http, or without a host.
    Scheme,
    /// http, without `--allow-http`.
    PlainHttp,
    /// Not in `--egress-only`.
    NotListed {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
        /// `None`: the name alone was judged.
        ip: Option<IpAddr>,
    },
    /// A name of a private network, which the proxy would resolve, and not in `--egress-allow`.
    ProxiedName {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
    },
    /// Not a public address, and not in `--egress-allow`.
    Address {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
        /// What the host resolves to.
        ip: IpAddr,
        /// What that leads to; differs where an IPv4 address is carried in an IPv6 address.
        judged: IpAddr,
        /// What it is.
        kind: &'static str,
        /// Whether allowing the host is enough.
        by_host: bool,
    },
}

impl std::error::Error for EgressRefused {}

impl fmt::Display for EgressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EgressRefused::Scheme => f.write_str("the token URL must be an https URL with a host"),
            EgressRefused::PlainHttp => f.write_str(
                "the token URL has no TLS: use https, or, for tests only, start the operator with --allow-http \
                 (Helm value allowHTTP: true)",
            ),
            EgressRefused::NotListed { host, port, ip } => {
                write!(f, "{}:{port}", bracketed(host))?;
                if let Some(ip) = ip {
                    write!(f, " ({ip})")?;
                }
                write!(
                    f,
                    " is not among what the operator may connect to: add it to --egress-only (Helm value egress.only)"
                )
            }
            EgressRefused::ProxiedName { host, port } => write!(
                f,
                "{host} is a name of a private network, which the proxy would resolve, and not allowed by the egress \
                 policy: start the operator with --egress-allow {host}:{port} (Helm value egress.allow)"
            ),
            EgressRefused::Address { host, port, ip, judged, kind, by_host } => {
                if host.parse() == Ok(*ip) {
                    write!(f, "{ip}")?;
                } else {
                    write!(f, "{host} resolves to {ip}, which")?;
                }
                write!(f, " is {kind}")?;
                if judged != ip {
                    write!(f, " ({judged})")?;
                }
                f.write_str(" and not allowed by the egress policy: start the operator with --egress-allow ")?;
                if *by_host && host.parse::<IpAddr>().is_err() {
                    write!(f, "{host}:{port}")?;
                } else {
                    write!(f, "{}", SocketAddr::new(*judged, *port))?;
                }
                f.write_str(" (Helm value egress.allow)")
            }
        }
    }
}

/// Not one of those that mean something else in every network (RFC 6761, RFC 6762, ICANN's `internal`, Kubernetes' own).
fn is_public_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.contains('.')
        && !["internal", "local", "localhost", "svc", "test", "invalid", "arpa"].contains(&last)
}

/// Without the dot that makes a name absolute; [`Url`] and [`Host`] have lowered the case already.
fn normalise(host: &str) -> &str {
    host.strip_suffix('.').unwrap_or(host)
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}
