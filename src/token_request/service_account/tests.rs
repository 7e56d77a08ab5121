use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::providers::describe;

const AUDIENCE: &str = "https://idp.example.com";

#[test]
fn allowed_token_is_one_audience_and_one_host_with_its_port() {
    for text in [
        "",
        "https://idp.example.com",
        "=idp.example.com",
        "a=",
        "a b=idp.example.com",
        "a,b=idp.example.com",
        "a=https://idp.example.com",
        "a=http://idp.example.com/path",
        "a=http://",
        "a=idp.example.com/path",
        "a=user@idp.example.com",
        "a=*.example.com",
        "a=idp.example.com:99999",
        "a=idp.example.com#f",
    ] {
        assert!(text.parse::<AllowedToken>().is_err(), "{text}");
    }
}

#[test]
fn allowed_token_permits_its_pair_alone() {
    let permits = |allowed: &str, audience: &str, url: &str| {
        let allowed: AllowedToken = allowed.parse().unwrap();
        allowed.permits(audience, &url.parse().unwrap())
    };
    let (pair, audience) = ("https://idp.example.com/?a=b=IdP.example.com", "https://idp.example.com/?a=b");
    for url in ["https://idp.example.com/token", "https://IDP.EXAMPLE.com:443/other?x"] {
        assert!(permits(pair, audience, url), "{url}");
    }
    for url in [
        "https://evil.example.com/token",
        "https://idp.example.com.evil.example/token",
        "https://a.idp.example.com/token",
        "https://idp.example.com:8443/token",
        "https://idp.example.com../token",
        "https://idp.example.com.:8443/token",
        "https://evil.example.com/idp.example.com",
    ] {
        assert!(!permits(pair, audience, url), "{url}");
    }
    assert!(!permits(pair, "https://idp.example.com", "https://idp.example.com/token"), "another audience");
    for allowed in ["a=idp.example.com", "a=idp.example.com.", "a=idp.example.com.:443"] {
        for url in ["https://idp.example.com/token", "https://idp.example.com./token"] {
            assert!(permits(allowed, "a", url), "{allowed} {url}");
        }
    }
    assert!(permits("a=h:8443", "a", "https://h:8443/t") && !permits("a=h:8443", "a", "https://h/t"));
    assert!(permits("a=h:443", "a", "https://h/t") && permits("a=[::1]:8443", "a", "https://[::1]:8443/t"));
    for pair in ["a=h", "a=h:80", "a=h:443"] {
        assert!(
            !permits(pair, "a", "http://h/t") && !permits(pair, "a", "http://h:443/t"),
            "no cleartext: {pair}"
        );
    }
    assert!(
        permits("a=http://h", "a", "http://h/t")
            && permits("a=http://[::1]:8080", "a", "http://[::1]:8080/t")
    );
    assert!(!permits("a=http://h:8443", "a", "https://h:8443/t"), "http is written for http alone");
}

/// A ServiceAccount `ns/payments` of an API server.
#[derive(Clone)]
struct Account {
    uid: &'static str,
    deletion: Option<&'static str>,
    /// Its age when a token of it is made.
    seconds: i64,
}

const OLD: Account = Account { uid: "one", deletion: None, seconds: 3600 };
const CREATED: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// What the API server has, and does.
struct Server {
    account: Option<Account>,
    /// What becomes of the ServiceAccount before the API server judges its token.
    meanwhile: Option<Option<Account>>,
    /// Whether its audience is one of the API server's own.
    accepts: bool,
    /// What it answers instead when a token is tried.
    broken: Option<u16>,
    /// Claims that its tokens have in place of others.
    changed: Value,
    /// Claims of the last token.
    claims: Value,
    tokens: usize,
    tried: usize,
}

impl Server {
    fn answer(&mut self, path: &str, is_tried: bool, body: &Value) -> (u16, Value) {
        let status =
            |code: u16| (code, json!({"kind": "Status", "status": "Failure", "reason": "", "code": code}));
        if path.ends_with("/selfsubjectreviews") {
            if !is_tried {
                let user = "system:serviceaccount:tokensource:tokensource-operator";
                return (201, json!({"status": {"userInfo": {"username": user}}}));
            }
            self.tried += 1;
            if let Some(account) = self.meanwhile.take() {
                self.account = account;
            }
            let token_uid = self.claims["kubernetes.io"]["serviceaccount"]["uid"].as_str();
            let is_alive =
                self.account.as_ref().is_some_and(|it| it.deletion.is_none() && Some(it.uid) == token_uid);
            return match self.broken {
                Some(code) => status(code),
                None if self.accepts && is_alive => (201, json!({"status": {"userInfo": {"username": "a"}}})),
                None => status(401),
            };
        }
        let Some(account) = &self.account else { return status(404) };
        if !path.ends_with("/token") {
            let annotations = json!({"tokensource.dev/audiences": AUDIENCE});
            return (
                200,
                json!({"metadata": {
                    "uid": account.uid, "deletionTimestamp": account.deletion, "annotations": annotations,
                    "creationTimestamp": CREATED,
                }}),
            );
        }
        self.tokens += 1;
        let mut claims = json!({
            "iss": "https://cluster.example.com", "aud": body["spec"]["audiences"],
            "sub": "system:serviceaccount:ns:payments", "iat": CREATED.as_second() + account.seconds,
            "kubernetes.io": {"serviceaccount": {"uid": account.uid}},
        });
        claims.as_object_mut().unwrap().extend(self.changed.as_object().cloned().unwrap_or_default());
        self.claims = claims;
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(self.claims.to_string()));
        (201, json!({"status": {"token": token, "expirationTimestamp": Timestamp::UNIX_EPOCH}}))
    }
}

/// An API server, and what asks it for tokens. A real one does not wait for an hour, and is not asked between two calls:
/// `tests/integration/keyless.rs` has the rest.
struct Cluster {
    server: Arc<Mutex<Server>>,
    kubernetes: Kubernetes,
    tokens: ServiceAccountTokens,
}

impl Cluster {
    fn new() -> Self {
        token_endpoint::transport::install_crypto_provider();
        let server = Arc::new(Mutex::new(Server {
            account: Some(OLD),
            meanwhile: None,
            accepts: false,
            broken: None,
            changed: Value::Null,
            claims: Value::Null,
            tokens: 0,
            tried: 0,
        }));
        let client = |server: Arc<Mutex<Server>>, is_tried: bool| {
            let service = tower::service_fn(move |request: Request<Body>| {
                let server = Arc::clone(&server);
                async move {
                    assert_eq!(request.headers().contains_key(AUTHORIZATION), is_tried);
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body = serde_json::from_slice(&body).unwrap_or_default();
                    let (code, answer) = server.lock().unwrap().answer(&path, is_tried, &body);
                    let answer = Full::new(Bytes::from(answer.to_string()));
                    Ok::<_, std::convert::Infallible>(Response::builder().status(code).body(answer).unwrap())
                }
            });
            Client::new(service, "default")
        };
        let check = TokenCheck::by(client(Arc::clone(&server), true));
        let allowed = format!("{AUDIENCE}=idp.example.com").parse().unwrap();
        Cluster {
            kubernetes: Kubernetes::new(client(Arc::clone(&server), false)),
            tokens: ServiceAccountTokens::new(vec![allowed], check),
            server,
        }
    }

    fn set(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.server.lock().unwrap());
    }

    /// How often a token was asked for, and tried at the API server.
    fn counts(&self) -> (usize, usize) {
        let server = self.server.lock().unwrap();
        (server.tokens, server.tried)
    }

    async fn issue_in(&self, namespace: &str, name: &str) -> Result<(), String> {
        self.token_of(namespace, name).await.map(drop).map_err(|error| error.to_string())
    }

    async fn token_of(&self, namespace: &str, name: &str) -> Result<AccountToken, ServiceAccountTokenError> {
        let spec = json!({
            "provider": {"oauth2": {"issuer": AUDIENCE, "clientAuthentication": {"serviceAccountToken": {}}}},
            "credentials": {"serviceAccountToken": {"name": name}},
        });
        let wanted = describe(&serde_json::from_value(spec).unwrap()).unwrap().service_account.unwrap();
        let url = "https://idp.example.com/token".parse().unwrap();
        self.tokens.issue(&self.kubernetes, namespace, &wanted, &url).await
    }

    async fn issue(&self) -> Result<(), String> {
        self.issue_in("ns", "payments").await
    }

    #[track_caller]
    fn assert_refused(said: &Result<(), String>, words: &str) {
        assert!(said.as_ref().is_err_and(|said| said.contains(words)), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn audience_is_tried_at_the_api_server_before_its_first_use_and_every_hour() {
    let cluster = Cluster::new();
    cluster.issue().await.unwrap();
    cluster.issue().await.unwrap();
    tokio::time::advance(CHECK_INTERVAL - Duration::from_secs(1)).await;
    cluster.issue().await.unwrap();
    assert_eq!(cluster.counts(), (3, 1));
    tokio::time::advance(Duration::from_secs(1)).await;
    cluster.issue().await.unwrap();
    assert_eq!(cluster.counts(), (4, 2));
    // The flag --api-audiences was changed.
    cluster.set(|server| server.accepts = true);
    cluster.issue().await.unwrap();
    tokio::time::advance(CHECK_INTERVAL).await;
    for _ in 0..2 {
        Cluster::assert_refused(&cluster.issue().await, "API server accepts tokens for the audience");
    }
    cluster.set(|server| server.accepts = false);
    cluster.issue().await.unwrap();
    assert_eq!(cluster.counts(), (8, 5));
}

#[tokio::test(start_paused = true)]
async fn audience_is_not_used_while_the_api_server_does_not_say_whether_it_accepts_it() {
    let cluster = Cluster::new();
    for code in [404, 429, 500, 503] {
        cluster.set(|server| server.broken = Some(code));
        Cluster::assert_refused(&cluster.issue().await, &format!("status {code}"));
    }
    cluster.set(|server| server.broken = Some(403));
    Cluster::assert_refused(&cluster.issue().await, "API server accepts tokens for the audience");
    cluster.set(|server| server.broken = None);
    cluster.issue().await.unwrap();
}

/// The API server refuses the token of a ServiceAccount that was deleted for its own audiences, too.
#[tokio::test(start_paused = true)]
async fn refusal_of_a_token_counts_only_while_its_service_account_lives() {
    for (meanwhile, words) in [
        (None, "does not exist"),
        (Some(Account { uid: "two", ..OLD }), "was deleted or created anew"),
        (Some(Account { deletion: Some("2026-01-01T00:00:00Z"), ..OLD }), "was deleted or created anew"),
    ] {
        let cluster = Cluster::new();
        cluster.set(|server| {
            server.accepts = true;
            server.meanwhile = Some(meanwhile);
        });
        Cluster::assert_refused(&cluster.issue().await, words);
        cluster.set(|server| server.account = Some(OLD));
        Cluster::assert_refused(&cluster.issue().await, "API server accepts tokens for the audience");
    }
}

/// An API server that has not seen yet that a ServiceAccount was created anew refuses its token for every audience.
#[tokio::test(start_paused = true)]
async fn refusal_of_a_token_counts_only_for_a_service_account_of_some_age() {
    let cluster = Cluster::new();
    // A clock that is ahead of another API server's makes no age.
    for (seconds, wait) in [(-5, 10), (0, 10), (9, 1)] {
        cluster.set(|server| server.account = Some(Account { seconds, ..OLD }));
        let said = cluster.token_of("ns", "payments").await.map(drop).unwrap_err();
        assert_eq!(said.wait(), Some(Duration::from_secs(wait)), "{seconds}: {said}");
        Cluster::assert_refused(&Err(said.to_string()), "was created less than 10 s ago");
    }
    assert_eq!(cluster.counts(), (3, 3), "none is remembered as the answer for an hour");
    cluster.set(|server| server.account = Some(Account { seconds: 10, ..OLD }));
    cluster.issue().await.unwrap();
    // Where the audience is known, no ServiceAccount waits.
    cluster.set(|server| server.account = Some(Account { seconds: 0, ..OLD }));
    cluster.issue().await.unwrap();
    assert_eq!(cluster.counts(), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn rejection_by_the_issuer_counts_only_for_a_service_account_of_some_age_that_still_exists() {
    let cluster = Cluster::new();
    let counts = async |token: &AccountToken| {
        token.account.counts(&cluster.kubernetes).await.map_err(|error| error.to_string())
    };
    let old = cluster.token_of("ns", "payments").await.unwrap();
    counts(&old).await.unwrap();
    cluster.set(|server| server.account = Some(Account { seconds: 3, uid: "two", ..OLD }));
    Cluster::assert_refused(&counts(&old).await, "was deleted or created anew");
    let young = cluster.token_of("ns", "payments").await.unwrap();
    Cluster::assert_refused(&counts(&young).await, "wait 7 s");
    cluster.set(|server| server.account = None);
    Cluster::assert_refused(&counts(&old).await, "does not exist");
}

#[tokio::test(start_paused = true)]
async fn rejection_by_the_issuer_counts_where_the_service_account_is_created_anew_again_and_again() {
    let cluster = Cluster::new();
    cluster.issue().await.unwrap();
    let counts = async |uid: &'static str| {
        cluster.set(|server| server.account = Some(Account { seconds: 3, uid, ..OLD }));
        let token = cluster.token_of("ns", "payments").await.unwrap();
        cluster.tokens.doubt(&cluster.kubernetes, &token.account).await.is_none()
    };
    for uid in ["two", "two", "three", "four", "four", "four"] {
        assert!(!counts(uid).await, "{uid}");
    }
    assert!(counts("five").await && counts("six").await);
    tokio::time::advance(FORGIVEN_FOR).await;
    assert!(!counts("seven").await);
}

#[tokio::test(start_paused = true)]
async fn service_accounts_of_the_cluster_and_of_the_operator_are_refused_before_a_token_is_asked_for() {
    let cluster = Cluster::new();
    for (namespace, name) in [("kube-system", "payments"), ("tokensource", "tokensource-operator")] {
        Cluster::assert_refused(&cluster.issue_in(namespace, name).await, "is never used");
    }
    assert_eq!(cluster.counts(), (0, 0));
    cluster.issue().await.unwrap();
}

fn bound_to(kind: &str) -> Value {
    json!({"kubernetes.io": {"serviceaccount": {"uid": OLD.uid}, kind: {"name": "a", "uid": "b"}}})
}

#[tokio::test(start_paused = true)]
async fn token_that_is_not_what_was_asked_for_is_neither_tried_nor_sent() {
    for (claims, words) in [
        (json!({"aud": [AUDIENCE, "https://vault.example.com"]}), "is not what was asked for"),
        (json!({"sub": "system:serviceaccount:ns:other"}), "is not what was asked for"),
        (json!({"kubernetes.io": {}}), "is not what was asked for"),
        (bound_to("pod"), "is not what was asked for"),
        (bound_to("secret"), "is not what was asked for"),
        (bound_to("node"), "is not what was asked for"),
        // The consent was that of its predecessor.
        (json!({"kubernetes.io": {"serviceaccount": {"uid": "two"}}}), "was deleted or created anew"),
    ] {
        let cluster = Cluster::new();
        cluster.set(|server| server.changed = claims);
        Cluster::assert_refused(&cluster.issue().await, words);
        assert_eq!(cluster.counts(), (1, 0));
    }
}
