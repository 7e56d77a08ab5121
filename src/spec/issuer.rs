//! Which request a ClusterTokenIssuer makes for a TokenSource, and whether it allows it. What is not plainly allowed is refused.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use token_endpoint::{Answer, Class, Destination, Error, Limits, Reach};
use tokensource_api::{
    Addresses, ClusterTokenIssuer, ClusterTokenIssuerSpec, IssuerNamespaces, IssuerRequest, Provider, Reason,
    TokenSource, TokenSourceSpec,
};
use url::Url;

use crate::digest::short_digest;
use crate::providers::{describe, parse_seconds};
use crate::secret::Version;
use crate::text::shown;

/// A ClusterTokenIssuer.
#[derive(Debug, PartialEq)]
pub struct Issuer {
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// `None`: it does not fit the schema.
    pub spec: Option<ClusterTokenIssuerSpec>,
}

/// Why a TokenSource gets no token through an issuer. Messages say what was asked for, and not what others may.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// The operator serves no issuers.
    #[error(
        "spec.issuerRef: this operator serves no ClusterTokenIssuers; the platform enables them by --issuers-namespace (Helm value issuers.enabled)"
    )]
    Off,
    /// The operator serves nothing else.
    #[error(
        "this operator requests tokens through ClusterTokenIssuers only (--require-issuer, Helm value issuers.required): write spec.issuerRef in place of provider and credentials"
    )]
    Required,
    /// The TokenSource has both, which the rules of the API server refuse.
    #[error("spec.issuerRef: provider, credentials and tls are the issuer's; remove them")]
    Both,
    /// What is known of issuers is too old: one may have been withdrawn since.
    #[error(
        "the operator has not been able to read ClusterTokenIssuers for some minutes, and requests no token through them until it can: the platform sees why in its log"
    )]
    Outdated,
    /// There is no such issuer for this operator, or none for this namespace. A tenant is not told which.
    #[error(
        "ClusterTokenIssuer {0} does not exist, or is not for TokenSources of this namespace: ask the platform"
    )]
    NotForNamespace(String),
    /// The issuer has a mistake.
    #[error("ClusterTokenIssuer {0} cannot be used at present: the platform sees why in the issuer's status")]
    Unusable(String),
    /// The issuer does not allow what is asked for.
    #[error("ClusterTokenIssuer {issuer} does not allow {what}: ask the platform")]
    NotAllowed {
        /// The issuer.
        issuer: String,
        /// What was asked for.
        what: String,
    },
    /// Something is missing that the issuer requires.
    #[error("ClusterTokenIssuer {issuer} requires it: write {field}")]
    Missing {
        /// The issuer.
        issuer: String,
        /// The field.
        field: &'static str,
    },
    /// Something is there that does not apply.
    #[error("ClusterTokenIssuer {issuer} does not use it: remove {field}")]
    Unused {
        /// The issuer.
        issuer: String,
        /// The field.
        field: &'static str,
    },
}

impl IssuerError {
    /// The reason of the condition that reports this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            IssuerError::Required => Reason::EndpointRefusedByPolicy,
            IssuerError::Both => Reason::SpecInvalid,
            IssuerError::Off | IssuerError::Outdated | IssuerError::Unusable(_) => Reason::IssuerNotReady,
            IssuerError::NotForNamespace(_)
            | IssuerError::NotAllowed { .. }
            | IssuerError::Missing { .. }
            | IssuerError::Unused { .. } => Reason::NotAllowedByIssuer,
        }
    }
}

impl From<ClusterTokenIssuer> for Issuer {
    fn from(object: ClusterTokenIssuer) -> Self {
        Issuer {
            name: object.metadata.name.unwrap_or_default().into(),
            uid: object.metadata.uid.unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or_default(),
            spec: Some(object.spec),
        }
    }
}

impl Issuer {
    /// Puts what the issuer has into a TokenSource of a namespace that it [serves](Self::serves), so that it asks for a token as
    /// if it had all of it itself.
    ///
    /// # Errors
    /// The issuer does not allow it, or cannot be used.
    pub fn lend(&self, source: &mut TokenSource) -> Result<(), IssuerError> {
        let spec = self.spec.as_ref().ok_or_else(|| self.unusable())?;
        let is_empty = source.spec.provider == Provider::default()
            && source.spec.credentials == Default::default()
            && source.spec.tls.is_none();
        if !is_empty {
            return Err(IssuerError::Both);
        }
        let request = source.spec.request.clone().unwrap_or_default();
        let provider = self.provider(spec, &request)?;
        let token = spec.credentials.service_account_token.as_ref();
        let name = request.service_account_name;
        let field = "spec.request.serviceAccountName";
        let service_account = match (token.map(|token| token.name.clone()), name) {
            (Some(Some(_)) | None, Some(_)) => return Err(self.unused(field)),
            (Some(None), None) => return Err(self.missing(field)),
            (Some(own), asked) => own.or(asked),
            (None, None) => None,
        };
        self.check_interval(source)?;
        source.spec.provider = provider;
        source.spec.credentials = spec.credentials.of_source(service_account);
        source.spec.tls.clone_from(&spec.tls);
        describe(&source.spec).map(drop).map_err(|_| self.unusable())
    }

    /// What is wrong with the issuer itself, so that no TokenSource can use it. The rules of the API server are repeated, because
    /// an object may be older than they are.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let Some(spec) = &self.spec else {
            let fault =
                "the spec does not fit the schema: is the CustomResourceDefinition of another version?";
            return Some(fault.to_owned());
        };
        if !is_lendable(&spec.provider) {
            let fault = "spec.provider: write oauth2, vgs or vngCloud, without scopes, audience, resources and the grant refreshToken: what TokenSources may ask for is in spec.allow";
            return Some(fault.to_owned());
        }
        let (provider, tls) = (spec.provider.clone(), spec.tls.clone());
        let credentials = spec.credentials.of_source(Some("any".to_owned()));
        let lent = TokenSourceSpec { provider, credentials, tls, ..TokenSourceSpec::default() };
        describe(&lent).err().map(|error| error.to_string())
    }

    /// A digest of what decides, beside the token request, whether a token comes of it.
    #[must_use]
    pub fn bounds(&self) -> String {
        let bounds = self.spec.as_ref().map(|spec| (&spec.endpoint, &spec.allow.scopes));
        self.digest(&serde_json::to_string(&bounds).unwrap_or_default())
    }

    /// The shortest time between two refreshes that TokenSources may ask for, in seconds; zero: what holds for all.
    #[must_use]
    pub fn min_refresh_interval(&self) -> u64 {
        let refresh = self.spec.as_ref().and_then(|spec| spec.refresh.as_ref());
        let text = refresh.and_then(|refresh| refresh.min_interval.as_deref());
        text.and_then(|text| parse_seconds("spec.refresh.minInterval", text).ok()).unwrap_or_default()
    }

    /// Of `refresh.before` only the schedule knows what it asks for: it depends on the lifetime.
    fn check_interval(&self, source: &TokenSource) -> Result<(), IssuerError> {
        let asked = source.spec.refresh.as_ref().and_then(|refresh| refresh.max_interval.as_deref());
        let Some(asked) = asked else { return Ok(()) };
        let seconds = parse_seconds("spec.refresh.maxInterval", asked).unwrap_or(u64::MAX);
        if seconds >= self.min_refresh_interval() {
            return Ok(());
        }
        Err(self.refusal(format!("a refresh every {} (spec.refresh.maxInterval)", shown(asked))))
    }

    /// Whether TokenSources of a namespace may use it. `labels` are those of the namespace, where they are known; `names_only`:
    /// namespaces must be named.
    #[must_use]
    pub fn serves(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
        names_only: bool,
    ) -> bool {
        self.spec.as_ref().is_some_and(|spec| serves(&spec.namespaces, namespace, labels, names_only))
    }

    /// Whether its token requests are those of `other`, but for what TokenSources ask for.
    #[must_use]
    pub fn asks_as(&self, other: &Issuer) -> bool {
        self.uid == other.uid
            && match (&self.spec, &other.spec) {
                (Some(one), Some(two)) => {
                    one.provider == two.provider
                        && one.credentials == two.credentials
                        && one.tls == two.tls
                        && one.endpoint == two.endpoint
                }
                (one, two) => one.is_none() && two.is_none(),
            }
    }

    /// The provider with what is asked for.
    fn provider(
        &self,
        spec: &ClusterTokenIssuerSpec,
        request: &IssuerRequest,
    ) -> Result<Provider, IssuerError> {
        let allow = &spec.allow;
        let scopes = request.scopes.as_ref().or(allow.default_scopes.as_ref());
        let scopes = scopes.cloned().filter(|scopes| !scopes.is_empty());
        for scope in scopes.iter().flatten() {
            if !contains(allow.scopes.as_ref(), scope) {
                return Err(self.refusal(format!("the scope {} (spec.request.scopes)", shown(scope))));
            }
        }
        if scopes.is_none() && allow.without_scopes != Some(true) {
            return Err(self.missing("spec.request.scopes"));
        }
        if let Some(audience) = &request.audience
            && !contains(allow.audiences.as_ref(), audience)
        {
            return Err(self.refusal(format!("the audience {} (spec.request.audience)", shown(audience))));
        }
        if request.audience.is_none() && is_some(allow.audiences.as_ref()) {
            return Err(self.missing("spec.request.audience"));
        }
        let resources = request.resources.clone().filter(|resources| !resources.is_empty());
        for resource in resources.iter().flatten() {
            if !contains(allow.resources.as_ref(), resource) {
                return Err(
                    self.refusal(format!("the resource {} (spec.request.resources)", shown(resource)))
                );
            }
        }
        if resources.is_none() && is_some(allow.resources.as_ref()) {
            return Err(self.missing("spec.request.resources"));
        }
        let mut provider = spec.provider.clone();
        if !is_lendable(&provider) {
            return Err(self.unusable());
        }
        if let Some(oauth2) = &mut provider.oauth2 {
            oauth2.scopes = scopes;
            oauth2.audience.clone_from(&request.audience);
            oauth2.resources = resources;
            return Ok(provider);
        }
        if request.audience.is_some() {
            return Err(self.unused("spec.request.audience"));
        }
        if resources.is_some() {
            return Err(self.unused("spec.request.resources"));
        }
        if let Some(vgs) = &mut provider.vgs {
            vgs.scopes = scopes;
        } else if let Some(vng_cloud) = &mut provider.vng_cloud {
            // Without scopes it would ask for one by itself.
            vng_cloud.scopes = Some(scopes.ok_or_else(|| self.missing("spec.request.scopes"))?);
        }
        Ok(provider)
    }

    /// Whether a token may have this scope, as the endpoint says it; `None`: it says none, and has granted what was asked for
    /// (RFC 6749, section 5.1).
    #[must_use]
    pub fn allows_granted(&self, scope: Option<&str>) -> bool {
        let allowed = self.spec.as_ref().and_then(|spec| spec.allow.scopes.as_ref());
        scope.is_none_or(|scope| scope.split_ascii_whitespace().all(|scope| contains(allowed, scope)))
    }

    /// Whether the token of an answer may be written.
    #[must_use]
    pub fn allows_answer(&self, answer: &Answer) -> bool {
        !answer.scope_is_withheld && self.allows_granted(answer.scope.as_deref())
    }

    /// Whether the token endpoint that the metadata of the issuer names may be asked.
    #[must_use]
    pub fn allows_endpoint(&self, endpoint: &Url) -> bool {
        let Some(spec) = &self.spec else { return false };
        let Some(issuer) = spec.provider.oauth2.as_ref().and_then(|oauth2| oauth2.issuer.as_deref()) else {
            return true;
        };
        let Ok(issuer) = issuer.parse::<Url>() else { return false };
        if endpoint.scheme() != "https" && endpoint.scheme() != issuer.scheme() {
            return false;
        }
        let place = |url: &Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
        let listed = |host: &String| place(&format!("https://{host}/").parse().ok()?);
        let hosts = spec.endpoint.iter().filter_map(|endpoint| endpoint.hosts.as_ref()).flatten();
        let (own, endpoint) = (place(&issuer), place(endpoint));
        endpoint.is_some() && own.into_iter().chain(hosts.filter_map(listed)).any(|it| Some(it) == endpoint)
    }

    /// A digest of what tenants are not told, for records and statuses, which they read. It begins with the issuer's uid, which
    /// they cannot read: else they could compare it with digests of what they guess.
    #[must_use]
    pub fn digest(&self, text: &str) -> String {
        short_digest(&[&self.uid, text])
    }

    /// Digests of the version of its credentials.
    #[must_use]
    pub fn version(&self, version: &Version) -> Version {
        let Version { uid, resource_version } = version;
        Version {
            uid: self.digest(&uid.to_string()).into(),
            resource_version: self.digest(resource_version).into(),
        }
    }

    /// Whether its endpoint may have a private address.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let endpoint = self.spec.as_ref().and_then(|spec| spec.endpoint.as_ref());
        endpoint.and_then(|endpoint| endpoint.addresses) == Some(Addresses::Private)
    }

    /// Where its requests to `endpoint` wait: apart from all others, by its own limits, or by those of the operator.
    #[must_use]
    pub fn destination(&self, endpoint: &Url, limits: Limits) -> Destination {
        let own = self.spec.as_ref().and_then(|spec| spec.limits).unwrap_or_default();
        let in_flight = own.max_in_flight.and_then(|max| usize::try_from(max).ok());
        let per_second = own.max_per_second.and_then(|max| u32::try_from(max).ok());
        let limits = Limits {
            in_flight: in_flight.unwrap_or(limits.in_flight),
            per_second: per_second.unwrap_or(limits.per_second),
        };
        Destination::of_group(&self.name, limits, endpoint)
    }

    /// What TokenSources say of a failure: its class, and neither host nor client, which are the platform's.
    #[must_use]
    pub fn failure(&self, reason: Reason) -> String {
        format!(
            "a token request through ClusterTokenIssuer {} failed ({reason}): the platform sees why in the log of the operator, and in the issuer's status if it is about the issuer",
            self.name
        )
    }

    fn unusable(&self) -> IssuerError {
        IssuerError::Unusable(self.name.to_string())
    }

    fn refusal(&self, what: String) -> IssuerError {
        IssuerError::NotAllowed { issuer: self.name.to_string(), what }
    }

    fn missing(&self, field: &'static str) -> IssuerError {
        IssuerError::Missing { issuer: self.name.to_string(), field }
    }

    fn unused(&self, field: &'static str) -> IssuerError {
        IssuerError::Unused { issuer: self.name.to_string(), field }
    }
}

/// The message about a token endpoint that the metadata name and that is not in `spec.endpoint.hosts`.
#[must_use]
pub fn other_host(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    let port = endpoint.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "the metadata of the issuer name a token endpoint at {}{port}: list that host in spec.endpoint.hosts of the ClusterTokenIssuer",
        shown(host)
    )
}

/// Whether TokenSources report a failure with this reason by [`Issuer::failure`]: it is about the endpoint, the client, or objects
/// of the operator's namespace. The others are about the target.
#[must_use]
pub fn is_of_endpoint(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::CredentialsNotFound
            | Reason::CredentialsInvalid
            | Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::ScopeRejected
            | Reason::RequestRejected
            | Reason::RateLimited
            | Reason::EndpointUnavailable
            | Reason::EndpointRefusedByPolicy
            | Reason::ResponseMalformed
            | Reason::SpecInvalid
            | Reason::KubernetesApiError
    )
}

/// Whether such a failure is the issuer's, and not that of a single request, whose scope or audience is a tenant's choice. With the
/// tenant's own ServiceAccount, a rejection is that of the tenant's subject; what is wrong with the ServiceAccount itself is known
/// otherwise. The API server may have refused a call about the tenant's own objects.
#[must_use]
pub fn is_of_issuer(reason: Reason, has_own_subject: bool) -> bool {
    let is_of_request =
        matches!(reason, Reason::ScopeRejected | Reason::RequestRejected | Reason::KubernetesApiError);
    let is_of_subject = matches!(reason, Reason::ClientRejected | Reason::GrantRejected);
    is_of_endpoint(reason) && !is_of_request && !(has_own_subject && is_of_subject)
}

/// Whom a failure that [is of the issuer](is_of_issuer) is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Endpoint, client or credentials.
    Issuer,
    /// The client, or what was asked for: some endpoints answer 401 to a scope or an audience.
    Perhaps,
    /// What was asked for, unless several namespaces are answered so: some endpoints say `unauthorized_client` with 400 of a
    /// client that they do not know, and `invalid_grant` of a scope.
    Request,
}

impl Blame {
    /// What the answer to a token request says.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match (error.class(), error.reach()) {
            (Class::Rejected | Class::Ambiguous, Reach::Client) if !error.names_client() => Blame::Perhaps,
            (_, Reach::Request | Reach::Grant) => Blame::Request,
            _ => Blame::Issuer,
        }
    }
}

/// Whether a provider asks for nothing by itself, and not with a refresh token, which rotates and cannot be shared.
fn is_lendable(provider: &Provider) -> bool {
    let Provider { vgs, vng_cloud, oauth2, .. } = provider;
    match (vgs, vng_cloud, oauth2) {
        (Some(vgs), None, None) => vgs.scopes.is_none(),
        (None, Some(vng_cloud), None) => vng_cloud.scopes.is_none(),
        (None, None, Some(oauth2)) => {
            let grant = oauth2.grant.as_ref();
            oauth2.scopes.is_none()
                && oauth2.audience.is_none()
                && oauth2.resources.is_none()
                && grant.is_none_or(|grant| grant.refresh_token.is_none())
        }
        _ => false,
    }
}

fn serves(
    namespaces: &IssuerNamespaces,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    names_only: bool,
) -> bool {
    let IssuerNamespaces { names, selector, all } = namespaces;
    match (names, selector, all.unwrap_or_default()) {
        (Some(names), None, false) => names.iter().any(|name| name == namespace),
        (None, Some(selector), false) if !names_only && !selector.match_labels.is_empty() => {
            let has = |labels: &BTreeMap<String, String>| {
                selector.match_labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            };
            labels.is_some_and(has)
        }
        (None, None, true) => !names_only,
        _ => false,
    }
}

fn contains(allowed: Option<&Vec<String>>, asked: &str) -> bool {
    allowed.is_some_and(|allowed| allowed.iter().any(|allowed| allowed == asked))
}

fn is_some(allowed: Option<&Vec<String>>) -> bool {
    allowed.is_some_and(|allowed| !allowed.is_empty())
}

#[cfg(test)]
mod tests;
