//! The egress policy: which hosts and addresses may be connected to. Token URLs often come from less trusted parties than the
//! process itself (server-side request forgery), so that by default only public addresses are allowed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod refused;
mod rule;

pub use refused::{EgressRefused, RuleNeeded};
pub use rule::{EgressNetwork, EgressNetworkError, EgressRule, EgressRuleError, without_final_dot};

use crate::address::{self, AddressKind};
use rule::has_empty_label;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use url::{Host, Url};

/// The egress policy. It is applied twice: to the URL, and to every address before it is connected to, since a name may
/// resolve to any address, and to another one a moment later. Clones share the internal networks.
#[derive(Clone, Debug)]
pub struct Egress {
    allow: Vec<EgressRule>,
    only: Option<Vec<EgressRule>>,
    deny: Vec<EgressNetwork>,
    allow_http: bool,
    protected: Vec<IpAddr>,
    proxied: Proxied,
    custom_roots: bool,
    private: bool,
    internal: Arc<RwLock<Vec<EgressNetwork>>>,
}

/// What may be reached through a proxy, which resolves names itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxied {
    /// Names that end in a top-level domain of the public DNS, public addresses, and what is listed. Whether such a name leads
    /// to a private address is for the proxy to judge.
    #[default]
    Public,
    /// What is listed, as allowed or as only allowed.
    Listed,
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
        Self {
            allow,
            only,
            deny: Vec::new(),
            allow_http,
            protected: protected.into_iter().map(address::canonical).collect(),
            proxied: Proxied::default(),
            custom_roots: true,
            private: false,
            internal: Arc::default(),
        }
    }

    /// Denies every address in these networks, whatever allows it.
    #[must_use]
    pub fn with_denied(self, deny: Vec<EgressNetwork>) -> Self {
        Self { deny, ..self }
    }

    /// What may be reached through a proxy.
    #[must_use]
    pub fn with_proxied(self, proxied: Proxied) -> Self {
        Self { proxied, ..self }
    }

    /// Allows no roots but the system's. A tenant that chooses the roots can have another server accepted as a listed host.
    #[must_use]
    pub fn without_custom_roots(self) -> Self {
        Self { custom_roots: false, ..self }
    }

    /// The same policy for endpoints that a trusted party chose: with any roots, and, with `private`, at private addresses and those
    /// of internal networks too. What is protected or denied stays so.
    #[must_use]
    pub fn for_trusted(&self, private: bool) -> Self {
        Self { custom_roots: true, private, ..self.clone() }
    }

    /// Replaces the networks that are internal although their addresses may look public, for example of a cluster's services.
    /// They are treated as private.
    pub fn set_internal(&self, networks: Vec<EgressNetwork>) {
        *self.internal.write().unwrap_or_else(PoisonError::into_inner) = networks;
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
                let host = without_final_dot(name);
                if has_empty_label(host) {
                    return Err(EgressRefused::EmptyLabel { host: name.to_owned() });
                }
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
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(EgressRefused::Scheme);
        };
        let (host, ip) = match host {
            Host::Ipv4(ip) => (ip.to_string(), Some(IpAddr::from(ip))),
            Host::Ipv6(ip) => (ip.to_string(), Some(IpAddr::from(ip))),
            Host::Domain(name) => (without_final_dot(name).to_owned(), None),
        };
        let canonical = ip.map(address::canonical);
        let is_listed = self.permits().any(|rule| {
            rule.names(&host, port) || canonical.is_some_and(|canonical| rule.contains(canonical, port))
        });
        match (&self.only, self.proxied) {
            // An address was compared with them above.
            (Some(_), _) if ip.is_some() => Ok(()),
            (Some(only), _) if only.iter().any(|rule| rule.names(&host, port)) => Ok(()),
            (Some(_), _) => Err(EgressRefused::NotListed { host, port, ip: None }),
            (None, _) if is_listed => Ok(()),
            (None, Proxied::Public) if self.private => Ok(()),
            (None, Proxied::Listed) => Err(EgressRefused::ProxiedUnlisted { host, port }),
            (None, Proxied::Public) if ip.is_some() || is_public_name(&host) => Ok(()),
            (None, Proxied::Public) => Err(EgressRefused::ProxiedName { host, port }),
        }
    }

    /// Checks one of the addresses that `host` resolves to.
    ///
    /// # Errors
    /// The policy does not allow it.
    pub fn check_address(&self, host: &str, port: u16, ip: IpAddr) -> Result<(), EgressRefused> {
        let host = without_final_dot(host);
        let canonical = address::canonical(ip);
        let refused = |kind, needs| {
            Err(EgressRefused::Address { host: host.to_owned(), port, ip, canonical, kind, needs })
        };
        if let Some(network) = self.deny.iter().find(|network| network.contains(canonical)) {
            return refused("an address of a denied network", RuleNeeded::NotDenied(*network));
        }
        let listed = |rule: &EgressRule| rule.names(host, port) || rule.contains(canonical, port);
        if self.only.as_ref().is_some_and(|only| !only.iter().any(listed)) {
            return Err(EgressRefused::NotListed { host: host.to_owned(), port, ip: Some(ip) });
        }
        let (kind, needs) = match address::kind(canonical) {
            _ if self.protected.contains(&canonical) => {
                ("a protected address", RuleNeeded::NetworkOfProtected)
            }
            AddressKind::Public if !self.is_internal(canonical) => return Ok(()),
            AddressKind::Public => ("an address of an internal network", RuleNeeded::HostOrNetwork),
            AddressKind::Private(kind) => (kind, RuleNeeded::HostOrNetwork),
            AddressKind::Protected(kind) => (kind, RuleNeeded::Network),
            AddressKind::HandedOut(kind, network) => (kind, RuleNeeded::WholeNetwork(EgressNetwork(network))),
        };
        let allowed = match needs {
            RuleNeeded::HostOrNetwork => self.private || self.permits().any(listed),
            _ => self.permits().any(|rule| rule.contains(canonical, port)),
        };
        if allowed { Ok(()) } else { refused(kind, needs) }
    }

    /// Refuses roots other than the system's, if the policy does.
    pub(crate) fn check_roots(&self, custom: bool) -> Result<(), EgressRefused> {
        if custom && !self.custom_roots { Err(EgressRefused::CustomRoots) } else { Ok(()) }
    }

    /// The name to look up for a host of a URL. With a final dot: the resolver would try its search list first for one without,
    /// so that a namespace of a cluster that is called `com` could answer for all of it. Only a name that a rule lists without
    /// a final dot is looked up as it is written, since it may be meant for the search list or for `/etc/hosts`.
    pub(crate) fn lookup_name<'a>(&self, host: &'a str, port: u16) -> Cow<'a, str> {
        let as_written = |rule: &EgressRule| rule.names(host, port) && !rule.is_absolute();
        // Always this host (RFC 6761, 6.3); not every resolver knows it as an absolute name.
        if host.ends_with('.') || host == "localhost" || self.permits().any(as_written) {
            return Cow::Borrowed(host);
        }
        Cow::Owned(format!("{host}."))
    }

    fn permits(&self) -> impl Iterator<Item = &EgressRule> {
        self.allow.iter().chain(self.only.iter().flatten())
    }

    fn is_internal(&self, ip: IpAddr) -> bool {
        let internal = self.internal.read().unwrap_or_else(PoisonError::into_inner);
        internal.iter().any(|network| network.contains(ip))
    }
}

/// Whether the name ends in a delegated top-level domain. None of those that have a meaning of their own in every network is
/// delegated (RFC 6761, RFC 6762, ICANN's `internal`), except for `arpa`. A top-level domain alone is no host.
pub(crate) fn is_public_name(host: &str) -> bool {
    host.rsplit_once('.').is_some_and(|(_, last)| last != "arpa" && tld::exist(last))
}
