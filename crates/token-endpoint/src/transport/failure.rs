//! Classifies the failures of an HTTP exchange.

use super::connector::{ConnectTimedOut, ProxyUnreached};
use super::limits::{CONNECT_TIMEOUT, MAX_ANSWER_HEADER_BYTES, MAX_ANSWER_HEADERS};
use super::resolver::Unresolved;
use crate::egress::EgressRefused;
use crate::error::Error;
use crate::tls::CertificateProblem;
use hyper_util::client::legacy;
use rustls::AlertDescription;
use std::error::Error as StdError;
use url::Url;

/// The end of hyper's message; clients cannot ask for the kind.
const TOO_LARGE: &str = "message head is too large";

/// Classifies by the sources of an error, since the kinds of the HTTP library are too coarse. `may_renegotiate`: the server may
/// have asked for the client's certificate when the connection stood.
pub(super) fn failure(error: &(dyn StdError + 'static), url: &Url, may_renegotiate: bool) -> Error {
    let host = host(url);
    if let Some(refused) = find::<EgressRefused>(error) {
        return Error::Egress(refused.clone());
    }
    let cause = root_cause(error);
    let tls = find::<rustls::Error>(error);
    if find::<ProxyUnreached>(error).is_some() {
        // The library's message has the names in the proxy's certificate, which are not for tenants.
        let cause = match tls {
            Some(rustls::Error::InvalidCertificate(problem)) => match CertificateProblem::of(problem) {
                // Not the token URL.
                CertificateProblem::OtherName => {
                    "its certificate is for another name than its URL has".into()
                }
                problem => format!("its certificate is not trusted: {problem}"),
            },
            _ => cause,
        };
        return Error::ProxyUnreached { host, cause };
    }
    let is_connect = find::<legacy::Error>(error).is_some_and(legacy::Error::is_connect);
    match tls {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            return Error::Certificate { host, problem: CertificateProblem::of(problem) };
        }
        Some(rustls::Error::AlertReceived(alert)) if is_about_client(*alert) => {
            return Error::ClientCertificate { host, cause };
        }
        // Servers on OpenSSL send these when a client has refused to renegotiate.
        Some(rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::NoRenegotiation,
        )) if !is_connect => {
            return Error::Renegotiation { host, cause, is_alert: true };
        }
        Some(_) if is_connect => return Error::Handshake { host, cause },
        // The request may have been sent.
        Some(_) => return Error::Cut { host, cause },
        None => {}
    }
    // The type of this error is private to the library.
    if cause.starts_with("tunnel error: ") {
        let wants_authentication = cause.contains("authorization required");
        return Error::Proxy { host, cause, wants_authentication };
    }
    if let Some(Unresolved { made_absolute, .. }) = find(error) {
        Error::Dns { host, cause, made_absolute: *made_absolute }
    } else if find::<ConnectTimedOut>(error).is_some() {
        Error::ConnectTimeout { host, seconds: CONNECT_TIMEOUT.as_secs() }
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) && cause.ends_with(TOO_LARGE) {
        let cause =
            format!("more than {MAX_ANSWER_HEADERS} headers, or {MAX_ANSWER_HEADER_BYTES} bytes of them");
        Error::Cut { host, cause }
    } else if is_connect {
        Error::Connect { host, cause }
    } else if may_renegotiate {
        Error::Renegotiation { host, cause, is_alert: false } // others close the connection
    } else {
        Error::Cut { host, cause }
    }
}

/// The alerts (RFC 8446, 6.2) with which a server refuses a client's certificate.
fn is_about_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// The chain of sources, including the errors that [`std::io::Error`] wraps but does not return as its source.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// The message of the innermost error. Those of the system, of rustls and of hyper hold no text of the peer.
pub(super) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

pub(super) fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alert_after_the_handshake_leaves_the_outcome_unknown() {
        let url = "https://idp.example.com/token".parse().unwrap();
        let alert = rustls::Error::AlertReceived(AlertDescription::InternalError);
        assert!(failure(&alert, &url, false).outcome_unknown());
    }
}
