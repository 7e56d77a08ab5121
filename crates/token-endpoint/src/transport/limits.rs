//! Limits of an exchange.

use std::time::Duration;

/// Bounds the time to connect, with name resolution and the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds the body of an answer, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
/// Bounds the header section of an answer, in bytes. Node's client accepts half of it.
pub const MAX_ANSWER_HEADER_BYTES: usize = 32 * 1024;
/// Bounds the headers of an answer.
pub const MAX_ANSWER_HEADERS: usize = 100;
/// A body of more bytes is one of [`MAX_LARGE_BODIES`].
pub const SMALL_BODY: usize = 16 * 1024;
/// The same for the answer to a request that spends a credential: it must not wait while the next refresh token is in it.
pub const SMALL_BODY_OF_SPENT: usize = 64 * 1024;
/// Bounds the large bodies that a transport is reading: together they take 8 MiB.
pub const MAX_LARGE_BODIES: usize = 32;
/// Bounds a look-up of a name, waiting included: less than [`CONNECT_TIMEOUT`], so that the error says what took long.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Bounds the look-ups of a transport that are under way. Each occupies a thread until the system's resolver gives up. A tenant's
/// look-ups of one name at the same time are one.
pub const MAX_LOOKUPS: usize = 128;
