//! The message for a failed token request, with its remedy in terms of TokenSource fields, flags and Helm values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use token_endpoint::{Error, Hint};

/// The message for conditions, events and `mint`. It holds no secret.
#[must_use]
pub fn error_text(error: &Error) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}{}", remedy(&hint)))
}

/// The message for `mint`, which is run by people who may send requests to the endpoint themselves: with the server's text
/// beside an unknown error code. Status has no such texts: with them, a TokenSource could read other services.
#[must_use]
pub fn error_text_in_full(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}; the endpoint says: {detail}", error_text(error)),
        None => error_text(error),
    }
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
        Hint::AllowNetwork(network) => format!(
            ": a resolver hands out such addresses, another one each time, so that a rule for the host does not suffice: \
             start the operator with --egress-allow {network} (Helm value egress.allow)"
        ),
        Hint::RemoveDenial(network) => {
            format!(": the operator runs with --egress-deny {network} (Helm value egress.deny)")
        }
        Hint::UseSystemRoots => {
            ": remove spec.tls.caBundle, or start the operator without --egress-tenant-ca-bundle=false (Helm value \
             egress.tenantCABundle)"
                .into()
        }
        Hint::AddToOnly(_) => ": add it to --egress-only (Helm value egress.only)".into(),
        Hint::ListName(rule) => format!(
            " (names are looked up as absolute; if this one is for the cluster's search list or hostAliases, start the \
             operator with --egress-allow {rule} (Helm value egress.allow))"
        ),
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
            " (redirects are not followed: set tokenURL to their target)".into()
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
        Hint::CheckGitHubInstallation => {
            " (is the app of this key installed as installationID, not suspended, and are the repositories and \
             permissions among those that the installation was granted?)"
                .into()
        }
        Hint::CheckGitHubKey
        | Hint::CheckClientCredentials
        | Hint::CheckGrant
        | Hint::CheckIntermediary
        | Hint::AuthenticateToProxy => {
            format!(" ({hint})")
        }
        Hint::CheckAccessTokenPointer => ", where response.accessToken says that the token is".into(),
        Hint::CheckValuePointer => ", where response.values looks".into(),
        Hint::RemoveValuePointer => ", where response.values looks: remove that pointer".into(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use token_endpoint::{
        BasicEncoding, ClientAuthentication, Credentials, Egress, EgressRule, Grant, RequestDescription,
        RequestError, ResponseMapping, read,
    };

    use super::*;

    fn answered(status: u16, body: &str, response: ResponseMapping) -> String {
        error_text(&refused(status, body, response))
    }

    fn refused(status: u16, body: &str, response: ResponseMapping) -> Error {
        let description = RequestDescription {
            response,
            ..RequestDescription::new(
                "https://idp.example.com/token".parse().unwrap(),
                Grant::ClientCredentials,
                ClientAuthentication::Basic(BasicEncoding::Percent),
            )
        };
        let credentials = Credentials {
            client_id: Some("id".into()),
            client_secret: Some("plain".into()),
            ..Credentials::default()
        };
        let request = description.request(&credentials).unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &HeaderMap::new(), body.as_bytes(), &request).unwrap_err()
    }

    #[test]
    fn error_text_of_unknown_codes_and_messages_has_the_text_of_the_server_only_in_full() {
        for (body, text) in [
            (r#"{"error":"odd_code","error_description":"Ask the owner."}"#, "HTTP 400, odd_code"),
            (r#"{"message":"Ask the owner."}"#, "HTTP 400 with a message and no error code"),
        ] {
            let error = refused(400, body, ResponseMapping::default());
            assert_eq!(error_text(&error), format!("the token endpoint answered {text}"));
            assert_eq!(error_text_in_full(&error), format!("{error}; the endpoint says: Ask the owner."));
        }
        let known = refused(400, r#"{"error":"invalid_scope","message":"m"}"#, ResponseMapping::default());
        assert_eq!(error_text_in_full(&known), error_text(&known));
    }

    fn rules(texts: &[&str]) -> Vec<EgressRule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn error_text_without_hint_is_the_error() {
        let error = Error::from(RequestError::NotDiscovered);
        assert_eq!(error_text(&error), error.to_string());
        assert_eq!(
            answered(400, r#"{"error":"invalid_scope"}"#, ResponseMapping::default()),
            "the token endpoint answered HTTP 400, invalid_scope"
        );
    }

    #[test]
    fn error_text_of_answers_names_fields() {
        let mapped = ResponseMapping {
            access_token: Some("/token".parse().unwrap()),
            values: [("name".to_owned(), "/x".parse().unwrap())].into(),
            ..ResponseMapping::default()
        };
        for (status, body, end) in [
            (302, "", "no error code (redirects are not followed: set tokenURL to their target)"),
            (401, "", "(check the client id and secret)"),
            (403, "", "(a firewall or proxy on the way seems to have answered)"),
            (
                404,
                r#"{"error":"Realm does not exist"}"#,
                ": Realm does not exist (check the path of tokenURL)",
            ),
            (
                404,
                r#"{"message":"the db password is x"}"#,
                "HTTP 404 with a message and no error code (check the path of tokenURL)",
            ),
            (407, "", "(a proxy on the way asks for authentication)"),
            (
                400,
                r#"{"error":"TOO_MANY_FAILED_LOGINS"}"#,
                "(the client is locked out after failed logins; the next attempt waits)",
            ),
            (
                200,
                "<html>",
                "6 bytes of no known media type instead of a JSON object (is tokenURL the token endpoint?)",
            ),
            (200, "{}", "but without a text at /token, where response.accessToken says that the token is"),
            (
                200,
                r#"{"token":"t","x":"plain"}"#,
                "with a secret at /x, where response.values looks: remove that pointer",
            ),
        ] {
            let text = answered(status, body, mapped.clone());
            assert!(text.ends_with(end), "{text}");
        }
        let long = format!(r#"{{"token":"t","x":"{}"}}"#, "x".repeat(4097));
        let text = answered(200, &long, mapped);
        assert!(text.ends_with("with more than 4096 bytes at /x, where response.values looks"), "{text}");
    }

    #[test]
    fn error_text_of_egress_refusals_names_flag_and_helm_value() {
        let api_server = || vec!["10.96.0.1".parse().unwrap()];
        let egress = Egress::new(Vec::new(), None, false, api_server());
        for (host, ip, end) in [
            (
                "idp.corp",
                "10.1.2.3",
                "policy: start the operator with --egress-allow idp.corp:8443 (Helm value egress.allow)",
            ),
            (
                "idp.example.com",
                "198.18.0.37",
                "does not suffice: start the operator with --egress-allow 198.18.0.0/15 (Helm value egress.allow)",
            ),
            (
                "idp.example.com",
                "34.118.230.1",
                "policy: the operator runs with --egress-deny 34.118.224.0/20 (Helm value egress.deny)",
            ),
            (
                "::1",
                "::1",
                "policy: start the operator with --egress-allow [::1]:8443 (Helm value egress.allow)",
            ),
            (
                "idp.corp",
                "10.96.0.1",
                "(it is the Kubernetes API server): start the operator with --egress-allow 10.96.0.1:8443 (Helm value egress.allow)",
            ),
        ] {
            let egress = egress.clone().with_denied(vec!["34.118.224.0/20".parse().unwrap()]);
            let refused = egress.check_address(host, 8443, ip.parse().unwrap()).unwrap_err();
            let text = error_text(&refused.into());
            assert!(text.ends_with(end), "{text}");
        }
        let text = |egress: &Egress, url: &str| {
            error_text(&egress.check_proxied(&url.parse().unwrap()).unwrap_err().into())
        };
        let http = text(&egress, "http://idp.example.com/token");
        assert!(
            http.ends_with("start the operator with --allow-http (Helm value allowHTTP: true)"),
            "{http}"
        );
        let proxied = text(&egress, "https://api.default.svc/token");
        assert!(proxied.contains("start the operator with --egress-allow api.default.svc:443 "), "{proxied}");
        let only = Egress::new(Vec::new(), Some(rules(&["idp.example.com"])), false, api_server());
        let unlisted = text(&only, "https://other.example.com/token");
        assert!(unlisted.starts_with("other.example.com:443 is not among"), "{unlisted}");
        assert!(unlisted.ends_with(": add it to --egress-only (Helm value egress.only)"), "{unlisted}");
    }

    #[test]
    fn error_text_of_connections_names_fields() {
        use token_endpoint::CertificateProblem::{SelfSigned, UnknownAuthority};
        let host = || "idp.example.com".to_owned();
        for (error, end) in [
            (
                Error::Dns {
                    host: "keycloak.auth.svc".to_owned(),
                    cause: String::new(),
                    made_absolute: true,
                },
                "start the operator with --egress-allow keycloak.auth.svc (Helm value egress.allow))",
            ),
            (
                Error::Dns { host: host(), cause: "no such name".to_owned(), made_absolute: true },
                "the name idp.example.com cannot be resolved: no such name",
            ),
            (
                Error::ConnectTimeout { host: host(), seconds: 5 },
                "within 5 s: is there a firewall or a NetworkPolicy on the way?",
            ),
            (
                Error::Certificate { host: host(), problem: SelfSigned },
                "it is self-signed: if it is the right one, put it into spec.tls.caBundle (`openssl s_client -showcerts \
                 -connect HOST:443` prints it)",
            ),
            (
                Error::Certificate { host: host(), problem: UnknownAuthority },
                "does not send its intermediates: put the authority's certificate into spec.tls.caBundle",
            ),
        ] {
            let text = error_text(&error);
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn remedy_of_discovery_and_client_names_fields() {
        for (hint, field) in [
            (Hint::CheckIssuer, "tokenURL"),
            (Hint::SetTokenUrl, "tokenURL"),
            (
                Hint::AvoidPercentEncoding,
                "set clientAuthentication to `basic: {encoding: Raw}` or to `post: {}`",
            ),
        ] {
            assert!(remedy(&hint).contains(field), "{hint}");
        }
    }
}
