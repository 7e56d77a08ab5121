//! Requests that cannot be written.

use crate::credential::Credential;
use crate::key::KeyError;
use crate::limits::{MAX_CREDENTIAL, MAX_REQUEST_BODY, MAX_REQUEST_HEADERS};

/// A request cannot be written from a description and credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The description needs a credential that is absent or empty.
    #[error("the request needs a {0}, and the credentials hold none")]
    Missing(Credential),
    /// A secret parameter or header needs a value that is absent or empty.
    #[error("the request needs a value under the key {0:?}, and the credentials hold none")]
    MissingValue(String),
    /// More than [`MAX_CREDENTIAL`].
    #[error("the {0} has more than {max} bytes", max = MAX_CREDENTIAL)]
    LongCredential(Credential),
    /// The value of a secret parameter or header has more than [`MAX_CREDENTIAL`].
    #[error("the value under the key {0:?} has more than {max} bytes", max = MAX_CREDENTIAL)]
    LongValue(String),
    /// More than [`MAX_REQUEST_BODY`], with the longest member.
    #[error("the request's body would have more than {max} bytes, most of them in {0:?}: shorten what it is made of", max = MAX_REQUEST_BODY)]
    LongBody(String),
    /// More than [`MAX_REQUEST_HEADERS`], with the longest header.
    #[error("the request's headers would have more than {max} bytes, most of them in {0:?}: shorten what they are made of", max = MAX_REQUEST_HEADERS)]
    LongHeaders(String),
    /// A parameter is named like a member of [`RESERVED`](crate::RESERVED), or both kinds of parameters have the same name.
    #[error("the parameter {0:?} is reserved: this client sets it itself")]
    Reserved(String),
    /// `claims` has one of [`RESERVED_CLAIMS`](crate::RESERVED_CLAIMS).
    #[error("the claim {0:?} is reserved: this client sets it itself")]
    ReservedClaim(String),
    /// One of [`REFUSED_HEADERS`](crate::REFUSED_HEADERS), or not a header name.
    #[error("the header {0:?} cannot be set")]
    RefusedHeader(String),
    /// A value with a line break or other control characters.
    #[error("the value of the header {0:?} holds characters that a header cannot carry")]
    HeaderValue(String),
    /// RFC 8707, 2.
    #[error("the resource {0:?} is neither an absolute URI without a fragment (RFC 8707) nor a GUID")]
    Resource(String),
    /// RFC 7617, 2: the server would split the id at its colon, and count a failed login.
    #[error(
        "the client id has a colon, which Basic authentication with encoding Raw cannot carry: use encoding Percent, or post"
    )]
    ColonInClientId,
    /// The token URL has characters that a request cannot carry (RFC 3986).
    #[error("the token URL has characters that a request cannot carry: percent-encode them (RFC 3986)")]
    Url,
    /// HTTP clients turn them into an Authorization header.
    #[error("the token URL must not hold a user name or a password")]
    UserInfoInUrl,
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate that an assertion names cannot be used.
    #[error("the certificate {0}")]
    Certificate(&'static str),
    /// The assertion that another program makes is past its `exp`. It may be renewed at any time.
    #[error(
        "the assertion expired {0} s ago, so that nothing was sent: does what renews it still run, and is the clock of this machine right?"
    )]
    ExpiredAssertion(u64),
    /// A caller's error: the description signs, and [`RequestDescription::attempt`](crate::RequestDescription::attempt) was not used.
    #[error("the request must be signed, and no time of signing was given")]
    NotAnAttempt,
    /// A caller's error: the endpoint must be discovered first.
    #[error("the token endpoint has not been discovered yet")]
    NotDiscovered,
}
