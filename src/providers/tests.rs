//! Golden requests: the bytes that are sent for a spec.

mod keyless;
mod vendors;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use token_endpoint::{ClientAuthentication, Credentials, Grant, TokenRequest};

fn spec(provider: Value) -> TokenSourceSpec {
    let spec = json!({"provider": provider, "credentials": {"secretRef": {"name": "client"}}});
    serde_json::from_value(spec).unwrap()
}

/// The request for `provider` as text, with id `ACme~1`, secret `s3cret/+=` and refresh token `aPi+tok/en=`.
fn golden(provider: Value) -> String {
    let description = describe(&spec(provider)).unwrap();
    let credentials = Credentials {
        client_id: Some("ACme~1".into()),
        client_secret: Some("s3cret/+=".into()),
        refresh_token: Some("aPi+tok/en=".into()),
        values: [("api_key".to_owned(), "k&y".into())].into(),
        ..Credentials::default()
    };
    // VMware Cloud Director has no client: the API server refuses credentials with one.
    let credentials = match description.provider {
        "vmwareCloudDirector" => Credentials { client_id: None, client_secret: None, ..credentials },
        _ => credentials,
    };
    golden_text(&description.request.request(&credentials).unwrap())
}

fn golden_text(request: &TokenRequest) -> String {
    let mut headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    headers.sort();
    format!("POST {}\n{}\n{}", request.url(), headers.concat(), request.body().expose_secret())
}

#[test]
fn request_of_vgs() {
    assert_eq!(
        golden(json!({"vgs": {}})),
        "POST https://auth.verygoodsecurity.com/auth/realms/vgs/protocol/openid-connect/token
accept: application/json
content-type: application/x-www-form-urlencoded

grant_type=client_credentials&client_id=ACme~1&client_secret=s3cret%2F%2B%3D"
    );
}

#[test]
fn request_of_vgs_with_scopes_asks_for_those() {
    let scoped = golden(json!({"vgs": {"scopes": ["cards:write", "network-tokens:read"]}}));
    assert!(
        scoped.ends_with("&client_secret=s3cret%2F%2B%3D&scope=cards%3Awrite%20network-tokens%3Aread"),
        "{scoped}"
    );
}

#[test]
fn url_of_github_app_follows_host_and_installation() {
    for (spec, expected) in [
        (json!({"installationID": 42}), "https://api.github.com/app/installations/42/access_tokens"),
        (
            json!({"installationID": 42, "host": "GitHub.com"}),
            "https://api.github.com/app/installations/42/access_tokens",
        ),
        (
            json!({"installationID": 42, "host": "acme.ghe.com"}),
            "https://api.acme.ghe.com/app/installations/42/access_tokens",
        ),
        (
            json!({"installationID": 42, "host": "github.example.com:8443"}),
            "https://github.example.com:8443/api/v3/app/installations/42/access_tokens",
        ),
    ] {
        let description = describe(&self::spec(json!({"gitHubApp": spec}))).unwrap();
        assert_eq!(description.request.token_url.as_str(), expected);
        assert!(description.request.signs());
    }
    let app = json!({"installationID": 1, "repositories": ["website"], "permissions": {"contents": "read"}});
    let limited = describe(&spec(json!({"gitHubApp": app}))).unwrap();
    let Grant::GitHubApp(app) = limited.request.grant else { panic!("{limited:?}") };
    assert_eq!((app.repositories, app.permissions["contents"].as_str()), (vec!["website".into()], "read"));
}

#[test]
fn describe_oauth2_made_assertions() {
    let oauth2 = json!({
        "tokenURL": "https://idp.example.com/t",
        "clientAuthentication": {"assertion": {"from": "secretKey", "key": "svid.jwt"}},
    });
    let description = describe(&spec(json!({"oauth2": oauth2}))).unwrap();
    let expected = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
    assert_eq!(
        description.request.client_authentication,
        ClientAuthentication::Assertion { assertion_type: expected }
    );
    assert_eq!(description.keys.client_assertion.as_deref(), Some("svid.jwt"));
    let grant = json!({"assertion": {"from": "secretKey"}});
    let oauth2 = json!({"tokenURL": "https://idp.example.com/t", "grant": grant});
    let request = describe(&spec(json!({"oauth2": oauth2}))).unwrap().request;
    assert_eq!(
        (request.grant, request.client_authentication),
        (Grant::Assertion, ClientAuthentication::None)
    );
}

#[test]
fn request_of_vng_cloud() {
    assert_eq!(
        golden(json!({"vngCloud": {}})),
        "POST https://iamapis.vngcloud.vn/accounts-api/v2/auth/token
accept: application/json
authorization: Basic QUNtZX4xOnMzY3JldC8rPQ==
content-type: application/json

{\"grant_type\":\"client_credentials\",\"scope\":\"email\"}"
    );
    let scoped = golden(json!({"vngCloud": {"scopes": ["email", "vstorage"]}}));
    assert!(scoped.ends_with(r#"{"grant_type":"client_credentials","scope":"email vstorage"}"#), "{scoped}");
}

#[test]
fn request_of_vmware_cloud_director() {
    assert_eq!(
        golden(json!({"vmwareCloudDirector": {"host": "vcd.example.com", "tenant": "acme"}})),
        "POST https://vcd.example.com/oauth/tenant/acme/token
accept: application/json
content-type: application/x-www-form-urlencoded

grant_type=refresh_token&refresh_token=aPi%2Btok%2Fen%3D"
    );
}

#[test]
fn token_url_of_vmware_cloud_director_follows_host_and_tenant() {
    for (spec, expected) in [
        (json!({"host": "vcd.example.com", "system": true}), "https://vcd.example.com/oauth/provider/token"),
        (
            json!({"host": "vcd.example.com", "tenant": "System"}),
            "https://vcd.example.com/oauth/provider/token",
        ),
        (
            json!({"host": "vcd.example.com:8443", "tenant": "acme"}),
            "https://vcd.example.com:8443/oauth/tenant/acme/token",
        ),
        (
            json!({"host": "[2001:db8::1]:8443", "tenant": "a"}),
            "https://[2001:db8::1]:8443/oauth/tenant/a/token",
        ),
        (
            json!({"host": "vcd.example.com", "tenant": "My Org & Söhne?#%2e.1_~"}),
            "https://vcd.example.com/oauth/tenant/My%20Org%20%26%20S%C3%B6hne%3F%23%252e.1_~/token",
        ),
        // A tenant that the API server would refuse stays within its path segment too.
        (
            json!({"host": "vcd.example.com", "tenant": "../../provider"}),
            "https://vcd.example.com/oauth/tenant/..%2F..%2Fprovider/token",
        ),
        (
            json!({"host": "vcd.example.com", "tenant": "acme", "tokenURL": "https://proxy.example.com/t"}),
            "https://proxy.example.com/t",
        ),
    ] {
        let description = describe(&self::spec(json!({"vmwareCloudDirector": spec}))).unwrap();
        assert_eq!(description.request.token_url.as_str(), expected);
        assert_eq!(description.max_interval, 15 * 60, "idle sessions end");
    }
}

#[test]
fn request_of_oauth2_with_a_url_alone_uses_the_defaults() {
    assert_eq!(
        golden(json!({"oauth2": {"tokenURL": "https://idp.example.com/oauth/token"}})),
        "POST https://idp.example.com/oauth/token
accept: application/json
authorization: Basic QUNtZX4xOnMzY3JldCUyRiUyQiUzRA==
content-type: application/x-www-form-urlencoded

grant_type=client_credentials"
    );
}

#[test]
fn request_of_oauth2_with_refresh_token_post_and_json() {
    assert_eq!(
        golden(json!({"oauth2": {
            "tokenURL": "https://idp.example.com/oauth/token?tenant=a",
            "grant": {"refreshToken": {}},
            "clientAuthentication": {"post": {}},
            "requestEncoding": "JSON",
            "scopes": ["read", "write"],
            "parameters": {"organization": "acme & co"},
        }})),
        r#"POST https://idp.example.com/oauth/token?tenant=a
accept: application/json
content-type: application/json

{"grant_type":"refresh_token","refresh_token":"aPi+tok/en=","client_id":"ACme~1","client_secret":"s3cret/+=","scope":"read write","organization":"acme & co"}"#
    );
}

#[test]
fn request_of_oauth2_with_vendor_parameters_and_headers() {
    let provider = json!({"oauth2": {
        "tokenURL": "https://zoom.example.com/oauth/token",
        "grant": {"custom": {"grantType": "account_credentials"}},
        "scopes": ["read"],
        "audience": "https://api.example.com",
        "resources": ["https://a.example.com", "urn:b"],
        "parameters": {"account_id": "1"},
        "secretParameters": {"apikey": "api_key"},
        "headers": {"X-Tenant": "acme"},
        "secretHeaders": {"X-Api-Key": "api_key"},
    }});
    assert_eq!(
        golden(provider),
        "POST https://zoom.example.com/oauth/token
accept: application/json
authorization: Basic QUNtZX4xOnMzY3JldCUyRiUyQiUzRA==
content-type: application/x-www-form-urlencoded
x-api-key: k&y
x-tenant: acme

grant_type=account_credentials&audience=https%3A%2F%2Fapi.example.com&resource=https%3A%2F%2Fa.example.com&resource=urn%3Ab&scope=read&account_id=1&apikey=k%26y"
    );
}

#[test]
fn describe_oauth2_with_assertions_and_token_exchange() {
    use token_endpoint::{Algorithm, ClientAuthentication, Grant, JwtBearer, PrivateKeyJwt, TokenExchange};
    let describe = |more: Value| {
        let mut oauth2 = json!({"tokenURL": "https://idp.example.com/t"});
        oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        describe(&spec(json!({"oauth2": oauth2}))).unwrap()
    };
    let least = describe(json!({"grant": {"jwtBearer": {}}})).request;
    assert_eq!(least.grant, Grant::JwtBearer(Box::default()));
    assert_eq!(
        least.client_authentication,
        ClientAuthentication::None,
        "the assertion identifies the client"
    );

    let all = describe(json!({
        "grant": {"jwtBearer": {
            "issuer": "i", "subject": "s", "audience": "a", "claims": {"c": "d"}, "algorithm": "EdDSA", "keyID": "k", "lifetime": "1m",
        }},
        "clientAuthentication": {"privateKeyJWT": {"algorithm": "PS256", "keyID": "l", "audience": "b", "certificateKey": "tls.crt"}},
    }));
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        all.request.grant,
        Grant::JwtBearer(Box::new(JwtBearer {
            issuer: text("i"),
            subject: text("s"),
            audience: text("a"),
            claims: [("c".to_owned(), json!("d"))].into_iter().collect(),
            algorithm: Algorithm::EdDsa,
            key_id: text("k"),
            lifetime: 60,
        }))
    );
    assert_eq!(
        all.request.client_authentication,
        ClientAuthentication::PrivateKeyJwt(PrivateKeyJwt {
            algorithm: Algorithm::Ps256,
            key_id: text("l"),
            audience: text("b"),
            certificate: true,
        })
    );
    assert_eq!(all.keys.certificate, text("tls.crt"));

    let exchange = describe(json!({"grant": {"tokenExchange": {
        "subjectTokenType": "urn:s", "actorTokenKey": "actor", "actorTokenType": "urn:a", "requestedTokenType": "urn:r",
    }}}));
    assert_eq!(
        exchange.request.grant,
        Grant::TokenExchange(TokenExchange {
            subject_token_type: "urn:s".into(),
            actor_token_type: text("urn:a"),
            requested_token_type: text("urn:r"),
        })
    );
    assert_eq!((exchange.keys.subject_token, exchange.keys.actor_token), (None, text("actor")));
}

#[test]
fn describe_oauth2_maps_response_pointers() {
    let response = json!({"accessToken": "/a/0", "expiresAt": "/b", "refreshToken": "/c"});
    let oauth2 = json!({"tokenURL": "https://idp.example.com/t", "response": response});
    let mapping = describe(&spec(json!({"oauth2": oauth2}))).unwrap().request.response;
    let pointer = |text: &str| Some(text.parse().unwrap());
    assert_eq!((mapping.access_token, mapping.expires_in), (pointer("/a/0"), None));
    assert_eq!((mapping.expires_at, mapping.refresh_token), (pointer("/b"), pointer("/c")));
    assert!(mapping.values.is_empty());
}

#[test]
fn request_of_oauth2_by_client_authentication() {
    for (authentication, header, body) in [
        (json!({"basic": {}}), Some("QUNtZX4xOnMzY3JldCUyRiUyQiUzRA=="), ""),
        (json!({"basic": {"encoding": "Percent"}}), Some("QUNtZX4xOnMzY3JldCUyRiUyQiUzRA=="), ""),
        (json!({"basic": {"encoding": "Raw"}}), Some("QUNtZX4xOnMzY3JldC8rPQ=="), ""),
        (json!({"post": {}}), None, "&client_id=ACme~1&client_secret=s3cret%2F%2B%3D"),
        (json!({"none": {}}), None, "&client_id=ACme~1"),
    ] {
        let oauth2 = json!({"tokenURL": "https://idp.example.com/t", "clientAuthentication": authentication});
        let header = header.map(|it| format!("authorization: Basic {it}\n")).unwrap_or_default();
        assert_eq!(
            golden(json!({"oauth2": oauth2})),
            format!(
                "POST https://idp.example.com/t\naccept: application/json\n{header}content-type: application/x-www-form-urlencoded\n\ngrant_type=client_credentials{body}"
            )
        );
    }
}

#[test]
fn describe_of_a_spec_that_violates_the_rules_is_an_error() {
    for (provider, expected) in [
        (json!({}), "spec.provider must have exactly one member"),
        (json!({"vgs": {}, "vngCloud": {}}), "spec.provider must have exactly one member"),
        (
            json!({"oauth2": {"tokenURL": "https://a", "response": {"accessToken": "/refresh_token"}}}),
            "spec.provider.oauth2.response.accessToken: /refresh_token leads to the refresh token, which no pod may read",
        ),
        (
            json!({"oauth2": {"tokenURL": "https://a", "response": {"accessToken": "/x", "refreshToken": "/x"}}}),
            "spec.provider.oauth2.response.accessToken: /x leads to the refresh token, which no pod may read",
        ),
        (
            json!({"oauth2": {"tokenURL": "https://a", "response": {"expiresIn": "a"}}}),
            "spec.provider.oauth2.response.expiresIn: \"a\" is no JSON pointer",
        ),
        (json!({"oauth2": {}}), "spec.provider.oauth2: exactly one of tokenURL and issuer must be set"),
        (
            json!({"oauth2": {"issuer": "https://idp.example.com?a"}}),
            "spec.provider.oauth2.issuer: \"https://idp.example.com?a\" is no issuer",
        ),
        (json!({"vgs": {"tokenURL": "vgs"}}), "spec.provider.vgs.tokenURL: \"vgs\" is not a URL"),
        (
            json!({"vmwareCloudDirector": {"host": "vcd.example.com:99999", "tenant": "a"}}),
            "spec.provider.vmwareCloudDirector.host: ",
        ),
    ] {
        let error = describe(&spec(provider)).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn reserved_names_agree_between_api_and_token_endpoint() {
    use tokensource_api::reserved;

    assert_eq!(reserved::RESERVED_PARAMETERS, token_endpoint::RESERVED);
    assert_eq!(reserved::RESERVED_CLAIMS, token_endpoint::RESERVED_CLAIMS);
    assert_eq!(reserved::SECRET_MEMBERS, token_endpoint::SECRET_MEMBERS);
    assert_eq!(reserved::REFUSED_HEADERS, token_endpoint::REFUSED_HEADERS);
}
