//! The message for a failed token request, with its remedy in terms of TokenSource fields, flags and Helm values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use token_endpoint::{Error, Hint};

/// The message for conditions, events and `mint`. It holds no secret.
#[must_use]
pub fn error_text(error: &Error) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}{}", remedy(&hint)))
}

/// The end of the sentence, with its punctuation.
fn remedy(hint: &Hint) -> String {
    match hint {
        Hint::AllowHttp => {
            ": use https, or, for tests only, start the operator with --allow-http (Helm value allowHTTP: true)".into()
        }
        Hint::AllowEgress(rule) => {
            format!(": start the operator with --egress-allow {rule} (Helm value egress.allow)")
        }
        Hint::AllowProtectedAddress(rule) => format!(
            " (it is the Kubernetes API server): start the operator with --egress-allow {rule} (Helm value egress.allow)"
        ),
        Hint::AddToOnly(_) => ": add it to --egress-only (Helm value egress.only)".into(),
        Hint::CheckFirewall => ": is there a firewall or a NetworkPolicy on the way?".into(),
        Hint::TrustCertificate => {
            ": if it is the right one, put it into spec.tls.caBundle (`openssl s_client -showcerts -connect HOST:443` \
             prints it)"
                .into()
        }
        Hint::TrustAuthority => ": put the authority's certificate into spec.tls.caBundle".into(),
        Hint::CheckIssuer => ": check the issuer, or set tokenURL instead".into(),
        Hint::SetTokenUrl => ": set tokenURL instead".into(),
        Hint::UseRedirectTarget => {
            " (redirects are not followed: set tokenURL to the address to which it redirects)".into()
        }
        Hint::CheckTokenUrlPath => " (check the path of tokenURL)".into(),
        Hint::CheckTokenUrl => " (is tokenURL the token endpoint?)".into(),
        Hint::AvoidPercentEncoding => {
            " (the client id or secret has characters that Basic authentication percent-encodes (RFC 6749, 2.3.1): if \
             both are right, the server may not decode them; then set clientAuthentication to `basic: {encoding: Raw}` \
             or to `post: {}`)"
                .into()
        }
        Hint::WaitForUnlock => {
            " (the client is locked out after failed logins; the next attempt waits)".into()
        }
        Hint::CheckClientCredentials | Hint::CheckIntermediary | Hint::AuthenticateToProxy => {
            format!(" ({hint})")
        }
        Hint::CheckAccessTokenPointer => ", where response.accessToken says that the token is".into(),
        Hint::CheckValuePointer => ", where response.values looks".into(),
        Hint::RemoveValuePointer => ", where response.values looks: remove that pointer".into(),
    }
}
