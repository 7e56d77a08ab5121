//! Limits of an exchange.

use std::time::Duration;

/// Bounds the time to connect, with name resolution and the TLS handshake.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bounds the body of an answer, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
