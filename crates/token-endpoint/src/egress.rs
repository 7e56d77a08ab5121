//! The egress policy: which hosts and addresses may be connected to. Token URLs often come from less trusted parties than the
//! process itself (server-side request forgery), so that by default only public addresses are allowed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod refused;
mod rule;

pub use refused::{EgressRefused, RuleNeeded};
pub use rule::{EgressRule, EgressRuleError};

use crate::address::{self, AddressKind};
use rule::normalise;
use std::net::IpAddr;
use url::{Host, Url};

/// The egress policy. It is applied twice: to the URL, and to every address before it is connected to, since a name may
/// resolve to any address, and to another one a moment later.
#[derive(Clone, Debug)]
pub struct Egress {
    allow: Vec<EgressRule>,
    only: Option<Vec<EgressRule>>,
    allow_http: bool,
    protected: Vec<IpAddr>,
}

impl Egress {
    /// `allow` permits what the default policy (public addresses) denies. With `only`, connections are limited to its entries,
    /// which also permit as `allow` does. `protected` are addresses, public ones too, that only a rule for a network permits,
    /// for example of a control plane.
    #[must_use]
    pub fn new(
        allow: Vec<EgressRule>,
        only: Option<Vec<EgressRule>>,
        allow_http: bool,
        protected: Vec<IpAddr>,
    ) -> Self {
        let protected = protected.into_iter().map(address::canonical).collect();
        Self { allow, only, allow_http, protected }
    }

    /// Checks scheme, host and port of a token URL, and the address if the host is one in any notation.
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
                // Whether a network in the list contains the host is known only when the name is resolved.
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

    /// Checks a URL that a proxy will connect to. The proxy resolves the name, so that the policy rests on the rules for hosts,
    /// and on names that cannot be public. An address in the URL is checked as without a proxy.
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

    /// Checks one of the addresses that `host` resolves to.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn check_address(&self, host: &str, port: u16, ip: IpAddr) -> Result<(), EgressRefused> {
        let host = normalise(host);
        let canonical = address::canonical(ip);
        let listed = |rule: &EgressRule| rule.names(host, port) || rule.contains(canonical, port);
        if self.only.as_ref().is_some_and(|only| !only.iter().any(listed)) {
            return Err(EgressRefused::NotListed { host: host.to_owned(), port, ip: Some(ip) });
        }
        let mut permits = self.allow.iter().chain(self.only.iter().flatten());
        let (kind, needs) = match address::kind(canonical) {
            _ if self.protected.contains(&canonical) => {
                ("a protected address", RuleNeeded::NetworkOfProtected)
            }
            AddressKind::Public => return Ok(()),
            AddressKind::Private(kind) => (kind, RuleNeeded::HostOrNetwork),
            AddressKind::Protected(kind) => (kind, RuleNeeded::Network),
        };
        let allowed = match needs {
            RuleNeeded::HostOrNetwork => permits.any(listed),
            RuleNeeded::Network | RuleNeeded::NetworkOfProtected => {
                permits.any(|rule| rule.contains(canonical, port))
            }
        };
        if allowed {
            return Ok(());
        }
        Err(EgressRefused::Address { host: host.to_owned(), port, ip, canonical, kind, needs })
    }
}

/// Whether the name is not one of those that mean something else in every network: RFC 6761, RFC 6762, ICANN's `internal`, and
/// `svc`, which clusters use.
fn is_public_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    host.contains('.')
        && !["internal", "local", "localhost", "svc", "test", "invalid", "arpa"].contains(&last)
}
