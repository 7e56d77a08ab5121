//! Some servers echo credentials. An error shows nothing that was sent, in any encoding.

use crate::support::scripted_server::{Reply, ScriptedServer};
use crate::{TIMEOUT, transport};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use token_endpoint::{
    Algorithm, BasicEncoding, ClientAuthentication, Credentials, Encoding, Grant, JwtBearer, PrivateKeyJwt,
    RequestDescription, TokenExchange, read,
};

const CANARIES: [&str; 6] = [
    "canary/id 1",
    "canary+secret&2",
    "canary=refresh%3",
    "canary\"subject\\4",
    "canary:actor;5",
    "canary value 6",
];

fn map(name: &str, value: &str) -> BTreeMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

#[tokio::test]
async fn error_with_echo_of_any_credential_shows_none() {
    let [id, secret, refresh, subject, actor, value] = CANARIES;
    let pem = include_str!("../../crates/token-endpoint/src/tests/keys/p256.pem");
    let credentials = Credentials {
        client_id: Some(id.into()),
        client_secret: Some(secret.into()),
        refresh_token: Some(refresh.into()),
        private_key: Some(pem.into()),
        subject_token: Some(subject.into()),
        actor_token: Some(actor.into()),
        values: [("key".to_owned(), value.into())].into(),
        ..Credentials::default()
    };
    let signed =
        PrivateKeyJwt { algorithm: Algorithm::Es256, key_id: None, audience: None, certificate: false };
    let exchange = TokenExchange {
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
        actor_token_type: Some("urn:ietf:params:oauth:token-type:jwt".into()),
        requested_token_type: None,
    };
    let grants = [
        Grant::ClientCredentials,
        Grant::RefreshToken,
        Grant::JwtBearer(Box::new(JwtBearer { algorithm: Algorithm::Es256, ..JwtBearer::default() })),
        Grant::TokenExchange(exchange),
        Grant::Custom { grant_type: "vendor".into(), assertion: None },
    ];
    let clients = [
        ClientAuthentication::Basic(BasicEncoding::Percent),
        ClientAuthentication::Basic(BasicEncoding::Raw),
        ClientAuthentication::Post,
        ClientAuthentication::PrivateKeyJwt(signed),
        ClientAuthentication::Tls,
        ClientAuthentication::None,
    ];
    let transport = transport(&["127.0.0.1"]);
    let echoes = ScriptedServer::start([Reply::Echo]).await;
    for (grant, client) in grants.iter().flat_map(|grant| clients.iter().map(move |client| (grant, client))) {
        for encoding in [Encoding::Form, Encoding::Json] {
            let description = RequestDescription {
                encoding,
                secret_parameters: map("pin", "key"),
                secret_headers: map("X-Api-Key", "key"),
                ..RequestDescription::new(
                    echoes.url("/token").parse().unwrap(),
                    grant.clone(),
                    client.clone(),
                )
            };
            let attempt = transport.attempt(&description.token_url);
            let request = description.attempt(&credentials, &attempt).unwrap();
            let plain = transport.send(&request, TIMEOUT).await.unwrap_err();

            // The echo in a known error, whose description is shown.
            let headers = request.headers().values().filter_map(|value| value.to_str().ok());
            for echo in headers.chain([request.body().expose_secret(), id, value]) {
                let body =
                    serde_json::json!({"error": "invalid_client", "error_description": format!("<{echo}>")});
                let repeated =
                    read(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body.to_string().as_bytes(), &request)
                        .unwrap_err();
                let printed =
                    format!("{plain} {plain:?} {repeated} {repeated:?} {request:?} {description:?}");
                for canary in CANARIES {
                    for form in [
                        canary.to_owned(),
                        utf8_percent_encode(canary, NON_ALPHANUMERIC).to_string(),
                        BASE64_STANDARD.encode(canary),
                        BASE64_URL_SAFE_NO_PAD.encode(canary),
                    ] {
                        assert!(!printed.contains(&form), "{form} in {printed}");
                    }
                }
                assert!(!printed.contains("eyJhb"), "{printed}");
            }
        }
    }
}
