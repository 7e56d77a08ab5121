use std::fmt;

/// The reason of a condition, an event or a metric label. The set is closed, so that alerts, `kubectl wait` expressions
/// and documentation can rely on it.
///
/// [`Reason::as_str`] is the value that users see, in `CamelCase` as the Kubernetes API conventions require for
/// `condition.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The target holds a token that is valid now and was requested for the present spec.
    TokenValid,
    /// The token is valid, but the last attempt to refresh it failed.
    RefreshFailing,
    /// A first token is being requested.
    Requesting,
    /// The credentials Secret, or a key of it, does not exist.
    CredentialsNotFound,
    /// The credentials exist but cannot be used: empty, of a refused type, a template, not a key.
    CredentialsInvalid,
    /// The endpoint does not accept the client: `invalid_client`, `unauthorized_client`, or 401 without an error code.
    ClientRejected,
    /// The endpoint does not accept the grant: `invalid_grant`, `unsupported_grant_type`.
    GrantRejected,
    /// The endpoint does not grant the scope: `invalid_scope`.
    ScopeRejected,
    /// The endpoint does not accept the request: `invalid_request`, a redirect, an unknown code.
    RequestRejected,
    /// The endpoint limits the rate of requests, or has locked the client out for a while.
    RateLimited,
    /// The endpoint cannot be reached, does not respond in time, or fails (5xx).
    EndpointUnavailable,
    /// The egress policy of the operator does not allow this endpoint.
    EndpointRefusedByPolicy,
    /// The response of the endpoint contains no usable token.
    ResponseMalformed,
    /// The spec has an error that the validation rules of the API server do not find.
    SpecInvalid,
    /// The ClusterTokenIssuer that the spec names does not exist for this namespace, or does not allow what is asked for.
    NotAllowedByIssuer,
    /// The ClusterTokenIssuer that the spec names cannot be used at present, or the operator serves none.
    IssuerNotReady,
    /// The namespace has more TokenSources than the operator serves there.
    TooManySources,
    /// The template of the target cannot be used, or does not fit the type of the Secret.
    TemplateInvalid,
    /// The target Secret belongs to another owner.
    TargetConflict,
    /// Another writer changes or deletes the target Secret repeatedly.
    ConflictingWriter,
    /// The API server does not accept the write to the target Secret (quota, policy, immutable).
    TargetRefused,
    /// The API server refuses a call that the operator needs, usually because RBAC does not grant it, or fails for Secrets alone.
    KubernetesApiError,
    /// The operator has its rights by namespace, and no RoleBinding grants them in this one.
    NamespaceNotOpened,
    /// The token in the target has expired.
    Expired,
    /// `spec.suspend` is true.
    Suspended,
    /// The lifetime leaves room for propagation to pods and for retries.
    LifetimeSufficient,
    /// The lifetime leaves room for propagation, but not for one failed token request.
    NoRetryRoom,
    /// Readers of the mounted file may see an expired token.
    LifetimeTooShort,
    /// The issuer returns the same token until shortly before it expires.
    IssuerReturnsCachedTokens,
    /// Pods could not be annotated after a new token, though the spec asks for it.
    PromptFailed,
    /// Pods use the token in a way that does not follow the Secret: environment variables, `subPath`.
    StaticMount,
}

impl Reason {
    /// The reason of this name; `None`: this build does not know it.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// Every reason, for documentation and metrics that must be complete.
    pub const ALL: [Reason; 31] = [
        Reason::TokenValid,
        Reason::RefreshFailing,
        Reason::Requesting,
        Reason::CredentialsNotFound,
        Reason::CredentialsInvalid,
        Reason::ClientRejected,
        Reason::GrantRejected,
        Reason::ScopeRejected,
        Reason::RequestRejected,
        Reason::RateLimited,
        Reason::EndpointUnavailable,
        Reason::EndpointRefusedByPolicy,
        Reason::ResponseMalformed,
        Reason::SpecInvalid,
        Reason::NotAllowedByIssuer,
        Reason::IssuerNotReady,
        Reason::TooManySources,
        Reason::TemplateInvalid,
        Reason::TargetConflict,
        Reason::ConflictingWriter,
        Reason::TargetRefused,
        Reason::KubernetesApiError,
        Reason::NamespaceNotOpened,
        Reason::Expired,
        Reason::Suspended,
        Reason::LifetimeSufficient,
        Reason::NoRetryRoom,
        Reason::LifetimeTooShort,
        Reason::IssuerReturnsCachedTokens,
        Reason::PromptFailed,
        Reason::StaticMount,
    ];

    /// The value in conditions, events and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::TokenValid => "TokenValid",
            Reason::RefreshFailing => "RefreshFailing",
            Reason::Requesting => "Requesting",
            Reason::CredentialsNotFound => "CredentialsNotFound",
            Reason::CredentialsInvalid => "CredentialsInvalid",
            Reason::ClientRejected => "ClientRejected",
            Reason::GrantRejected => "GrantRejected",
            Reason::ScopeRejected => "ScopeRejected",
            Reason::RequestRejected => "RequestRejected",
            Reason::RateLimited => "RateLimited",
            Reason::EndpointUnavailable => "EndpointUnavailable",
            Reason::EndpointRefusedByPolicy => "EndpointRefusedByPolicy",
            Reason::ResponseMalformed => "ResponseMalformed",
            Reason::SpecInvalid => "SpecInvalid",
            Reason::NotAllowedByIssuer => "NotAllowedByIssuer",
            Reason::IssuerNotReady => "IssuerNotReady",
            Reason::TooManySources => "TooManySources",
            Reason::TemplateInvalid => "TemplateInvalid",
            Reason::TargetConflict => "TargetConflict",
            Reason::ConflictingWriter => "ConflictingWriter",
            Reason::TargetRefused => "TargetRefused",
            Reason::KubernetesApiError => "KubernetesAPIError",
            Reason::NamespaceNotOpened => "NamespaceNotOpened",
            Reason::Expired => "Expired",
            Reason::Suspended => "Suspended",
            Reason::LifetimeSufficient => "LifetimeSufficient",
            Reason::NoRetryRoom => "NoRetryRoom",
            Reason::LifetimeTooShort => "LifetimeTooShort",
            Reason::IssuerReturnsCachedTokens => "IssuerReturnsCachedTokens",
            Reason::PromptFailed => "PromptFailed",
            Reason::StaticMount => "StaticMount",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
