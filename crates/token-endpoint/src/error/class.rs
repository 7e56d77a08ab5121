//! How failures are classified.

/// What failed, as one word, for example for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The credentials lack something that the request needs.
    MissingCredential,
    /// A credential is present but cannot be used.
    UnusableCredential,
    /// The description cannot be expressed as a request.
    InvalidDescription,
    /// The egress policy does not allow the endpoint.
    EgressRefused,
    /// The endpoint does not accept the client.
    ClientRejected,
    /// The endpoint does not accept the grant.
    GrantRejected,
    /// The endpoint does not grant the scope.
    ScopeRejected,
    /// The endpoint does not accept the request.
    RequestRejected,
    /// The endpoint asks for fewer requests, or has locked the client out.
    RateLimited,
    /// The endpoint cannot be reached, does not answer in time, or reports a failure of its own.
    Unavailable,
    /// A success without a usable token, or metadata that cannot be used.
    MalformedResponse,
}

/// What a failure implies for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// An attempt soon may succeed.
    Transient,
    /// The endpoint asks for fewer requests (HTTP 429).
    Limited,
    /// The answer is not recognised: the failure may pass, or the configuration must change.
    Unclear,
    /// A server error (5xx) with an error code that refuses the request, as gateways answer when they throttle: it may pass,
    /// or frequent attempts may do harm.
    Ambiguous,
    /// The configuration, here or at the issuer, must change; frequent attempts do harm.
    Rejected,
    /// The endpoint has locked the client out; each further failed login extends that.
    LockedOut,
    /// A success without a usable token; each attempt may use up one.
    Malformed,
    /// Nothing was sent, and nothing can be until the configuration changes.
    Configuration,
}

/// Which other requests would get the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of the caller's own retries: nothing is shared.
    Own,
    /// Requests with the same parameters.
    Request,
    /// Requests with the same refresh token, subject token or assertion.
    Grant,
    /// Requests of the same client.
    Client,
}
