//! The flags about token endpoints, and the transport that they describe.

use std::net::IpAddr;
use std::sync::Arc;

use clap::{ArgAction, Args, ValueEnum};

use crate::cluster::AGENT;
use token_endpoint::{
    Egress, EgressNetwork, EgressRule, Proxied, Proxies, ProxyError, Transport, TransportError,
};

/// The flags about token endpoints, with the same meaning for `run` and `mint`. Each can be set by an environment variable.
#[derive(Clone, Debug, Args)]
pub struct EndpointArgs {
    /// Allow token endpoints at this host or network, beyond the public addresses that are allowed anyway; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]|CIDR", env = "TOKENSOURCE_EGRESS_ALLOW", value_delimiter = ',')]
    pub egress_allow: Vec<EgressRule>,

    /// Allow token endpoints at these hosts and networks and nowhere else; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]|CIDR", env = "TOKENSOURCE_EGRESS_ONLY", value_delimiter = ',')]
    pub egress_only: Vec<EgressRule>,

    /// Refuse token endpoints in this network, whatever allows them; may be repeated. The networks of a cluster's Services
    /// may look public.
    #[arg(long, value_name = "CIDR", env = "TOKENSOURCE_EGRESS_DENY", value_delimiter = ',')]
    pub egress_deny: Vec<EgressNetwork>,

    /// What a proxy may be asked to connect to: names of the public DNS, or only hosts of --egress-allow and --egress-only.
    #[arg(long, value_enum, env = "TOKENSOURCE_EGRESS_PROXIED", default_value = "public")]
    pub egress_proxied: ProxiedHosts,

    /// Let TokenSources replace the system's certificate authorities (spec.tls.caBundle).
    #[arg(long, value_name = "BOOL", env = "TOKENSOURCE_EGRESS_TENANT_CA_BUNDLE", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub egress_tenant_ca_bundle: bool,

    /// Allow token endpoints without TLS, for tests and demos: credentials then cross the network in the clear.
    #[arg(long, env = "TOKENSOURCE_ALLOW_HTTP")]
    pub allow_http: bool,

    /// Connect to token endpoints through the proxies that HTTPS_PROXY and HTTP_PROXY name, except for the hosts in NO_PROXY.
    /// Without this flag those variables are ignored. A proxy resolves names itself, so that the addresses behind them are
    /// not checked.
    #[arg(long, env = "TOKENSOURCE_PROXY_FROM_ENVIRONMENT")]
    pub proxy_from_environment: bool,

    /// How long a mounted file may lag behind its Secret, if the TokenSource does not set it: the kubelet takes 60 to 90 s.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", default_value = "90s", value_parser = propagation_delay)]
    pub default_propagation_delay: u64,
}

/// A value of `--egress-proxied`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxiedHosts {
    /// Names that end in a top-level domain of the public DNS, and what is listed.
    Public,
    /// What is listed.
    Listed,
}

/// The flags or the environment describe no usable transport.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The HTTP client cannot be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The value of a proxy variable is invalid.
    #[error("--proxy-from-environment: {0}")]
    Proxy(#[from] ProxyError),
}

/// The transport that the flags describe. It never connects to the addresses of `api_server`.
pub(crate) fn transport(flags: &EndpointArgs, api_server: Vec<IpAddr>) -> Result<Transport, EndpointError> {
    let only = (!flags.egress_only.is_empty()).then_some(flags.egress_only.clone());
    let proxied = match flags.egress_proxied {
        ProxiedHosts::Public => Proxied::Public,
        ProxiedHosts::Listed => Proxied::Listed,
    };
    let egress = Egress::new(flags.egress_allow.clone(), only, flags.allow_http, api_server)
        .with_denied(flags.egress_deny.clone())
        .with_proxied(proxied);
    let egress = if flags.egress_tenant_ca_bundle { egress } else { egress.without_custom_roots() };
    let proxies = match flags.proxy_from_environment {
        true => Proxies::from_environment(|name| std::env::var(name).ok())?,
        false => Proxies::default(),
    };
    Ok(Transport::with_proxies(Arc::new(egress), AGENT, proxies)?)
}

/// A remark where the environment names proxies and the flag to use them is not set.
pub(crate) fn unused_proxies(flags: &EndpointArgs) -> Option<String> {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let names: Vec<&str> =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].into_iter().filter(set).collect();
    (!flags.proxy_from_environment && !names.is_empty()).then(|| {
        format!(
            "token endpoints are connected to directly, though {} is set: --proxy-from-environment goes through the proxy",
            names.join(" and ")
        )
    })
}

/// The value is no duration, or out of bounds.
#[derive(Debug, thiserror::Error)]
#[error("write a duration from 1s to 1h, for example 90s")]
pub(crate) struct InvalidPropagationDelay;

/// Parses a propagation delay, in seconds, within the bounds of `spec.refresh.propagationDelay`.
pub(crate) fn propagation_delay(value: &str) -> Result<u64, InvalidPropagationDelay> {
    let seconds = value.parse::<jiff::SignedDuration>().ok().and_then(|it| u64::try_from(it.as_secs()).ok());
    let seconds = seconds.filter(|seconds| (1..=3600).contains(seconds));
    seconds.ok_or(InvalidPropagationDelay)
}
