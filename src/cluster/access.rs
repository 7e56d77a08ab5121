//! Who may read a page of the admin server, as the API server says.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use super::call_error::CallError;

/// The timeout of both calls together: less than that of the request which waits for them.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

/// What the API server says of a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its user may get the path.
    Allowed,
    /// Its user may not.
    Forbidden,
    /// It is valid for no user.
    Unauthenticated,
}

/// Asks whose `token` is (TokenReview), and whether this user may get `path` (SubjectAccessReview). Admission policies do not see
/// these two kinds.
///
/// # Errors
/// The API server does not answer, or the operator may not ask.
pub(crate) async fn review(client: &Client, token: &SecretString, path: &str) -> Result<Verdict, CallError> {
    let reviewed = timeout(REVIEW_TIMEOUT, async {
        let Some(user) = user(client, token).await? else { return Ok(Verdict::Unauthenticated) };
        Ok(if may_get(client, user, path).await? { Verdict::Allowed } else { Verdict::Forbidden })
    });
    reviewed.await.unwrap_or_else(|_| Err(CallError::Unavailable("no answer in time".to_owned().into())))
}

async fn user(client: &Client, token: &SecretString) -> Result<Option<UserInfo>, CallError> {
    let spec = TokenReviewSpec { token: Some(token.expose_secret().to_owned()), audiences: None };
    let review = TokenReview { spec, ..TokenReview::default() };
    let review = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    let status = review.status.unwrap_or_default();
    Ok(status.user.filter(|_| status.authenticated == Some(true)))
}

async fn may_get(client: &Client, user: UserInfo, path: &str) -> Result<bool, CallError> {
    let spec = SubjectAccessReviewSpec {
        user: user.username,
        groups: user.groups,
        uid: user.uid,
        extra: user.extra,
        non_resource_attributes: Some(NonResourceAttributes {
            path: Some(path.to_owned()),
            verb: Some("get".to_owned()),
        }),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let review = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(review.status.is_some_and(|status| status.allowed))
}
