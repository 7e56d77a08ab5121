//! Refusals of the egress policy.

use super::rule::EgressNetwork;
use std::fmt;
use std::net::IpAddr;

/// The egress policy does not allow a connection. [`EgressRefused::hint`] names the rule that would allow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressRefused {
    /// Neither https nor http, or without a host.
    Scheme,
    /// http, which the policy does not allow.
    PlainHttp,
    /// A name with an empty label: no resolver knows it, and a proxy may take it for another.
    EmptyLabel {
        /// As in the URL.
        host: String,
    },
    /// The policy allows no roots but the system's.
    CustomRoots,
    /// Not in the list of the only hosts and networks allowed.
    NotListed {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
        /// `None`: the name alone was checked.
        ip: Option<IpAddr>,
    },
    /// Not in the list of what is allowed, by a policy that lets a proxy connect to what is listed only.
    ProxiedUnlisted {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
    },
    /// No name of the public DNS, for a proxy to resolve, and no rule allows it.
    ProxiedName {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
    },
    /// Not a public address, and no rule allows it.
    Address {
        /// As in the URL.
        host: String,
        /// Of the URL.
        port: u16,
        /// What the host resolves to.
        ip: IpAddr,
        /// The address that was checked; differs from `ip` where that embeds an IPv4 address.
        canonical: IpAddr,
        /// A noun phrase for messages, with its article.
        kind: &'static str,
        /// What kind of rule would allow it.
        needs: RuleNeeded,
    },
}

/// What kind of [`EgressRule`](crate::EgressRule) would allow an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleNeeded {
    /// A rule for the host or for a network.
    HostOrNetwork,
    /// A rule for a network: the address is loopback, link-local or reserved.
    Network,
    /// A rule for this network as a whole: resolvers of this host or of a service mesh hand out its addresses, another one for
    /// a name each time.
    WholeNetwork(EgressNetwork),
    /// None: the policy denies this network.
    NotDenied(EgressNetwork),
    /// A rule for a network: the address is one of those passed to [`Egress::new`](crate::Egress::new) as protected.
    NetworkOfProtected,
}

impl std::error::Error for EgressRefused {}

impl fmt::Display for EgressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EgressRefused::Scheme => f.write_str("the token URL must be an https URL with a host"),
            EgressRefused::PlainHttp => f.write_str("the token URL has no TLS"),
            EgressRefused::EmptyLabel { host } => {
                write!(f, "{host} is no host name: there is nothing between two of its dots")
            }
            EgressRefused::CustomRoots => {
                f.write_str("the egress policy allows no CA bundle but the system's")
            }
            EgressRefused::ProxiedUnlisted { host, port } => {
                write_authority(f, host, *port)?;
                f.write_str(" would be reached through a proxy, and is not listed by the egress policy")
            }
            EgressRefused::NotListed { host, port, ip } => {
                write_authority(f, host, *port)?;
                if let Some(ip) = ip {
                    write!(f, " ({ip})")?;
                }
                f.write_str(" is not among the hosts and networks that the egress policy allows")
            }
            EgressRefused::ProxiedName { host, .. } => write!(
                f,
                "{host} is no name of the public DNS, so that the proxy would resolve it in a private network, and not \
                 allowed by the egress policy"
            ),
            EgressRefused::Address { host, ip, canonical, kind, .. } => {
                if host.parse() == Ok(*ip) {
                    write!(f, "{ip}")?;
                } else {
                    write!(f, "{host} resolves to {ip}, which")?;
                }
                write!(f, " is {kind}")?;
                if canonical != ip {
                    write!(f, " ({canonical})")?;
                }
                f.write_str(" and not allowed by the egress policy")
            }
        }
    }
}

fn write_authority(f: &mut fmt::Formatter<'_>, host: &str, port: u16) -> fmt::Result {
    if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
}
