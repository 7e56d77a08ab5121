use std::fmt;

/// Why a condition, an event or a metric says what it says. One closed set, so that people can write
/// alerts, `kubectl wait` expressions and documentation against it.
///
/// Kubernetes API conventions ask for `CamelCase` words in `condition.reason`; [`Reason::as_str`] is
/// exactly what a user sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The target holds a token that is valid now and was minted for the present spec.
    TokenValid,
    /// The token is valid, but the last attempt to refresh it failed.
    RefreshFailing,
    /// A first token is being asked for.
    Requesting,
    /// The Secret with the credentials, or a key of it, is not there.
    CredentialsNotFound,
    /// The credentials are there but cannot be used: empty, of a refused type, a template, not a key.
    CredentialsInvalid,
    /// The endpoint does not accept the client: `invalid_client`, `unauthorized_client`, a bare 401.
    ClientRejected,
    /// The endpoint does not accept the grant: `invalid_grant`, `unsupported_grant_type`.
    GrantRejected,
    /// The endpoint does not grant the scope: `invalid_scope`.
    ScopeRejected,
    /// The endpoint does not accept the request: `invalid_request`, a redirect, an unknown code.
    RequestRejected,
    /// The endpoint asks for fewer requests, or has locked the client out for a while.
    RateLimited,
    /// The endpoint cannot be reached, does not answer in time, or fails by itself (5xx).
    EndpointUnavailable,
    /// The egress policy of the operator does not allow this endpoint.
    EndpointRefusedByPolicy,
    /// The endpoint answered with something that holds no usable token.
    ResponseMalformed,
    /// The spec asks for something that only the running operator could find to be wrong.
    SpecInvalid,
    /// The template of the target cannot be used, or does not fit its type.
    TemplateInvalid,
    /// The target Secret belongs to somebody else.
    TargetConflict,
    /// Somebody changes or deletes the target Secret again and again.
    ConflictingWriter,
    /// The API server does not accept the write to the target Secret (quota, policy, immutable).
    TargetRefused,
    /// The API server refuses something that the operator needs, mostly for want of RBAC.
    KubernetesApiError,
    /// The token in the target has expired.
    Expired,
    /// `spec.suspend` is true.
    Suspended,
    /// The lifetime leaves room for propagation to pods and for retries.
    LifetimeSufficient,
    /// The lifetime leaves room for propagation, but not for a single failed attempt.
    NoRetryRoom,
    /// Readers of the mounted file may see an expired token.
    LifetimeTooShort,
    /// The issuer hands out the same token again until shortly before its end.
    IssuerReturnsCachedTokens,
    /// Pods could not be told of a new token, though the spec asks for it.
    PromptFailed,
    /// Pods have the token in a way that does not follow the Secret: environment variables, `subPath`.
    StaticMount,
}

impl Reason {
    /// Every member, for documentation and metrics that must be complete.
    pub const ALL: [Reason; 27] = [
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
        Reason::TemplateInvalid,
        Reason::TargetConflict,
        Reason::ConflictingWriter,
        Reason::TargetRefused,
        Reason::KubernetesApiError,
        Reason::Expired,
        Reason::Suspended,
        Reason::LifetimeSufficient,
        Reason::NoRetryRoom,
        Reason::LifetimeTooShort,
        Reason::IssuerReturnsCachedTokens,
        Reason::PromptFailed,
        Reason::StaticMount,
    ];

    /// The reason as it stands in conditions, events and metric labels.
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
            Reason::TemplateInvalid => "TemplateInvalid",
            Reason::TargetConflict => "TargetConflict",
            Reason::ConflictingWriter => "ConflictingWriter",
            Reason::TargetRefused => "TargetRefused",
            Reason::KubernetesApiError => "KubernetesAPIError",
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
