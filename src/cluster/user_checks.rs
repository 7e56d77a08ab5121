//! What `check` asks the API server.

use std::fmt::{self, Debug};

use http::Request as HttpRequest;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use kube::{Api, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::call_error::CallError;
use super::user::UserCluster;

/// Something that a user may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) group: &'static str,
    /// The resource, with its subresource.
    pub(crate) resource: &'static str,
    pub(crate) verb: &'static str,
    /// `None`: in all namespaces.
    pub(crate) namespace: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// The groups of a ServiceAccount, by its user name. The API server adds none to a review.
fn groups(user: &str) -> Vec<String> {
    let mut groups = vec!["system:authenticated".to_owned()];
    if let Some((namespace, _)) =
        user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'))
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    groups
}

impl UserCluster {
    /// Major and minor version of the API server, and its text.
    pub(crate) async fn server_version(&self) -> Result<((u32, u32), String), CallError> {
        let version = self.call(self.client.apiserver_version()).await?;
        // Some distributions write 31+.
        let number = |text: &str| text.trim_end_matches('+').parse().unwrap_or_default();
        Ok(((number(&version.major), number(&version.minor)), version.git_version))
    }

    /// The issuer of the cluster's ServiceAccount tokens, as its OpenID Connect metadata says.
    pub(crate) async fn service_account_issuer(&self) -> Result<String, CallError> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
        }
        let request = HttpRequest::get("/.well-known/openid-configuration").body(vec![]);
        let request = request.map_err(|error| CallError::from(kube::Error::HttpError(error)))?;
        Ok(self.call(self.client.request::<Metadata>(request)).await?.issuer)
    }

    /// Reads an object, if it exists.
    pub(crate) async fn object<K>(&self, namespace: Option<&str>, name: &str) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let request = Request::new(K::url_path(&(), namespace)).get(name, &GetParams::default());
        let request = request.map_err(|error| CallError::from(kube::Error::BuildRequest(error)))?;
        match self.call(self.client.request::<K>(request)).await {
            Ok(object) => Ok(Some(object)),
            Err(CallError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `user`, or the caller, has a right.
    pub(crate) async fn may(&self, right: &Right, user: Option<&str>) -> Result<bool, CallError> {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (right.resource, None),
        };
        let attributes = Some(ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(right.verb.to_owned()),
            namespace: right.namespace.clone(),
            ..ResourceAttributes::default()
        });
        let params = PostParams::default();
        let status = match user {
            Some(user) => {
                let spec = SubjectAccessReviewSpec {
                    user: Some(user.to_owned()),
                    groups: Some(groups(user)),
                    resource_attributes: attributes,
                    ..SubjectAccessReviewSpec::default()
                };
                let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
                self.call(Api::all(self.client.clone()).create(&params, &review)).await?.status
            }
            None => {
                let spec = SelfSubjectAccessReviewSpec {
                    resource_attributes: attributes,
                    ..SelfSubjectAccessReviewSpec::default()
                };
                let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
                self.call(Api::all(self.client.clone()).create(&params, &review)).await?.status
            }
        };
        Ok(status.is_some_and(|status| status.allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_service_account_include_that_of_its_namespace() {
        let of_account = ["system:authenticated", "system:serviceaccounts", "system:serviceaccounts:team"];
        assert_eq!(groups("system:serviceaccount:team:operator"), of_account);
        assert_eq!(groups("jane"), ["system:authenticated"]);
    }
}
