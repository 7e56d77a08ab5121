//! Redacted views of request and target: names, and the values that are in the TokenSource or not secret. Of values from a
//! Secret only the length is shown.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;

use crate::commands::redacted::{RedactedValue, shown_url};
use crate::secret::Rendered;
use token_endpoint::{Grant, RequestDescription, TokenRequest};

/// Members of a request whose values are never secret.
const PUBLIC_MEMBERS: [&str; 8] = [
    "actor_token_type",
    "audience",
    "client_assertion_type",
    "grant_type",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token_type",
];

/// A header, a member of a body or a key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) value: RedactedValue,
}

impl Member {
    pub(super) fn new(name: &str, value: RedactedValue) -> Self {
        Member { name: name.to_owned(), value }
    }
}

/// A token request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RequestView {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) headers: Vec<Member>,
    pub(super) body: Vec<Member>,
}

/// The view of `request`, which was built from `description`. `client_id` is that of the TokenSource, and is shown.
pub(super) fn request_view(
    request: &TokenRequest,
    description: &RequestDescription,
    client_id: Option<&str>,
    show: bool,
) -> RequestView {
    let is_public = |name: &str, value: &str| {
        matches!(description.grant, Grant::GitHubApp(_)) // the body is from the TokenSource alone
            || PUBLIC_MEMBERS.contains(&name)
            || (name == "client_id" && client_id == Some(value))
            || description.parameters.get(name).is_some_and(|public| public == value)
    };
    let body = body(request)
        .into_iter()
        .map(|(name, value)| {
            let shown = match name.as_str() {
                _ if show || is_public(&name, &value) => RedactedValue::Plain(value),
                "assertion" | "client_assertion" => {
                    jwt(&value).map_or(RedactedValue::secret(&value, false), RedactedValue::Plain)
                }
                _ => RedactedValue::secret(&value, false),
            };
            Member { name, value: shown }
        })
        .collect();
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| Member::new(name.as_str(), header(value, *name == AUTHORIZATION, show)))
        .collect();
    RequestView { method: "POST", url: shown_url(request.url(), show), headers, body }
}

fn header(value: &HeaderValue, is_authorization: bool, show: bool) -> RedactedValue {
    let text = String::from_utf8_lossy(value.as_bytes());
    match text.split_once(' ') {
        _ if show || !value.is_sensitive() => RedactedValue::Plain(text.into_owned()),
        Some((scheme, rest)) if is_authorization => {
            RedactedValue::Plain(format!("{scheme} {}", RedactedValue::secret(rest, false)))
        }
        _ => RedactedValue::secret(&text, false),
    }
}

/// The members of a form or JSON body, one for each value.
fn body(request: &TokenRequest) -> Vec<(String, String)> {
    let body = request.body().expose_secret();
    let is_json = request.headers().get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().ends_with(b"json"));
    if !is_json {
        return url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    }
    let Ok(Value::Object(members)) = serde_json::from_str(body) else { return vec![] };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    members
        .into_iter()
        .flat_map(|(name, value)| match value {
            Value::Array(values) => values.into_iter().map(|it| (name.clone(), text(it))).collect(),
            value => vec![(name, text(value))],
        })
        .collect()
}

/// Header and claims of an assertion: audience, scope and times; the other claims and the signature are redacted.
fn jwt(assertion: &str) -> Option<String> {
    let part = |text: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    let mut parts = assertion.split('.');
    let (header, mut claims) = (part(parts.next()?)?, part(parts.next()?)?);
    let signature = parts.next()?;
    for (name, claim) in claims.as_object_mut()? {
        // The audience is usually the token URL, which may have a query.
        if let Some((place, query)) = claim.as_str().and_then(|text| text.split_once('?')) {
            *claim = format!("{place}?{}", RedactedValue::secret(query, false)).into();
        } else if !claim.is_number() && !matches!(name.as_str(), "aud" | "scope") {
            let length = claim.as_str().map_or_else(|| claim.to_string().len(), |text| text.chars().count());
            *claim = RedactedValue::Redacted(length).to_string().into();
        }
    }
    Some(format!("JWT {header} {claims} {}", RedactedValue::secret(signature, false)))
}

/// The data of the target Secret; `redacted` is the same data rendered with redacted values, where that succeeded.
pub(super) fn target_data(rendered: &Rendered, redacted: Option<&Rendered>, show: bool) -> Vec<Member> {
    rendered
        .data
        .iter()
        .map(|(key, value)| {
            let value = value.expose_secret();
            let redacted = redacted.and_then(|redacted| redacted.data.get(key));
            Member::new(
                key,
                match redacted {
                    Some(redacted) if !show => RedactedValue::Plain(redacted.expose_secret().to_owned()),
                    _ => RedactedValue::secret(value, show),
                },
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use token_endpoint::{
        Algorithm, Attempt, BasicEncoding, ClientAuthentication, Credentials, Encoding, PrivateKeyJwt,
    };

    const KEY: &str = include_str!("../../../crates/token-endpoint/src/tests/keys/p256.pem");

    fn credentials() -> Credentials {
        Credentials {
            client_id: Some("the-client".into()),
            client_secret: Some("hunter2 & more".into()),
            refresh_token: Some("r-hunter2".into()),
            private_key: Some(KEY.into()),
            values: [("api_key".to_owned(), "hunter2-key".into())].into(),
            ..Credentials::default()
        }
    }

    fn description(grant: Grant, client: ClientAuthentication, encoding: Encoding) -> RequestDescription {
        RequestDescription {
            encoding,
            scopes: vec!["read".into(), "write".into()],
            resources: vec!["https://a.example".into(), "https://b.example".into()],
            parameters: [("organization".to_owned(), "acme".to_owned())].into(),
            secret_parameters: [("apikey".to_owned(), "api_key".to_owned())].into(),
            headers: [("X-Tenant".to_owned(), "acme".to_owned())].into(),
            secret_headers: [("X-Api-Key".to_owned(), "api_key".to_owned())].into(),
            ..RequestDescription::new(
                "https://idp.example.com/token?key=hunter2&tenant=a".parse().unwrap(),
                grant,
                client,
            )
        }
    }

    fn view(description: &RequestDescription, client_id: Option<&str>, show: bool) -> Vec<String> {
        let attempt =
            Attempt { now: "2026-11-22T05:00:00Z".parse().unwrap(), jti: "0123456789abcdef".into() };
        let request = description.attempt(&credentials(), &attempt).unwrap();
        let view = request_view(&request, description, client_id, show);
        let lines = |members: Vec<Member>| {
            let mut lines: Vec<String> =
                members.into_iter().map(|it| format!("{}: {}", it.name, it.value)).collect();
            lines.sort();
            lines
        };
        [vec![view.url], lines(view.headers), lines(view.body)].concat()
    }

    #[test]
    fn request_view_shows_names_and_values_of_the_spec_and_redacts_the_rest() {
        let head = |content_type: &str, authorization: &[&str]| {
            let mut lines = vec![
                "https://idp.example.com/token?key=[redacted, 7 characters]&tenant=[redacted, 1 character]",
                "accept: application/json",
            ];
            lines.extend(authorization);
            let content_type = format!("content-type: {content_type}");
            let mut lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            lines.push(content_type);
            lines.extend(["x-api-key: [redacted, 11 characters]", "x-tenant: acme"].map(str::to_owned));
            lines
        };
        let resources = ["resource: https://a.example", "resource: https://b.example", "scope: read write"];
        let form = "application/x-www-form-urlencoded";
        for (grant, client, encoding, head, body) in [
            (
                Grant::ClientCredentials,
                ClientAuthentication::Basic(BasicEncoding::Percent),
                Encoding::Form,
                head(form, &["authorization: Basic [redacted, 44 characters]"]),
                &[
                    "apikey: [redacted, 11 characters]",
                    "grant_type: client_credentials",
                    "organization: acme",
                ][..],
            ),
            (
                Grant::RefreshToken,
                ClientAuthentication::Post,
                Encoding::Json,
                head("application/json", &[]),
                &[
                    "apikey: [redacted, 11 characters]",
                    "client_id: [redacted, 10 characters]",
                    "client_secret: [redacted, 14 characters]",
                    "grant_type: refresh_token",
                    "organization: acme",
                    "refresh_token: [redacted, 9 characters]",
                ],
            ),
        ] {
            let lines = view(&description(grant, client, encoding), None, false);
            let body = body.iter().chain(&resources).map(|line| (*line).to_owned()).collect();
            assert_eq!(lines, [head, body].concat());
        }
    }

    #[test]
    fn request_view_shows_the_client_id_of_the_spec_and_secrets_only_on_demand() {
        let post = description(Grant::ClientCredentials, ClientAuthentication::Post, Encoding::Form);
        assert!(view(&post, Some("the-client"), false).contains(&"client_id: the-client".to_owned()));
        let shown = view(&post, None, true);
        for line in ["client_secret: hunter2 & more", "x-api-key: hunter2-key", "apikey: hunter2-key"] {
            assert!(shown.iter().any(|it| it == line), "{shown:?}");
        }
        assert_eq!(shown[0], "https://idp.example.com/token?key=hunter2&tenant=a");
    }

    #[test]
    fn request_view_of_an_assertion_redacts_names_and_signature() {
        let method = PrivateKeyJwt {
            algorithm: Algorithm::Es256,
            key_id: Some("k1".into()),
            audience: None,
            certificate: false,
        };
        let signed = description(
            Grant::ClientCredentials,
            ClientAuthentication::PrivateKeyJwt(method),
            Encoding::Form,
        );
        let lines = view(&signed, None, false);
        let line = lines.iter().find(|line| line.starts_with("client_assertion:")).unwrap();
        for part in [
            r#""alg":"ES256""#,
            r#""kid":"k1""#,
            r#""aud":"https://idp.example.com/token?[redacted, 20 characters]""#,
            r#""iss":"[redacted, 10 characters]""#,
            r#""exp":17"#,
            "[redacted, 86 characters]",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("the-client"), "{line}");
    }

    #[test]
    fn target_data_redacts_the_token() {
        let rendered = |token: &str| Rendered {
            kind: "Opaque".into(),
            labels: [].into(),
            annotations: [].into(),
            data: [("authorization".to_owned(), format!("Bearer {token}").into())].into(),
        };
        let lines = |redacted: Option<Rendered>, show| -> Vec<String> {
            let members = target_data(&rendered("hunter2"), redacted.as_ref(), show);
            members.into_iter().map(|it| format!("{}: {}", it.name, it.value)).collect()
        };
        assert_eq!(lines(Some(rendered("[redacted]")), false), ["authorization: Bearer [redacted]"]);
        assert_eq!(lines(None, false), ["authorization: [redacted, 14 characters]"]);
        assert_eq!(lines(None, true), ["authorization: Bearer hunter2"]);
    }
}
