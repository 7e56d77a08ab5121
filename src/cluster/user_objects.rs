//! What the commands read and change with the user's rights. TokenSources are read whole and untyped: a command shows also what
//! another version of the operator wrote.

use std::fmt::Debug;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DynamicObject, ListParams, ObjectList, Patch, PatchParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, Request};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::call_error::CallError;
use super::user::{PAGE_SIZE, UserCluster, UserClusterError};
use crate::key::Key;
use tokensource_api::{ClusterTokenIssuer, TokenSource};

/// The field manager of changes by the commands.
pub(crate) const USER_FIELD_MANAGER: &str = "kubectl-tokensource";

/// How long one watch lasts, in seconds: kube allows at most 294.
const WATCH_SECONDS: u32 = 290;

/// Which TokenSources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// `None`: of all namespaces.
    pub(crate) namespace: Option<String>,
    /// A label selector.
    pub(crate) labels: Option<String>,
}

/// A change that a watch shows.
pub(crate) enum Change {
    /// A TokenSource is new, or has changed.
    Shown(Box<DynamicObject>),
    /// One is gone.
    Gone,
}

/// How a watch ended.
pub(crate) enum WatchEnd {
    /// The resource version is too old: the TokenSources have to be listed again.
    Expired,
    /// It ended as all do after a while; the version from which to go on.
    Over(String),
}

fn kind() -> ApiResource {
    ApiResource::erase::<TokenSource>(&())
}

impl UserCluster {
    fn sources(&self, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind()),
            None => Api::all_with(self.client.clone(), &kind()),
        }
    }

    /// Reads a TokenSource as it is.
    pub(crate) async fn source_object(&self, key: &Key) -> Result<DynamicObject, UserClusterError> {
        let api = self.sources(Some(&key.namespace));
        let read = self.bounded(api.get(&key.name)).await?;
        read.map_err(|error| UserClusterError::about(key.clone(), "read", error))
    }

    /// Lists TokenSources page by page. Returns the resource version for a watch as well. `progress` gets the number so far after
    /// each page.
    pub(crate) async fn source_objects(
        &self,
        scope: &Scope,
        mut progress: impl FnMut(usize),
    ) -> Result<(Vec<DynamicObject>, String), UserClusterError> {
        let api = self.sources(scope.namespace.as_deref());
        let mut params = ListParams { label_selector: scope.labels.clone(), ..ListParams::default() };
        params.limit = Some(PAGE_SIZE);
        let mut all = vec![];
        loop {
            let page = self.bounded(api.list(&params)).await?;
            let page = page.map_err(|error| UserClusterError::about_many("listed", error))?;
            all.extend(page.items);
            progress(all.len());
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                // The API server leaves it out for items of a list of untyped objects.
                for object in &mut all {
                    object.types.get_or_insert_with(kube::api::TypeMeta::resource::<TokenSource>);
                }
                return Ok((all, page.metadata.resource_version.unwrap_or_default()));
            }
        }
    }

    /// Watches TokenSources from a resource version on, until the API server ends the watch.
    pub(crate) async fn watch_source_objects(
        &self,
        scope: &Scope,
        version: String,
        mut each: impl FnMut(Change),
    ) -> Result<WatchEnd, UserClusterError> {
        let failed = |error| UserClusterError::about_many("watched", error);
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector.clone_from(&scope.labels);
        let api = self.sources(scope.namespace.as_deref());
        let mut events = Box::pin(api.watch(&params, &version).await.map_err(failed)?);
        let mut version = version;
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = object.metadata.resource_version.clone().unwrap_or(version);
                    each(Change::Shown(Box::new(object)));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    version = object.metadata.resource_version.clone().unwrap_or(version);
                    each(Change::Gone);
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(WatchEnd::Expired),
                Ok(WatchEvent::Error(status)) => return Err(failed(kube::Error::Api(status))),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(WatchEnd::Over(version))
    }

    /// Changes a TokenSource by a merge patch, and returns it as it is then.
    pub(crate) async fn patch_source(
        &self,
        key: &Key,
        patch: &Value,
        dry_run: bool,
    ) -> Result<DynamicObject, UserClusterError> {
        let api = self.sources(Some(&key.namespace));
        let params = PatchParams {
            dry_run,
            field_manager: Some(USER_FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patched = self.bounded(api.patch(&key.name, &params, &Patch::Merge(patch))).await?;
        patched.map_err(|error| UserClusterError::about(key.clone(), "changed", error))
    }

    /// Lists ClusterTokenIssuers as they are; none where the cluster does not know the kind.
    pub(crate) async fn issuer_objects(&self) -> Result<Vec<DynamicObject>, CallError> {
        let kind = ApiResource::erase::<ClusterTokenIssuer>(&());
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        match self.call(api.list(&ListParams::default())).await {
            Ok(list) => Ok(list.items),
            Err(CallError::NotFound) => Ok(vec![]),
            Err(error) => Err(error),
        }
    }

    /// Lists objects of a namespace, or of the whole cluster; `labels` is a selector.
    pub(crate) async fn objects<K>(
        &self,
        namespace: Option<&str>,
        labels: Option<&str>,
    ) -> Result<Vec<K>, CallError>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
    {
        let mut params = ListParams { label_selector: labels.map(str::to_owned), ..ListParams::default() };
        params.limit = Some(PAGE_SIZE);
        let mut all = vec![];
        loop {
            let request = Request::new(K::url_path(&(), namespace)).list(&params);
            let request = request.map_err(|error| CallError::from(kube::Error::BuildRequest(error)))?;
            let page = self.call(self.client.request::<ObjectList<K>>(request)).await?;
            all.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// The names of the namespaces.
    pub(crate) async fn namespace_names(&self) -> Result<Vec<String>, CallError> {
        let namespaces = self.objects::<Namespace>(None, None).await?;
        Ok(namespaces.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
    }

    pub(super) async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        match self.bounded(call).await {
            Ok(result) => result.map_err(CallError::from),
            Err(_) => Err(CallError::Unavailable("no answer in time".to_owned().into())),
        }
    }
}
