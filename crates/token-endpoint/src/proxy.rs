//! Which requests use a proxy, by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. There is no standard: this follows curl and Go where
//! they agree, and Go where they differ.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use url::{Host, Url};

/// The proxies for http and https URLs; by default none.
#[derive(Clone, Default)]
pub struct Proxies {
    https: Option<Url>,
    http: Option<Url>,
    exceptions: Vec<Exception>,
}

/// A variable is not the URL of an HTTP proxy. Its value is not shown, since it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is no URL of an HTTP proxy: write http://HOST:PORT")]
pub struct ProxyError {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// A domain with its subdomains, or its subdomains only.
    Domain {
        name: String,
        subdomains_only: bool,
        port: Option<u16>,
    },
    Network {
        network: IpNet,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the variables; those in lower case take precedence, and empty ones are ignored.
    ///
    /// # Errors
    /// One of them is not the URL of an HTTP proxy.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let read = |lower: &str, upper: &str| {
            [lower, upper].into_iter().filter_map(&read).find(|value| !value.trim().is_empty())
        };
        let proxy = |name, value: Option<String>| {
            value.map(|value| parse(&value).ok_or(ProxyError { name })).transpose()
        };
        let exceptions = read("no_proxy", "NO_PROXY").unwrap_or_default();
        Ok(Self {
            https: proxy("HTTPS_PROXY", read("https_proxy", "HTTPS_PROXY"))?,
            http: proxy("HTTP_PROXY", read("http_proxy", "HTTP_PROXY"))?,
            exceptions: exceptions.split([',', ' ']).filter_map(Exception::parse).collect(),
        })
    }

    /// The proxy for `url`; `None`: the connection is direct.
    #[must_use]
    pub fn proxy_for(&self, url: &Url) -> Option<&Url> {
        let proxy = match url.scheme() {
            "https" => self.https.as_ref(),
            _ => self.http.as_ref(),
        }?;
        let (host, port) = (url.host()?, url.port_or_known_default()?);
        (!self.exceptions.iter().any(|exception| exception.matches(&host, port))).then_some(proxy)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |url: &Option<Url>| url.as_ref().and_then(|url| url.host_str().map(str::to_owned));
        f.debug_struct("Proxies")
            .field("https", &host(&self.https))
            .field("http", &host(&self.http))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

fn parse(value: &str) -> Option<Url> {
    let value = value.trim();
    let url = if value.contains("://") { Url::parse(value) } else { Url::parse(&format!("http://{value}")) };
    url.ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Some(Self::Network { network, port: None });
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Some(Self::Network { network: ip.into(), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Some(Self::Network { network: ip.into(), port });
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        let subdomains_only = name.starts_with('.');
        let name = name.trim_matches('.').to_owned();
        (!name.is_empty()).then_some(Self::Domain { name, subdomains_only, port })
    }

    fn matches(&self, host: &Host<&str>, port: u16) -> bool {
        let ip = match host {
            Host::Domain(_) => None,
            Host::Ipv4(ip) => Some(IpAddr::from(*ip)),
            Host::Ipv6(ip) => Some(IpAddr::from(*ip)),
        };
        match (self, host, ip) {
            (Self::Everything, ..) => true,
            (Self::Network { network, port: only }, _, Some(ip)) => {
                network.contains(&ip) && only.is_none_or(|only| only == port)
            }
            (Self::Domain { name, subdomains_only, port: only }, Host::Domain(host), _) => {
                let host = host.trim_end_matches('.');
                let is_subdomain = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (is_subdomain || (!subdomains_only && host == name)) && only.is_none_or(|only| only == port)
            }
            _ => false,
        }
    }
}
