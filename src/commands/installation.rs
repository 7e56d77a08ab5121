//! Where the operator is installed, as far as the user may read it. A tenant can create a Deployment with the chart's labels, whose
//! flags would decide where `mint` sends credentials. So an operator is found only by cluster-scoped objects, which no tenant
//! writes, or in the namespace that the user names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::Args;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;

use super::operator::flag;
use crate::cluster::{CallError, UserCluster};
use crate::key::Key;

/// The label of all objects of the chart.
pub(crate) const PART_OF: &str = "app.kubernetes.io/part-of=tokensource-operator";
/// The label of the bindings that the Operator Lifecycle Manager makes for its packages. Who can have it make some has the rights
/// of its packages.
const OF_LIFECYCLE_MANAGER: &str = "olm.owner.kind=ClusterServiceVersion";
/// The label with the name of the package's version.
const PACKAGE_LABEL: &str = "olm.owner";
/// How the names of this package's versions begin.
const PACKAGE: &str = "tokensource-operator.v";
/// How the admission policy compares the user whom it judges.
const POLICY_USER: &str = "request.userInfo.username == 'system:serviceaccount:";

/// Where the operator is.
#[derive(Clone, Debug, Default, Args)]
pub struct InstallationArgs {
    /// The operator's namespace. By default it is that of the ServiceAccount which the ClusterRoleBinding and
    /// ValidatingAdmissionPolicy of the chart, or the bindings of the Operator Lifecycle Manager, name.
    #[arg(long, value_name = "NAMESPACE", env = "TOKENSOURCE_OPERATOR_NAMESPACE")]
    pub operator_namespace: Option<String>,
}

/// The operator cannot be found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallationError {
    #[error("the operator's Deployment cannot be read: {0}")]
    Unread(#[source] CallError),
    #[error("where the operator is cannot be read ({0}): say it with --operator-namespace")]
    Unlocated(#[source] CallError),
    #[error(
        "no ClusterRoleBinding and no ValidatingAdmissionPolicy with the label {PART_OF}, or of the Operator Lifecycle Manager, names the operator's ServiceAccount: say with --operator-namespace where the operator is"
    )]
    NotFound,
    #[error("there is no Deployment of the operator, with the label {PART_OF}, in namespace {0}")]
    NoDeployment(String),
    #[error("no operator serves namespace {0}: if there is another one, say with --operator-namespace where")]
    NotServed(String),
    #[error("{} operators serve namespace {namespace} ({}): say with --operator-namespace which one counts", .all.len(), .all.join(", "))]
    Ambiguous { namespace: String, all: Vec<String> },
}

/// A Deployment of the operator, and how it was found.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    pub(crate) deployment: Deployment,
    found_by: FoundBy,
}

/// By what an operator was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FoundBy {
    /// The user names its namespace.
    Flag,
    /// A cluster-scoped object names its ServiceAccount.
    Object { kind: &'static str, name: String },
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deployment {}, found by ", Key::of(&self.deployment.metadata))?;
        match &self.found_by {
            FoundBy::Flag => f.write_str("--operator-namespace"),
            FoundBy::Object { kind, name } => write!(f, "{kind} {name}"),
        }
    }
}

/// ServiceAccounts, with what names them.
type Accounts = BTreeMap<Account, FoundBy>;

/// Namespace and name of a ServiceAccount.
pub(crate) type Account = (String, String);

/// All operators of the cluster, or those in the namespace that the user names.
pub(crate) async fn installations(
    cluster: &UserCluster,
    arguments: &InstallationArgs,
) -> Result<Vec<Installation>, InstallationError> {
    if let Some(namespace) = &arguments.operator_namespace {
        let found = cluster.objects::<Deployment>(Some(namespace), Some(PART_OF)).await;
        let found = found.map_err(InstallationError::Unread)?.into_iter();
        let found: Vec<_> =
            found.map(|deployment| Installation { deployment, found_by: FoundBy::Flag }).collect();
        return if found.is_empty() {
            Err(InstallationError::NoDeployment(namespace.clone()))
        } else {
            Ok(found)
        };
    }
    let accounts = accounts(cluster).await?;
    let namespaces: BTreeSet<&str> = accounts.keys().map(|(namespace, _)| namespace.as_str()).collect();
    let mut all = vec![];
    for namespace in &namespaces {
        let found = cluster.objects::<Deployment>(Some(namespace), Some(PART_OF)).await;
        all.extend(found.map_err(InstallationError::Unread)?);
    }
    let found: Vec<_> =
        all.into_iter().filter_map(|deployment| installation(deployment, &accounts)).collect();
    if found.is_empty() {
        let namespaces = namespaces.into_iter().collect::<Vec<_>>().join(", ");
        return Err(InstallationError::NoDeployment(namespaces));
    }
    Ok(found)
}

/// The operator that serves a namespace.
pub(crate) async fn of_namespace(
    cluster: &UserCluster,
    namespace: &str,
    arguments: &InstallationArgs,
) -> Result<Installation, InstallationError> {
    serving(installations(cluster, arguments).await?, namespace)
}

/// The ServiceAccounts of operators, by the objects of the chart that tenants cannot write. Where only one kind may be read, that
/// is enough.
async fn accounts(cluster: &UserCluster) -> Result<Accounts, InstallationError> {
    let mut accounts = Accounts::new();
    let mut unread = None;
    match cluster.objects::<ValidatingAdmissionPolicy>(None, Some(PART_OF)).await {
        Ok(policies) => accounts.extend(policies.iter().filter_map(found_by_policy)),
        // Kubernetes before 1.30 does not know the kind.
        Err(CallError::NotFound) => {}
        Err(error) => unread = Some(error),
    }
    for labels in [PART_OF, OF_LIFECYCLE_MANAGER] {
        match cluster.objects::<ClusterRoleBinding>(None, Some(labels)).await {
            Ok(bindings) => {
                let ours = bindings.iter().filter(|it| labels == PART_OF || is_of_package(it));
                accounts.extend(ours.flat_map(accounts_of_binding));
            }
            Err(error) => unread = Some(error),
        }
    }
    match (accounts.is_empty(), unread) {
        (true, Some(error)) => Err(InstallationError::Unlocated(error)),
        (true, None) => Err(InstallationError::NotFound),
        (false, _) => Ok(accounts),
    }
}

/// Whether the Operator Lifecycle Manager made it for this operator.
fn is_of_package(binding: &ClusterRoleBinding) -> bool {
    let package = binding.metadata.labels.as_ref().and_then(|labels| labels.get(PACKAGE_LABEL));
    package.is_some_and(|package| package.starts_with(PACKAGE))
}

fn accounts_of_binding(binding: &ClusterRoleBinding) -> impl Iterator<Item = (Account, FoundBy)> {
    let subjects = binding.subjects.iter().flatten().filter(|subject| subject.kind == "ServiceAccount");
    subjects.filter_map(|subject| {
        let name = binding.metadata.name.clone().unwrap_or_default();
        let account = (subject.namespace.clone()?, subject.name.clone());
        Some((account, FoundBy::Object { kind: "ClusterRoleBinding", name }))
    })
}

/// The ServiceAccount that a policy is about, and what it is found by.
fn found_by_policy(policy: &ValidatingAdmissionPolicy) -> Option<(Account, FoundBy)> {
    let name = policy.metadata.name.clone().unwrap_or_default();
    Some((account_of_policy(policy)?, FoundBy::Object { kind: "ValidatingAdmissionPolicy", name }))
}

/// The ServiceAccount whose changes a policy of the chart judges.
pub(crate) fn account_of_policy(policy: &ValidatingAdmissionPolicy) -> Option<Account> {
    let mut conditions = policy.spec.as_ref()?.match_conditions.iter().flatten();
    let (namespace, account) = conditions.find_map(|condition| {
        condition.expression.strip_prefix(POLICY_USER)?.strip_suffix('\'')?.split_once(':')
    })?;
    Some((namespace.to_owned(), account.to_owned()))
}

/// A Deployment that runs as one of these accounts.
fn installation(deployment: Deployment, accounts: &Accounts) -> Option<Installation> {
    let namespace = deployment.metadata.namespace.clone()?;
    let account = deployment.spec.as_ref()?.template.spec.as_ref()?.service_account_name.clone()?;
    let found_by = accounts.get(&(namespace, account))?.clone();
    Some(Installation { deployment, found_by })
}

/// Of several operators, the one that serves a namespace: one for it, else one for all.
fn serving(all: Vec<Installation>, namespace: &str) -> Result<Installation, InstallationError> {
    let scope = |installation: &Installation| -> Vec<String> {
        let values = flag(&installation.deployment, "namespace");
        values.iter().flat_map(|value| value.split(',')).map(str::to_owned).collect()
    };
    let (mut own, mut for_all) = (vec![], vec![]);
    for installation in all {
        match scope(&installation) {
            scope if scope.is_empty() => for_all.push(installation),
            scope if scope.iter().any(|served| served == namespace) => own.push(installation),
            _ => {}
        }
    }
    let mut serving = if own.is_empty() { for_all } else { own };
    if serving.len() > 1 {
        let all = serving.iter().map(|it| Key::of(&it.deployment.metadata).to_string()).collect();
        return Err(InstallationError::Ambiguous { namespace: namespace.to_owned(), all });
    }
    serving.pop().ok_or_else(|| InstallationError::NotServed(namespace.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn deployment(namespace: &str, account: &str, arguments: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "o", "namespace": namespace},
            "spec": {"selector": {}, "template": {"spec": {"serviceAccountName": account, "containers": [
                {"name": "operator", "args": arguments},
            ]}}},
        }))
        .unwrap()
    }

    /// The objects of a kind in the manifest that the chart makes.
    fn manifest<K: DeserializeOwned>(kind: &str) -> Vec<K> {
        let all: Vec<Value> = serde_saphyr::from_multiple(include_str!("../../deploy/install.yaml")).unwrap();
        let of_kind = all.into_iter().filter(|object| object["kind"] == kind);
        of_kind.map(|object| serde_json::from_value(object).unwrap()).collect()
    }

    #[test]
    fn operator_of_the_chart_is_found_by_its_binding_and_by_its_policy() {
        let expected = ("tokensource-system".to_owned(), "tokensource-operator".to_owned());
        let bindings = manifest::<ClusterRoleBinding>("ClusterRoleBinding");
        let policies = manifest::<ValidatingAdmissionPolicy>("ValidatingAdmissionPolicy");
        let by_bindings: Accounts = bindings.iter().flat_map(accounts_of_binding).collect();
        let by_policies: Accounts = policies.iter().filter_map(found_by_policy).collect();
        for accounts in [by_bindings, by_policies] {
            assert_eq!(accounts.keys().collect::<Vec<_>>(), [&expected]);
            let mut found = manifest("Deployment").into_iter().filter_map(|it| installation(it, &accounts));
            let said = found.next().unwrap().to_string();
            assert!(
                said.starts_with("Deployment tokensource-system/tokensource-operator, found by "),
                "{said}"
            );
        }
    }

    #[test]
    fn operator_of_the_lifecycle_manager_is_found_by_the_binding_that_it_makes_for_this_package_alone() {
        let bundle =
            include_str!("../../deploy/olm/manifests/tokensource-operator.clusterserviceversion.yaml");
        let version: Value = serde_saphyr::from_str(bundle).unwrap();
        let install = &version["spec"]["install"]["spec"];
        let (key, value) = PART_OF.split_once('=').unwrap();
        assert_eq!(
            install["deployments"][0]["label"][key], value,
            "the label that Deployments are listed by"
        );
        let binding = |package: &Value| -> ClusterRoleBinding {
            let account = &install["clusterPermissions"][0]["serviceAccountName"];
            serde_json::from_value(json!({
                "metadata": {"name": "b", "labels": {"olm.owner": package, "olm.owner.kind": "ClusterServiceVersion"}},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "operators"}],
            }))
            .unwrap()
        };
        let ours = binding(&version["metadata"]["name"]);
        assert!(is_of_package(&ours) && !is_of_package(&binding(&json!("tokensource-viewer.v1.0.0"))));
        let mut made = install["deployments"][0].clone();
        made["metadata"] = json!({"name": made["name"], "namespace": "operators"});
        let accounts: Accounts = accounts_of_binding(&ours).collect();
        assert!(installation(serde_json::from_value(made).unwrap(), &accounts).is_some());
    }

    #[test]
    fn deployment_of_a_tenant_is_no_operator_whatever_its_labels_and_account_are() {
        let binding: ClusterRoleBinding = serde_json::from_value(json!({
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
            "subjects": [
                {"kind": "ServiceAccount", "name": "operator", "namespace": "platform"},
                {"kind": "User", "name": "operator", "namespace": "team"},
            ],
        }))
        .unwrap();
        let accounts: Accounts = accounts_of_binding(&binding).collect();
        let found = |namespace, account| {
            installation(deployment(namespace, account, json!(["run"])), &accounts).is_some()
        };
        assert!(found("platform", "operator"));
        assert!(!found("team", "operator") && !found("platform", "default"));
    }

    #[test]
    fn operator_of_a_namespace_is_one_for_it_or_one_for_all_and_never_a_guess() {
        let found = |at: &str, arguments: Value| Installation {
            deployment: deployment(at, "o", arguments),
            found_by: FoundBy::Flag,
        };
        let all = found("all", json!(["run"]));
        let one = found("one", json!(["run", "--namespace=a,b", "--namespace=c"]));
        let of = |operators: &[&Installation], namespace: &str| match serving(
            operators.iter().map(|it| (*it).clone()).collect(),
            namespace,
        ) {
            Ok(found) => found.deployment.metadata.namespace.unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!([of(&[&all, &one], "b"), of(&[&all, &one], "x")], ["one", "all"]);
        assert!(of(&[&one], "x").starts_with("no operator serves namespace x: "));
        let said = of(&[&all, &found("other", json!(["run"])), &one], "x");
        assert!(said.starts_with("2 operators serve namespace x (all/o, other/o): "), "{said}");
    }
}
