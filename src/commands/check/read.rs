//! Reads what `check` reports on, as far as the user's rights permit.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokensource_api::TokenSource;

use crate::cluster::{CallError, Right, UserCluster};
use crate::commands::installation::{Account, InstallationArgs, InstallationError, PART_OF, installations};
use crate::commands::operator;
use crate::key::Key;

/// What was read.
pub(crate) struct Seen {
    pub(crate) namespace: String,
    /// Major and minor version of the API server, and its text.
    pub(crate) version: Result<((u32, u32), String), CallError>,
    pub(crate) definition: Result<Option<CustomResourceDefinition>, CallError>,
    /// Whether TokenSources of the namespace can be listed.
    pub(crate) sources: Result<Vec<TokenSource>, CallError>,
    pub(crate) operators: Result<Vec<Operator>, InstallationError>,
    pub(crate) policies: Result<Vec<ValidatingAdmissionPolicy>, CallError>,
    pub(crate) bindings: Result<Vec<ValidatingAdmissionPolicyBinding>, CallError>,
    /// The user's own rights in the namespace.
    pub(crate) own: Vec<(Right, Result<bool, CallError>)>,
}

/// A Deployment of the operator.
pub(crate) struct Operator {
    pub(crate) deployment: Deployment,
    /// The ServiceAccount of its pods.
    pub(crate) account: Account,
    /// `None` where it needs none.
    pub(crate) lease: Option<(Key, Result<Option<Lease>, CallError>)>,
    /// Its rights; none where they are granted by namespace.
    pub(crate) rights: Vec<(Right, Result<bool, CallError>)>,
    /// The definition of ClusterTokenIssuers, where it serves them.
    pub(crate) issuers: Option<Result<Option<CustomResourceDefinition>, CallError>>,
}

/// The rights that the chart gives the operator: group, resource and verbs.
const OPERATOR_RIGHTS: [(&str, &str, &[&str]); 5] = [
    ("tokensource.dev", "tokensources", &["get", "list", "watch"]),
    ("tokensource.dev", "tokensources/status", &["patch"]),
    ("", "secrets", &["get", "list", "watch", "create", "patch", "delete"]),
    ("", "configmaps", &["get"]),
    ("events.k8s.io", "events", &["create"]),
];

/// Those in the cluster where it serves ClusterTokenIssuers.
const ISSUER_RIGHTS: [(&str, &str, &[&str]); 2] = [
    ("tokensource.dev", "clustertokenissuers", &["list", "watch"]),
    ("tokensource.dev", "clustertokenissuers/status", &["patch"]),
];

/// The rights of people, by command.
const OWN_RIGHTS: [(&str, &str, &[&str]); 3] = [
    ("tokensource.dev", "tokensources", &["get", "list", "watch", "patch"]),
    ("", "secrets", &["get"]),
    ("", "pods", &["list"]),
];

fn rights(all: &[(&'static str, &'static str, &[&'static str])], namespace: Option<&str>) -> Vec<Right> {
    let each = |(group, resource, verbs): &(&'static str, &'static str, &[&'static str])| {
        let right =
            |verb: &&'static str| Right { group, resource, verb, namespace: namespace.map(str::to_owned) };
        verbs.iter().map(right).collect::<Vec<_>>()
    };
    all.iter().flat_map(each).collect()
}

pub(super) async fn read(
    cluster: &UserCluster,
    arguments: &InstallationArgs,
    progress: impl Fn(&str),
) -> Seen {
    progress("reading versions");
    let version = cluster.server_version().await;
    let definition = cluster.object(None, "tokensources.tokensource.dev").await;
    let sources = cluster.objects(Some(&cluster.namespace), None).await;
    progress("reading the operator's Deployments");
    let operators = match installations(cluster, arguments).await {
        Err(error) => Err(error),
        Ok(installations) => {
            let mut operators = vec![];
            for installation in installations {
                progress("reading the operator's rights");
                operators.push(operator_of(cluster, installation.deployment).await);
            }
            Ok(operators)
        }
    };
    progress("reading admission policies");
    let policies = cluster.objects(None, Some(PART_OF)).await;
    let bindings = cluster.objects(None, Some(PART_OF)).await;
    progress("reading your rights");
    let mut own = vec![];
    for right in rights(&OWN_RIGHTS, Some(&cluster.namespace)) {
        let may = cluster.may(&right, None).await;
        own.push((right, may));
    }
    Seen {
        namespace: cluster.namespace.clone(),
        version,
        definition,
        sources,
        operators,
        policies,
        bindings,
        own,
    }
}

async fn operator_of(cluster: &UserCluster, deployment: Deployment) -> Operator {
    let key = Key::of(&deployment.metadata);
    let value = |name: &str| operator::flag(&deployment, name).pop();
    let lease = if value("leader-elect").as_deref() == Some("false") {
        None
    } else {
        let namespace = value("leader-election-namespace").unwrap_or_else(|| key.namespace.to_string());
        let name = value("leader-election-lease-name").unwrap_or_else(|| "tokensource-operator".to_owned());
        Some((Key::new(&namespace, &name), cluster.object(Some(&namespace), &name).await))
    };
    let mut all = vec![];
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let account = pod.and_then(|pod| pod.service_account_name.as_deref()).unwrap_or("default");
    let account = (key.namespace.to_string(), account.to_owned());
    let user = format!("system:serviceaccount:{}:{}", account.0, account.1);
    let serves_issuers = value("issuers-namespace").is_some();
    let mut wanted = if serves_issuers { rights(&ISSUER_RIGHTS, None) } else { vec![] };
    if value("served-role").is_none() {
        let mut in_namespaces = vec![];
        for namespaces in operator::flag(&deployment, "namespace") {
            for namespace in namespaces.split(',') {
                in_namespaces.extend(rights(&OPERATOR_RIGHTS, Some(namespace)));
            }
        }
        if in_namespaces.is_empty() {
            in_namespaces = rights(&OPERATOR_RIGHTS, None);
        }
        wanted.extend(in_namespaces);
    }
    for right in wanted {
        let may = cluster.may(&right, Some(&user)).await;
        let is_unknown = may.is_err();
        all.push((right, may));
        if is_unknown {
            break; // the others are not, either
        }
    }
    let issuers = match serves_issuers {
        true => Some(cluster.object(None, "clustertokenissuers.tokensource.dev").await),
        false => None,
    };
    Operator { deployment, account, lease, rights: all, issuers }
}
