//! Signed assertions and token exchange, end to end.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use super::oauth2::source;
use super::support::authorization_server::ClientSpec;
use super::support::operator::Operator;
use super::support::scene::Scene;
use super::support::scripted_server::{Recorded, Reply, ScriptedServer};

/// A key on P-256: the public half as a JWK, and the private half as PEM.
fn key() -> (Value, String) {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    (public(&pair), pair.serialize_pem())
}

fn public(pair: &KeyPair) -> Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = pair.der_bytes()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "kid": "k"})
}

fn member(request: &Recorded, name: &str) -> Option<String> {
    let members = url::form_urlencoded::parse(&request.body);
    members.into_iter().find(|(it, _)| it == name).map(|(_, value)| value.into_owned())
}

/// Header and claims of a JWT.
fn read(jwt: &str) -> [Value; 2] {
    let parts: Vec<_> = jwt.split('.').collect();
    [parts[0], parts[1]].map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
}

fn token(value: &str) -> Reply {
    Reply::Json(200, json!({"access_token": value, "token_type": "Bearer", "expires_in": 300}).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn private_key_jwt_client_gets_tokens_and_new_key_is_used_at_once() {
    let scene = Scene::bare("private-key-jwt").await;
    let (public, private) = key();
    let client = |public: Value| ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "private_key_jwt",
        jwks: Some(json!({"keys": [public]})),
        ..ClientSpec::default()
    };
    scene.server.client(client(public)).await;
    scene.secret("credentials", &[("client_id", &scene.namespace), ("private_key.pem", &private)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": scene.server.vgs_token_url(),
        "clientAuthentication": {"privateKeyJWT": {"algorithm": "ES256", "keyID": "k"}},
    });
    scene.apply(source(&scene, oauth2)).await;
    let first = scene.new_token(None).await;
    assert!(scene.server.is_valid(&first).await);
    assert_eq!(scene.ready("True TokenValid").await.matches("newline").count(), 0);
    // The server accepts each assertion once.
    scene.force_refresh("again").await;
    let requests = scene.server.requests(&scene.namespace).await;
    assert_eq!((requests.total, requests.succeeded), (2, 2), "{requests:?}");
    let names = requests.last.unwrap().parameters;
    assert_eq!(names, ["grant_type", "client_id", "client_assertion_type", "client_assertion"]);

    // A new key in the Secret is used at once.
    let (public, private) = key();
    scene.server.client(client(public)).await;
    let before = scene.token().await;
    scene.secret("credentials", &[("client_id", &scene.namespace), ("private_key.pem", &private)]).await;
    scene.new_token(before.as_deref()).await;
}

/// As Microsoft Entra ID requires it.
#[tokio::test(flavor = "multi_thread")]
async fn private_key_jwt_with_certificate_sends_its_thumbprint() {
    let scene = Scene::bare("certificate-key").await;
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "private_key_jwt",
        jwks: Some(json!({"keys": [public(&pair)]})),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    let key = pair.serialize_pem();
    let values = [
        ("client_id", scene.namespace.as_str()),
        ("private_key.pem", &key),
        ("certificate.pem", &certificate.pem()),
    ];
    scene.secret("credentials", &values).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": scene.server.vgs_token_url(),
        "clientAuthentication": {"privateKeyJWT": {"algorithm": "ES256", "certificateKey": "certificate.pem"}},
    });
    scene.apply(source(&scene, oauth2)).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    let seen = scene.server.requests(&scene.namespace).await.last.unwrap().assertion_header.unwrap();
    let thumbprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.der());
    let thumbprint = URL_SAFE_NO_PAD.encode(thumbprint);
    assert_eq!(seen, json!({"alg": "ES256", "typ": "JWT", "x5t#S256": thumbprint}));

    // A certificate that does not belong to the key costs no token request.
    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap().cert.pem();
    scene.secret("credentials", &[values[0], values[1], ("certificate.pem", &other)]).await;
    let ask = "tokensource.dev/refresh-requested-at=1";
    scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", ask], "").await;
    scene.reports("True RefreshFailing", &["certificate"]).await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_key_missing_or_of_other_type_costs_no_token_request() {
    let scene = Scene::bare("wrong-key").await;
    let (_, private) = key();
    scene.secret("credentials", &[("client_id", &scene.namespace), ("key", &private)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut manifest = source(
        &scene,
        json!({"tokenURL": scene.server.vgs_token_url(), "clientAuthentication": {"privateKeyJWT": {}}}),
    );
    scene.apply(manifest.clone()).await;
    scene
        .reports("False CredentialsNotFound", &["no key private_key.pem", "spec.credentials.privateKeyKey"])
        .await;
    manifest["spec"]["credentials"]["privateKeyKey"] = json!("key");
    scene.apply(manifest).await;
    scene.reports("False CredentialsInvalid", &["ES256"]).await;
    assert_eq!(scene.mints().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_bearer_grant_sends_configured_claims() {
    let scene = Scene::bare("jwt-bearer").await;
    let server = ScriptedServer::start([token("one"), token("two")]).await;
    let (_, private) = key();
    scene.secret("credentials", &[("private_key.pem", &private)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut manifest = source(
        &scene,
        json!({
            "tokenURL": server.url("/token"),
            "grant": {"jwtBearer": {
                "issuer": "me",
                "subject": "them",
                "audience": "https://idp.example.com",
                "claims": {"box_sub_type": "enterprise"},
                "algorithm": "ES256",
                "keyID": "k",
                "lifetime": "30s",
            }},
        }),
    );
    manifest["spec"]["credentials"]["clientID"] = json!("the-client");
    scene.apply(manifest).await;
    scene.ready("True TokenValid").await;
    scene.force_refresh("again").await;
    let requests = server.requests();
    let asked = &requests[0];
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        (member(asked, "grant_type").as_deref(), member(asked, "client_id").as_deref()),
        (Some("urn:ietf:params:oauth:grant-type:jwt-bearer"), Some("the-client"))
    );
    let [header, claims] = read(&member(asked, "assertion").unwrap());
    assert_eq!(header, json!({"alg": "ES256", "kid": "k", "typ": "JWT"}));
    assert_eq!(
        [&claims["iss"], &claims["sub"], &claims["aud"], &claims["box_sub_type"]],
        ["me", "them", "https://idp.example.com", "enterprise"]
    );
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 30 + 10);
    let [_, second] = read(&member(&requests[1], "assertion").unwrap());
    assert_ne!(claims["jti"], second["jti"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_bearer_google_key_file_provides_issuer_and_key_id() {
    let scene = Scene::bare("google").await;
    let server = ScriptedServer::start([token("google")]).await;
    let file = json!({
        "type": "service_account",
        "private_key_id": "from-the-file",
        "private_key": include_str!("../../crates/token-endpoint/src/tests/keys/rsa.pem"),
        "client_email": "robot@project.iam.example.com",
    });
    scene.secret("credentials", &[("key.json", &file.to_string())]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut manifest = source(
        &scene,
        json!({"tokenURL": server.url("/token"), "grant": {"jwtBearer": {}}, "scopes": ["devstorage"]}),
    );
    manifest["spec"]["credentials"]["privateKeyKey"] = json!("key.json");
    scene.apply(manifest).await;
    scene.ready("True TokenValid").await;
    let asked = server.requests().remove(0);
    let [header, claims] = read(&member(&asked, "assertion").unwrap());
    assert_eq!([&header["alg"], &header["kid"]], ["RS256", "from-the-file"]);
    assert_eq!([&claims["iss"], &claims["scope"]], ["robot@project.iam.example.com", "devstorage"]);
    assert_eq!(claims["aud"], server.url("/token"));
    assert_eq!(member(&asked, "scope"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn assertion_server_clock_skew_is_reported_and_compensated() {
    let scene = Scene::bare("clock").await;
    let in_words = |seconds: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    let late = |status, body: Value| {
        Reply::Answer(status, vec![("date", in_words(600))], body.to_string().into_bytes())
    };
    let refusal = late(400, json!({"error": "invalid_request"}));
    let answer = late(200, json!({"access_token": "t", "token_type": "Bearer", "expires_in": 300}));
    let server = ScriptedServer::start([refusal, answer]).await;
    let (_, private) = key();
    scene.secret("credentials", &[("client_id", "me"), ("private_key.pem", &private)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": server.url("/token"),
        "clientAuthentication": {"privateKeyJWT": {"algorithm": "ES256"}},
    });
    scene.apply(source(&scene, oauth2)).await;
    scene.reports("False RequestRejected", &["the clock of 127.0.0.1 is ", "s ahead of this one's"]).await;
    scene.force_refresh("again").await;
    scene.reports("True TokenValid", &["ahead of this one's", "dated 300 s towards the endpoint's"]).await;
    let issued: Vec<_> = server
        .requests()
        .iter()
        .map(|request| read(&member(request, "client_assertion").unwrap())[1]["iat"].as_i64().unwrap())
        .collect();
    // Not by the ten minutes that the endpoint says.
    assert!((290..400).contains(&(issued[1] - issued[0])), "{issued:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_exchange_new_subject_token_is_exchanged_at_once() {
    let scene = Scene::bare("exchange").await;
    let exchanged = json!({
        "access_token": "exchanged",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "N_A",
        "expires_in": 300,
    });
    let server = ScriptedServer::start([Reply::Json(200, exchanged.to_string())]).await;
    let credentials = |subject: &str| {
        let values =
            [("client_id", "me"), ("client_secret", "s3"), ("access_token", subject), ("actor", "a")];
        values.map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let write = async |subject: &str| {
        let values = credentials(subject);
        let values: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        scene.secret("credentials", &values).await;
    };
    write("first").await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": server.url("/token"),
        "grant": {"tokenExchange": {
            "subjectTokenKey": "access_token",
            "subjectTokenType": "urn:ietf:params:oauth:token-type:access_token",
            "actorTokenKey": "actor",
            "actorTokenType": "urn:ietf:params:oauth:token-type:jwt",
            "requestedTokenType": "urn:ietf:params:oauth:token-type:access_token",
        }},
        "audience": "api",
    });
    scene.apply(source(&scene, oauth2)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(
        String::from_utf8_lossy(&server.requests()[0].body),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=first\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&actor_token=a\
         &actor_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt\
         &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=api"
    );
    assert_eq!(scene.token().await.as_deref(), Some("exchanged"));
    // The subject token may be kept fresh by another TokenSource: each new one is exchanged at once.
    write("second").await;
    super::support::eventually(
        "the second subject token is exchanged",
        super::support::scene::SOON,
        async || {
            let requests = server.requests();
            match requests.get(1).and_then(|request| member(request, "subject_token")).as_deref() {
                Some("second") => Ok(()),
                _ => Err(requests.len()),
            }
        },
    )
    .await;
}

/// As `spiffe-helper` keeps a JWT-SVID in a Secret: a renewed one alone is no reason to request a token.
#[tokio::test(flavor = "multi_thread")]
async fn made_assertion_that_is_renewed_requests_no_token_and_an_old_one_is_not_sent() {
    let scene = Scene::bare("made-assertion").await;
    let server = ScriptedServer::start([token("first")]).await;
    let svid = |id: u32, lives: i64| {
        let exp = jiff::Timestamp::now().as_second() + lives;
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", encode(json!({"alg": "none"})), encode(json!({"jti": id, "exp": exp})))
    };
    let write = async |svid: &str| scene.secret("credentials", &[("svid.jwt", svid)]).await;
    write(&svid(0, -60)).await;
    let operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": server.url("/token"),
        "clientAuthentication": {"assertion": {"from": "secretKey", "key": "svid.jwt"}},
    });
    let mut manifest = source(&scene, oauth2);
    manifest["spec"]["credentials"]["clientID"] = json!("workload");
    scene.apply(manifest).await;
    scene
        .reports("False CredentialsInvalid", &["the assertion expired 6", "does what renews it still run"])
        .await;
    assert_eq!(server.requests().len(), 0);

    // Not watched for, but seen at the next attempt.
    let live = svid(1, 600);
    write(&live).await;
    scene.new_token(None).await;
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(member(&requests[0], "client_assertion"), Some(live));
    assert_eq!(member(&requests[0], "client_id").as_deref(), Some("workload"));

    // Renewed while the operator runs, and while it does not.
    let record = scene.record().await;
    write(&svid(2, 600)).await;
    scene.secrets_are_seen().await;
    operator.stop().await;
    write(&svid(3, 600)).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.secrets_are_seen().await;
    scene.ready("True TokenValid").await;
    assert_eq!(server.requests().len(), 1);
    assert_eq!(scene.record().await, record);
}

/// Its Secret is known by no version: a renewed assertion is no change.
#[tokio::test(flavor = "multi_thread")]
async fn made_assertion_of_another_subject_is_sent_though_the_one_before_was_rejected() {
    let scene = Scene::bare("made-assertion-of-another").await;
    let refusal = Reply::Json(401, json!({"error": "invalid_client"}).to_string());
    let server = ScriptedServer::start([refusal, token("first")]).await;
    let write = async |subject: &str| {
        let exp = jiff::Timestamp::now().as_second() + 600;
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = encode(json!({"iss": "spire", "sub": subject, "exp": exp}));
        let svid = format!("{}.{claims}.c2ln", encode(json!({"alg": "none"})));
        scene.secret("credentials", &[("svid.jwt", &svid)]).await;
    };
    write("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": server.url("/token"),
        "clientAuthentication": {"assertion": {"from": "secretKey", "key": "svid.jwt"}},
    });
    scene.apply(source(&scene, oauth2)).await;
    scene.reports("False ClientRejected", &["invalid_client"]).await;
    write("right").await;
    let ask = "tokensource.dev/refresh-requested-at=1";
    scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", ask], "").await;
    // A rejection of the same client would be tried again half a minute after it.
    let at_once = std::time::Duration::from_secs(20);
    super::support::eventually("the other subject is sent", at_once, async || {
        let requests = server.requests();
        let sent = requests.get(1).and_then(|request| member(request, "client_assertion"));
        let subject = sent.map(|sent| read(&sent)[1]["sub"].clone());
        if subject == Some(json!("right")) { Ok(()) } else { Err(requests.len()) }
    })
    .await;
    scene.ready("True TokenValid").await;
}
