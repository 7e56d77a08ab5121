//! Remedies as data.

use crate::egress::{EgressNetwork, EgressRefused, EgressRule, RuleNeeded};
use std::fmt;
use std::net::IpAddr;

/// What a caller can change so that the request works. `Display` words it in the terms of this crate; a program whose users
/// configure it in other terms words each variant in those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The token URL is http: use https, or, for tests only, let the [`Egress`](crate::Egress) policy allow http.
    AllowHttp,
    /// Add this rule to the list of what the egress policy allows.
    AllowEgress(EgressRule),
    /// Likewise, for a network as a whole: a resolver hands out its addresses, and a rule for the host does not allow them.
    AllowNetwork(EgressNetwork),
    /// Nothing allows it while the egress policy denies this network.
    RemoveDenial(EgressNetwork),
    /// The egress policy allows the system's roots only.
    UseSystemRoots,
    /// Likewise, for an address that was passed to [`Egress::new`](crate::Egress::new) as protected.
    AllowProtectedAddress(EgressRule),
    /// Add this rule to the list of the only hosts and networks that the egress policy allows.
    AddToOnly(EgressRule),
    /// Names are looked up as absolute, except for those that the egress policy allows by a rule such as this one.
    ListName(EgressRule),
    /// No connection within the time limit, as behind a firewall that drops packets.
    CheckFirewall,
    /// The server's certificate is self-signed: if it is the right one, add it to the CA bundle of [`Tls`](crate::Tls).
    TrustCertificate,
    /// Add the certificate of the authority to the CA bundle of [`Tls`](crate::Tls).
    TrustAuthority,
    /// No metadata was found for the issuer.
    CheckIssuer,
    /// The issuer's metadata names no token endpoint, so that the token URL must be configured.
    SetTokenUrl,
    /// The endpoint redirects: use the URL to which it redirects as the token URL.
    UseRedirectTarget,
    /// HTTP 404.
    CheckTokenUrlPath,
    /// A success that is not JSON: the URL may be that of a web page.
    CheckTokenUrl,
    /// HTTP 401 without an error code.
    CheckClientCredentials,
    /// The same to a request that does not authenticate the client.
    CheckGrant,
    /// HTTP 401 from GitHub for the JWT of an app.
    CheckGitHubKey,
    /// HTTP 403, 404 or 422 from GitHub: another app's installation, or more than it was granted.
    CheckGitHubInstallation,
    /// The endpoint may not decode what Basic authentication percent-encodes (RFC 6749, 2.3.1).
    AvoidPercentEncoding,
    /// The client is locked out after failed logins; each further attempt may extend that.
    WaitForUnlock,
    /// HTTP 403 without JSON, as firewalls and proxies answer.
    CheckIntermediary,
    /// HTTP 407 from a proxy that was not configured here.
    AuthenticateToProxy,
    /// [`ResponseMapping::access_token`](crate::ResponseMapping::access_token) does not point to a text.
    CheckAccessTokenPointer,
    /// One of [`ResponseMapping::values`](crate::ResponseMapping::values) points to a value that is too long.
    CheckValuePointer,
    /// One of [`ResponseMapping::values`](crate::ResponseMapping::values) points to a secret.
    RemoveValuePointer,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hint::AllowHttp => "use https, or, for tests only, let the egress policy allow http",
            Hint::AllowEgress(rule) | Hint::AllowProtectedAddress(rule) => {
                return write!(f, "allow {rule} in the egress policy");
            }
            Hint::AllowNetwork(network) => {
                return write!(f, "allow the network {network} in the egress policy: a rule for the host does not");
            }
            Hint::RemoveDenial(network) => return write!(f, "the egress policy denies {network}"),
            Hint::UseSystemRoots => "remove the CA bundle, or let the egress policy allow it",
            Hint::AddToOnly(rule) => {
                return write!(f, "add {rule} to the only hosts and networks that the egress policy allows");
            }
            Hint::ListName(rule) => {
                return write!(
                    f,
                    "names are looked up as absolute; if this one is for the search list or /etc/hosts, allow {rule} in the \
                     egress policy"
                );
            }
            Hint::CheckFirewall => "is there a firewall on the way?",
            Hint::TrustCertificate => {
                "if it is the right one, add it to the CA bundle (`openssl s_client -showcerts -connect HOST:443` prints it)"
            }
            Hint::TrustAuthority => "add the authority's certificate to the CA bundle",
            Hint::CheckIssuer => "check the issuer, or set the token URL instead",
            Hint::SetTokenUrl => "set the token URL instead",
            Hint::UseRedirectTarget => {
                "redirects are not followed: set the token URL to their target"
            }
            Hint::CheckTokenUrlPath => "check the path of the token URL",
            Hint::CheckTokenUrl => "is the token URL that of the token endpoint?",
            Hint::CheckClientCredentials => "check the client id and secret",
            Hint::CheckGrant => {
                "the request has no client secret or assertion of the client: check the client id and certificate, if there \
                 are any, the refresh token, the subject token or assertion, and secret parameters and headers"
            }
            Hint::CheckGitHubKey => {
                "is the private key one of this app, and the client id (or app id) the app's own?"
            }
            Hint::CheckGitHubInstallation => {
                "is the app of this key installed there, not suspended, and are the repositories and permissions among \
                 those that the installation was granted?"
            }
            Hint::AvoidPercentEncoding => {
                "the client id or secret has characters that Basic authentication percent-encodes (RFC 6749, 2.3.1): \
                 if both are right, the server may not decode them; then use raw Basic authentication or post"
            }
            Hint::WaitForUnlock => {
                "the client is locked out after failed logins; the next attempt should wait"
            }
            Hint::CheckIntermediary => "a firewall or proxy on the way seems to have answered",
            Hint::AuthenticateToProxy => "a proxy on the way asks for authentication",
            Hint::CheckAccessTokenPointer => "check the pointer to the access token in the response mapping",
            Hint::CheckValuePointer | Hint::RemoveValuePointer => {
                "remove that pointer from the values of the response mapping"
            }
        })
    }
}

impl EgressRefused {
    /// The change of the policy that would allow the connection.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        Some(match self {
            EgressRefused::Scheme | EgressRefused::EmptyLabel { .. } => return None,
            EgressRefused::CustomRoots => Hint::UseSystemRoots,
            EgressRefused::PlainHttp => Hint::AllowHttp,
            EgressRefused::NotListed { host, port, .. } => Hint::AddToOnly(EgressRule::for_host(host, *port)),
            EgressRefused::ProxiedName { host, port } | EgressRefused::ProxiedUnlisted { host, port } => {
                Hint::AllowEgress(EgressRule::for_host(host, *port))
            }
            EgressRefused::Address { host, port, canonical, needs, .. } => {
                let address = EgressRule::for_address(*canonical, *port);
                match needs {
                    RuleNeeded::HostOrNetwork if host.parse::<IpAddr>().is_err() => {
                        Hint::AllowEgress(EgressRule::for_host(host, *port))
                    }
                    RuleNeeded::HostOrNetwork | RuleNeeded::Network => Hint::AllowEgress(address),
                    RuleNeeded::WholeNetwork(network) => Hint::AllowNetwork(*network),
                    RuleNeeded::NotDenied(network) => Hint::RemoveDenial(*network),
                    RuleNeeded::NetworkOfProtected => Hint::AllowProtectedAddress(address),
                }
            }
        })
    }
}
