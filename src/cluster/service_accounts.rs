//! Tokens of ServiceAccounts, and the check that this cluster does not accept one.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request as HttpRequest, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{GetParams, PostParams};
use kube::client::Body;
use kube::config::AuthInfo;
use kube::core::Request;
use kube::{Client, Config, Resource};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokensource_api::AUDIENCES_ANNOTATION;

use super::body::{object, parse};
use super::call_error::CallError;
use super::calls::{Built, Kubernetes, built, requests};
use super::kept;
use crate::key::Key;

/// How long the check of a token may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// A token of a ServiceAccount, as the API server made it.
#[derive(Debug)]
pub(crate) struct IssuedToken {
    pub(crate) token: SecretString,
    /// `status.expirationTimestamp`: the API server may shorten what was asked for.
    pub(crate) expires_at: Timestamp,
}

/// What is known of a ServiceAccount.
#[derive(Debug)]
pub(crate) struct AccountFacts {
    pub(crate) uid: String,
    /// By the clock of the API server.
    pub(crate) created_at: Timestamp,
    /// Its deletion has not begun: the API server refuses tokens of others.
    pub(crate) is_alive: bool,
    /// The annotation by which it consents to tokens; `None` where it has none, or one that is too long.
    pub(crate) consent: Option<String>,
}

/// What the API server answers in the status of an object that it does not store.
#[derive(Deserialize)]
struct Answer<S> {
    status: S,
}

impl Kubernetes {
    /// Reads a ServiceAccount.
    ///
    /// # Errors
    /// [`CallError::NotFound`] where there is no such ServiceAccount; else see [`CallError`].
    pub(crate) async fn account(&self, account: &Key) -> Result<AccountFacts, CallError> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            uid: String,
            creation_timestamp: Timestamp,
            deletion_timestamp: Option<IgnoredAny>,
            annotations: Option<BTreeMap<String, String>>,
        }
        let request = requests::<ServiceAccount>(&account.namespace);
        let request = request.get_metadata(&account.name, &GetParams::default());
        let read = async { parse::<Object>(&object(&self.client, built(request)?, kept::ACCOUNT).await?) };
        let Metadata { uid, creation_timestamp, deletion_timestamp, annotations } =
            self.bounded(read).await?.metadata;
        let consent = annotations.and_then(|mut annotations| annotations.remove(AUDIENCES_ANNOTATION));
        let is_alive = deletion_timestamp.is_none();
        Ok(AccountFacts { uid, created_at: creation_timestamp, is_alive, consent })
    }

    /// Asks for a token of a ServiceAccount (TokenRequest) for one audience, bound to no object. `seconds` is its lifetime.
    ///
    /// # Errors
    /// [`CallError::NotFound`] where there is no such ServiceAccount; else see [`CallError`].
    pub(crate) async fn service_account_token(
        &self,
        account: &Key,
        audience: &str,
        seconds: u64,
    ) -> Result<IssuedToken, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            token: String,
            expiration_timestamp: Timestamp,
        }
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": seconds},
        });
        let request = requests::<ServiceAccount>(&account.namespace);
        let body = body.to_string().into_bytes();
        let request = request.create_subresource("token", &account.name, &PostParams::default(), body);
        let read = async {
            parse::<Answer<Status>>(&object(&self.client, built(request)?, kept::ISSUED_TOKEN).await?)
        };
        let Status { token, expiration_timestamp } = self.bounded(read).await?.status;
        Ok(IssuedToken { token: token.into(), expires_at: expiration_timestamp })
    }

    /// The user name of this client in the API server.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn own_user(&self) -> Result<String, CallError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Status {
            user_info: User,
        }
        #[derive(Deserialize)]
        struct User {
            username: String,
        }
        let read =
            async { parse::<Answer<Status>>(&object(&self.client, built(review())?, kept::REVIEWED).await?) };
        Ok(self.bounded(read).await?.status.user_info.username)
    }
}

/// A SelfSubjectReview, which every user may make.
fn review() -> Built {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = Request::new(SelfSubjectReview::url_path(&(), None));
    request.create(&PostParams::default(), body.to_string().into_bytes())
}

/// Tries tokens at the API server, with a client that has no credentials.
#[derive(Clone)]
pub(crate) struct TokenCheck(Client);

impl TokenCheck {
    /// For the API server of this configuration, whose credentials are not used.
    pub(crate) fn new(configuration: &Config) -> kube::Result<Self> {
        let mut without = configuration.clone();
        without.auth_info = AuthInfo::default();
        Ok(TokenCheck(Client::try_from(without)?))
    }

    /// The same with a client of the test.
    #[cfg(test)]
    pub(crate) fn by(client: Client) -> Self {
        TokenCheck(client)
    }

    /// Whether the API server takes the token for that of a user. Nothing but 401 says that it does not, and
    /// not even that where its ServiceAccount has been deleted, or has only just been created.
    ///
    /// # Errors
    /// It is not known.
    pub(crate) async fn is_accepted(&self, token: &SecretString) -> Result<bool, CallError> {
        let unknown = |message: String| CallError::Unavailable(message.into());
        let mut request: HttpRequest<Body> = built(review())?.map(Body::from);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| unknown("a token that no header can hold".to_owned()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let answered = tokio::time::timeout(CHECK_TIMEOUT, self.0.send(request)).await;
        let answered =
            answered.map_err(|_| unknown(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())))?;
        match answered?.status() {
            StatusCode::UNAUTHORIZED => Ok(false),
            // Its user may not do this, but is known.
            StatusCode::FORBIDDEN => Ok(true),
            status if status.is_success() => Ok(true),
            status => Err(unknown(format!("status {status}"))),
        }
    }
}
