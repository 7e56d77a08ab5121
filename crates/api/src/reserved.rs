//! Names that a spec must not set, because the operator writes them itself or because they would give a tenant more than
//! a token. The crate `token-endpoint` has the same lists; a test of the operator compares them.

/// Members of a token request that have a field of their own in the spec. In ASCII lower case.
pub const RESERVED_PARAMETERS: &[&str] = &[
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "refresh_token",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// Claims of an assertion that have a field of their own in the spec, or that each token request sets.
pub const RESERVED_CLAIMS: &[&str] = &["aud", "exp", "iat", "iss", "jti", "nbf", "sub"];

/// Members of a token response that a template must not read, in lower case and without underscores and hyphens.
pub const SECRET_MEMBERS: [&str; 5] = ["accesstoken", "refreshtoken", "idtoken", "clientsecret", "assertion"];

/// Headers of a token request that a spec must not set, in ASCII lower case; a trailing `*` matches any suffix.
pub const REFUSED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-*",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "impersonate-*",
    "keep-alive",
    "metadata*",
    "proxy-*",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-aws-*",
    "x-forwarded-*",
];
