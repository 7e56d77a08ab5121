//! An issuer narrows, or withdraws a namespace, between the request of a token and its write.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::super::support::eventually;
use super::super::support::operator::Operator;
use super::super::support::policy::Refusal;
use super::super::support::scene::{SOON, Scene};
use super::super::support::scripted_server::{Reply, ScriptedServer};
use super::{client, issuer, names, own_operator, released, source};

/// A namespace with an operator, an issuer and a TokenSource that has a token. The issuer allows the scope `read`. Its endpoint
/// answers when the test adds a permit.
struct Narrowing {
    release: Scene,
    operator: Operator,
    endpoint: ScriptedServer,
    permits: Arc<Semaphore>,
}

impl Narrowing {
    async fn new(prefix: &str) -> Self {
        let release = Scene::bare(prefix).await;
        client(&release).await;
        released(&release).await;
        let operator = own_operator(&release).await;
        let narrowing = Narrowing {
            operator,
            endpoint: ScriptedServer::start([Reply::Close]).await,
            permits: Arc::new(Semaphore::new(0)),
            release,
        };
        narrowing.release.apply(narrowing.open()).await;
        // While there is no token, a request may take 5 s only.
        narrowing.next_token("first");
        narrowing.permits.add_permits(1);
        narrowing.release.apply(source(&narrowing.release, "source", json!({"scopes": ["read"]}))).await;
        narrowing.written("first").await;
        narrowing
    }

    fn open(&self) -> Value {
        let mut issuer = issuer(&self.release, names(&[&self.release]));
        let url = self.endpoint.url("/token");
        issuer["spec"]["provider"] =
            json!({"oauth2": {"tokenURL": url, "clientAuthentication": {"post": {}}}});
        issuer
    }

    /// It allows another scope.
    fn narrowed(&self) -> Value {
        let mut issuer = self.open();
        issuer["spec"]["allow"]["scopes"] = json!(["write"]);
        issuer
    }

    /// It is for another namespace.
    fn withdrawn(&self) -> Value {
        let mut issuer = self.open();
        issuer["spec"]["namespaces"] = json!({"names": ["another"]});
        issuer
    }

    /// The next token, which the endpoint holds. It says of no scope that it granted it.
    fn next_token(&self, token: &str) {
        let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600});
        self.endpoint.now(Reply::Held(Arc::clone(&self.permits), body.to_string()));
    }

    /// Requests a refresh, for the `n`th time.
    async fn request_refresh(&self, n: usize) {
        let request = format!("tokensource.dev/refresh-requested-at={n}");
        self.release.kubectl(&["annotate", "tokensource", "source", "--overwrite", &request], "").await;
    }

    async fn asked(&self, times: usize) {
        eventually("the token request is under way", SOON, async || match self.endpoint.requests().len() {
            sent if sent == times => Ok(()),
            sent => Err(sent),
        })
        .await;
    }

    /// The endpoint answers the request that is under way.
    async fn answer(&self, received: usize) {
        assert_eq!(self.operator.said("token received"), received - 1, "the response is still to come");
        self.permits.add_permits(1);
        eventually("the response is there", SOON, async || match self.operator.said("token received") {
            said if said == received => Ok(()),
            said => Err(said),
        })
        .await;
    }

    async fn written(&self, token: &str) {
        eventually(&format!("the token {token} is written"), SOON, async || match self.token().await {
            Some(written) if written == token => Ok(()),
            other => Err(other),
        })
        .await;
    }

    async fn token(&self) -> Option<String> {
        self.release.value("source", "access_token").await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_under_way_while_its_issuer_narrows_or_withdraws_is_not_written() {
    let test = Narrowing::new("issuer-narrows").await;
    let release = &test.release;
    let (mut asked, mut before) = (1, "first".to_owned());
    for less in [test.narrowed(), test.withdrawn()] {
        asked += 1;
        test.next_token("under-way");
        test.request_refresh(asked).await;
        test.asked(asked).await;
        release.apply(less).await;
        release.condition("source", "Ready", "False NotAllowedByIssuer").await;
        test.answer(asked).await;
        release.source_is_seen().await;
        assert_eq!(test.token().await, Some(before));

        // It was dropped: another one is requested.
        asked += 1;
        before = format!("allowed-{asked}");
        test.next_token(&before);
        release.apply(test.open()).await;
        test.asked(asked).await;
        test.answer(asked).await;
        test.written(&before).await;
        release.condition("source", "Ready", "True TokenValid").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_waits_to_be_written_is_dropped_when_its_issuer_narrows() {
    let test = Narrowing::new("issuer-narrows-late").await;
    let release = &test.release;
    let refusal = Refusal::of_data(release, "source", "'not today'").await;
    test.next_token("refused");
    test.permits.add_permits(1);
    test.request_refresh(1).await;
    eventually("the write is refused", SOON, async || match release.status().await.last_failure {
        Some(last) if last.reason == "TargetRefused" => Ok(()),
        other => Err(other),
    })
    .await;
    release.apply(test.narrowed()).await;
    release.condition("source", "Ready", "False NotAllowedByIssuer").await;
    refusal.lift().await;
    release.source_is_seen().await;
    assert_eq!(test.token().await.as_deref(), Some("first"));

    test.next_token("allowed");
    release.apply(test.open()).await;
    test.asked(3).await;
    test.answer(3).await;
    test.written("allowed").await;
}
