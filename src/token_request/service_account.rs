//! Tokens of ServiceAccounts: for which audiences, to which hosts, of which ServiceAccounts.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use token_endpoint::without_final_dot;
use tokensource_api::{AUDIENCES_ANNOTATION, Reason};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use url::Url;

use crate::cluster::{AccountFacts, CallError, Kubernetes, TokenCheck};
use crate::key::Key;
use crate::providers::{ServiceAccountUse, is_audience};
use crate::text::{shell_word, shown};

/// After this time it is checked again that the cluster accepts no token for an audience: its configuration may change.
const CHECK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The age in seconds from which on the refusal of a ServiceAccount's token counts. API servers learn of ServiceAccounts by a
/// watch: where one was deleted and created anew, they refuse its token until they know its uid.
const SETTLED_AFTER: i64 = 10;
/// Of so many ServiceAccounts of one name, each created after the one before, the issuer's refusals do not count, until
/// [`FORGIVEN_FOR`] has passed: else a tenant could create one anew for each request, and no refusal would ever count.
const MAX_FORGIVEN: u32 = 3;
/// See [`MAX_FORGIVEN`].
const FORGIVEN_FOR: Duration = Duration::from_secs(10 * 60);
/// The most names of ServiceAccounts that are remembered for this. Refusals of further ones count.
const MAX_FORGIVEN_NAMES: usize = 1024;
/// The ServiceAccounts of this namespace run the cluster.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// An audience, and a host to which tokens for it may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedToken {
    audience: String,
    /// `https`, unless `http` is written.
    scheme: &'static str,
    /// Without a final dot.
    host: String,
    port: u16,
}

/// The text is no pair of an audience and a host.
#[derive(Debug, thiserror::Error)]
#[error(
    "write AUDIENCE=HOST[:PORT], for example https://idp.example.com=idp.example.com, or AUDIENCE=http://HOST[:PORT] for tests without TLS; an audience is printable ASCII without spaces and commas"
)]
pub struct InvalidAllowedToken;

impl FromStr for AllowedToken {
    type Err = InvalidAllowedToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (audience, authority) = text.rsplit_once('=').ok_or(InvalidAllowedToken)?;
        let (scheme, authority) =
            authority.strip_prefix("http://").map_or(("https", authority), |rest| ("http", rest));
        // Without a port, it is that of the scheme.
        let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| InvalidAllowedToken)?;
        let is_authority = !authority.contains(['/', '?', '#', '@', '\\', '*', '%']) && url.path() == "/";
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) if is_authority && is_audience(audience) => {
                let (audience, host) = (audience.to_owned(), without_final_dot(host).to_owned());
                Ok(AllowedToken { audience, scheme, host, port })
            }
            _ => Err(InvalidAllowedToken),
        }
    }
}

impl AllowedToken {
    fn permits(&self, audience: &str, url: &Url) -> bool {
        self.audience == audience
            && url.scheme() == self.scheme
            && url.host_str().map(without_final_dot) == Some(self.host.as_str())
            && url.port_or_known_default() == Some(self.port)
    }
}

/// A token of a ServiceAccount is not used. Messages contain no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceAccountTokenError {
    #[error(
        "this operator sends no tokens of ServiceAccounts: the platform allows them by --service-account-tokens-allowed (Helm value serviceAccountTokens.allowed), which lists audiences and hosts"
    )]
    Off,
    #[error(
        "tokens of ServiceAccounts for the audience {audience} are not allowed: write one that the platform lists in --service-account-tokens-allowed (Helm value serviceAccountTokens.allowed)"
    )]
    Audience { audience: String },
    #[error(
        "tokens of ServiceAccounts for the audience {audience} may not be sent to {host}: the platform must list both in --service-account-tokens-allowed (Helm value serviceAccountTokens.allowed)"
    )]
    Host { audience: String, host: String },
    #[error(
        "ServiceAccount {0} is never used: it belongs to the cluster or to the operator; name another one"
    )]
    Reserved(Key),
    #[error(
        "ServiceAccount {0} does not exist: create it, or name another one (spec.credentials.serviceAccountToken.name; with an issuer spec.request.serviceAccountName)"
    )]
    NotFound(Key),
    #[error(
        "ServiceAccount {account} does not list the audience {audience} in its annotation {AUDIENCES_ANNOTATION}: kubectl annotate serviceaccount {name} -n {namespace} {AUDIENCES_ANNOTATION}={word}",
        name = account.name, namespace = account.namespace, word = shell_word(audience)
    )]
    NoConsent { account: Key, audience: String },
    #[error(
        "this cluster's API server accepts tokens for the audience {audience}, and no such token is ever sent: use the audience of the issuer alone"
    )]
    ClusterAudience { audience: String },
    #[error(
        "the token of ServiceAccount {0} that the API server made is not what was asked for: does a webhook change TokenRequests?"
    )]
    Unexpected(Key),
    #[error(
        "ServiceAccount {0} was deleted or created anew while its token was asked for: that token is not used"
    )]
    Replaced(Key),
    #[error(
        "ServiceAccount {account} was created less than {SETTLED_AFTER} s ago, and API servers may refuse its token until all of them know it: wait {} s",
        wait.as_secs()
    )]
    Young { account: Key, wait: Duration },
    #[error("no token of a ServiceAccount: {0}")]
    Call(#[from] CallError),
}

impl ServiceAccountTokenError {
    /// The reason of the condition that reports this error.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            ServiceAccountTokenError::Off
            | ServiceAccountTokenError::Audience { .. }
            | ServiceAccountTokenError::Host { .. } => Reason::EndpointRefusedByPolicy,
            ServiceAccountTokenError::NotFound(_)
            | ServiceAccountTokenError::Replaced(_)
            | ServiceAccountTokenError::Young { .. } => Reason::CredentialsNotFound,
            ServiceAccountTokenError::Call(_) => Reason::KubernetesApiError,
            _ => Reason::CredentialsInvalid,
        }
    }

    /// Whether it is about the ServiceAccount, and not about the endpoint.
    pub(crate) fn is_about_account(&self) -> bool {
        use ServiceAccountTokenError::{Call, NoConsent, NotFound, Replaced, Reserved, Unexpected, Young};
        matches!(
            self,
            Reserved(_)
                | NotFound(_)
                | Replaced(_)
                | Young { .. }
                | Unexpected(_)
                | NoConsent { .. }
                | Call(_)
        )
    }

    /// How long it lasts at least, where that is known.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self {
            ServiceAccountTokenError::Young { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}

/// What a token says of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    #[serde(rename = "iss")]
    pub(crate) issuer: String,
    #[serde(rename = "sub")]
    pub(crate) subject: String,
    #[serde(rename = "aud")]
    pub(crate) audiences: Vec<String>,
    /// By the clock of the API server, as is the time at which its ServiceAccount was created.
    #[serde(rename = "iat")]
    issued_at: i64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaim,
}

#[derive(Debug, Deserialize)]
struct KubernetesClaim {
    serviceaccount: AccountClaim,
    /// The objects that a token may be bound to: it ends with them.
    pod: Option<IgnoredAny>,
    secret: Option<IgnoredAny>,
    node: Option<IgnoredAny>,
}

impl KubernetesClaim {
    fn is_bound(&self) -> bool {
        self.pod.is_some() || self.secret.is_some() || self.node.is_some()
    }
}

/// The ServiceAccount of a token. One that is created anew with the same name has another uid.
#[derive(Debug, Deserialize)]
struct AccountClaim {
    uid: String,
}

impl Claims {
    /// `None`: it is no JWT with these claims, as Kubernetes writes them.
    pub(crate) fn of(token: &SecretString) -> Option<Self> {
        let claims = URL_SAFE_NO_PAD.decode(token.expose_secret().split('.').nth(1)?).ok()?;
        serde_json::from_slice(&claims).ok()
    }
}

/// A token of a ServiceAccount, for one request.
pub(crate) struct AccountToken {
    pub(crate) token: SecretString,
    /// The API server may shorten what was asked for.
    pub(crate) expires_at: Timestamp,
    pub(crate) account: TokenAccount,
}

/// The ServiceAccount of a token.
pub(crate) struct TokenAccount {
    key: Key,
    uid: String,
    /// How long refusals of the token do not count yet.
    unsettled: Option<Duration>,
}

impl TokenAccount {
    /// Whether the refusal of its token, which has just come, says something of the audience, or of the client.
    ///
    /// # Errors
    /// It was deleted or created anew meanwhile, or created a short time ago; or this is not known.
    pub(crate) async fn counts(&self, kubernetes: &Kubernetes) -> Result<(), ServiceAccountTokenError> {
        let facts = read_account(kubernetes, &self.key).await?;
        if !facts.is_alive || facts.uid != self.uid {
            return Err(ServiceAccountTokenError::Replaced(self.key.clone()));
        }
        match self.unsettled {
            Some(wait) => Err(ServiceAccountTokenError::Young { account: self.key.clone(), wait }),
            None => Ok(()),
        }
    }
}

/// Asks for tokens of ServiceAccounts, and keeps none.
pub struct ServiceAccountTokens {
    allowed: Vec<AllowedToken>,
    check: Option<TokenCheck>,
    /// When it was last seen that the cluster accepts no token for an audience. Only allowed audiences are here.
    checked: Mutex<HashMap<String, Instant>>,
    forgiven: Mutex<HashMap<Key, Forgiven>>,
    own_user: OnceCell<String>,
}

/// The ServiceAccounts of one name of which refusals have not counted.
struct Forgiven {
    count: u32,
    /// The last one.
    uid: String,
    at: Instant,
}

impl ServiceAccountTokens {
    /// Allows these pairs.
    pub(crate) fn new(allowed: Vec<AllowedToken>, check: TokenCheck) -> Self {
        ServiceAccountTokens { allowed, check: Some(check), ..Self::none() }
    }

    /// Allows none.
    #[must_use]
    pub fn none() -> Self {
        ServiceAccountTokens {
            allowed: vec![],
            check: None,
            checked: Mutex::default(),
            forgiven: Mutex::default(),
            own_user: OnceCell::new(),
        }
    }

    /// # Errors
    /// No token for this audience may be sent to any host.
    pub(crate) fn allows_audience(&self, audience: &str) -> Result<(), ServiceAccountTokenError> {
        if self.allowed.is_empty() || self.check.is_none() {
            return Err(ServiceAccountTokenError::Off);
        }
        match self.allowed.iter().any(|allowed| allowed.audience == audience) {
            true => Ok(()),
            false => Err(ServiceAccountTokenError::Audience { audience: shown(audience).into_owned() }),
        }
    }

    /// A token for one request to `url`, which is where it will be sent.
    ///
    /// # Errors
    /// The pair of audience and host is not allowed, the ServiceAccount does not consent, or this cluster accepts the token.
    pub(crate) async fn issue(
        &self,
        kubernetes: &Kubernetes,
        namespace: &str,
        wanted: &ServiceAccountUse,
        url: &Url,
    ) -> Result<AccountToken, ServiceAccountTokenError> {
        let audience = &wanted.audience;
        self.allows_audience(audience)?;
        if !self.allowed.iter().any(|allowed| allowed.permits(audience, url)) {
            let host = url.host_str().unwrap_or_default();
            let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let host = if url.scheme() == "https" { host } else { format!("{}://{host}", url.scheme()) };
            let (audience, host) = (shown(audience).into_owned(), shown(&host).into_owned());
            return Err(ServiceAccountTokenError::Host { audience, host });
        }
        let account = Key::new(namespace, &wanted.name);
        let subject = wanted.subject(namespace);
        let own = self.own_user.get_or_try_init(|| kubernetes.own_user()).await?;
        if namespace == SYSTEM_NAMESPACE || *own == subject {
            return Err(ServiceAccountTokenError::Reserved(account));
        }
        let facts = read_account(kubernetes, &account).await?;
        let consent = facts.consent.as_deref().unwrap_or_default();
        if !consent.split(',').any(|consented| consented.trim() == audience) {
            let audience = shown(audience).into_owned();
            return Err(ServiceAccountTokenError::NoConsent { account, audience });
        }
        let issued = kubernetes.service_account_token(&account, audience, wanted.expiration).await;
        let issued = issued.map_err(|error| absent(error, &account))?;
        let is_expected = |claims: &Claims| {
            claims.subject == subject
                && claims.audiences == [audience.clone()]
                && !claims.kubernetes.is_bound()
        };
        let Some(claims) = Claims::of(&issued.token).filter(is_expected) else {
            return Err(ServiceAccountTokenError::Unexpected(account));
        };
        let uid = claims.kubernetes.serviceaccount.uid;
        if uid != facts.uid {
            return Err(ServiceAccountTokenError::Replaced(account));
        }
        let unsettled = unsettled(claims.issued_at, facts.created_at);
        let account = TokenAccount { key: account, uid, unsettled };
        self.check_cluster(kubernetes, audience, &issued.token, &account).await?;
        Ok(AccountToken { token: issued.token, expires_at: issued.expires_at, account })
    }

    /// Why a refusal of this ServiceAccount's token, which the issuer has just sent, does not count; `None`: it counts.
    pub(crate) async fn doubt(
        &self,
        kubernetes: &Kubernetes,
        account: &TokenAccount,
    ) -> Option<ServiceAccountTokenError> {
        let doubt = account.counts(kubernetes).await.err()?;
        // Where the API server does not answer, nothing speaks against the refusal.
        let speaks = !matches!(doubt, ServiceAccountTokenError::Call(_));
        (speaks && self.forgives(account, Instant::now())).then_some(doubt)
    }

    fn forgives(&self, account: &TokenAccount, at: Instant) -> bool {
        let mut forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        forgiven.retain(|_, known| at.saturating_duration_since(known.at) < FORGIVEN_FOR);
        let (has_room, known) = (forgiven.len() < MAX_FORGIVEN_NAMES, forgiven.get(&account.key));
        let count = match known {
            Some(known) if known.uid == account.uid => return true,
            known => known.map_or(0, |known| known.count),
        };
        let forgives = count < MAX_FORGIVEN && (count > 0 || has_room);
        if forgives {
            let uid = account.uid.clone();
            forgiven.insert(account.key.clone(), Forgiven { count: count + 1, uid, at });
        }
        forgives
    }

    /// The audiences of the API server cannot be learned but by trying a token. It refuses one of a ServiceAccount that was
    /// deleted, or that it does not know yet, for any audience: such a refusal does not count.
    async fn check_cluster(
        &self,
        kubernetes: &Kubernetes,
        audience: &str,
        token: &SecretString,
        account: &TokenAccount,
    ) -> Result<(), ServiceAccountTokenError> {
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if checked().get(audience).is_some_and(|at| now.duration_since(*at) < CHECK_INTERVAL) {
            return Ok(());
        }
        checked().remove(audience);
        let Some(check) = &self.check else { return Err(ServiceAccountTokenError::Off) };
        if check.is_accepted(token).await? {
            return Err(ServiceAccountTokenError::ClusterAudience { audience: shown(audience).into_owned() });
        }
        account.counts(kubernetes).await?;
        checked().insert(audience.to_owned(), now);
        Ok(())
    }
}

/// How long refusals of a token do not count that was made at `issued_at`, in seconds since the epoch, for a ServiceAccount of
/// this time. A time ahead is that of an API server whose clock is.
fn unsettled(issued_at: i64, created_at: Timestamp) -> Option<Duration> {
    let age = issued_at.saturating_sub(created_at.as_second()).max(0);
    u64::try_from(SETTLED_AFTER - age).ok().filter(|wait| *wait > 0).map(Duration::from_secs)
}

async fn read_account(
    kubernetes: &Kubernetes,
    account: &Key,
) -> Result<AccountFacts, ServiceAccountTokenError> {
    kubernetes.account(account).await.map_err(|error| absent(error, account))
}

fn absent(error: CallError, account: &Key) -> ServiceAccountTokenError {
    match error {
        CallError::NotFound => ServiceAccountTokenError::NotFound(account.clone()),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
