//! Bounds of what is sent and what is read: most of it is the choice of tenants and of servers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::SignedDuration;

/// Bounds each of the [`Credentials`](crate::Credentials), in bytes.
pub const MAX_CREDENTIAL: usize = 32 * 1024;
/// Bounds them together: hundreds of requests hold theirs until their answers come.
pub const MAX_CREDENTIALS: usize = 48 * 1024;
/// Bounds the body of a request, in bytes as it is sent: JSON makes up to six bytes of one.
pub const MAX_REQUEST_BODY: usize = 64 * 1024;
/// Bounds the header section of a request, in bytes. Most servers accept 8 to 32 KiB.
pub const MAX_REQUEST_HEADERS: usize = 32 * 1024;

/// Bounds what a request holds that is not signed, in bytes: body and headers, what was sent of both once more and the credentials
/// as they are stored, which messages hide, and the pair of Basic authentication that is hidden with its parts.
pub const MAX_REQUEST: usize = 2 * MAX_REQUEST_BODY + 3 * MAX_REQUEST_HEADERS + MAX_CREDENTIALS;

/// Bounds an access token, in bytes. Servers refuse headers of a fraction of this length.
pub const MAX_TOKEN: usize = 64 * 1024;
/// Bounds the token endpoint in an issuer's metadata, in bytes.
pub const MAX_ENDPOINT: usize = 2048;
/// Bounds `token_type` (RFC 6749, 7.1), in bytes.
pub const MAX_TOKEN_TYPE: usize = 64;
/// Bounds `scope` of an answer (RFC 6749, 3.3), in bytes.
pub const MAX_SCOPE: usize = 1024;
/// Bounds each of [`Answer::values`](crate::Answer::values), in bytes.
pub const MAX_VALUE: usize = 4096;
/// An assertion is dated by a server's clock, but no further from the local one than this.
pub const MAX_ASSERTION_OFFSET: SignedDuration = SignedDuration::from_mins(5);

/// Bounds a CA bundle, in bytes of PEM. Those of Linux distributions have some 250 kB.
pub const MAX_BUNDLE: usize = 512 * 1024;
/// Bounds the certificates of a CA bundle. Those of Linux distributions have some 150.
pub const MAX_BUNDLE_CERTIFICATES: usize = 512;
/// Bounds the chain of a client certificate, in bytes of PEM.
pub const MAX_CHAIN: usize = 64 * 1024;
/// Bounds the certificates of a chain.
pub const MAX_CHAIN_CERTIFICATES: usize = 16;
