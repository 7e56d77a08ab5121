//! The RoleBinding by which a namespace grants the operator its rights, where these are granted by namespace.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

/// The name of the RoleBinding in each namespace.
const NAME: &str = "tokensource-operator";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Which rights are granted to which ServiceAccount.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The name of the ClusterRole with the rights that the operator has in a namespace.
    pub role: String,
    /// The operator's ServiceAccount.
    pub account: ServiceAccountName,
}

/// The namespace and name of a ServiceAccount, as kubectl writes them: `NAMESPACE:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountName {
    namespace: String,
    name: String,
}

/// The text is no ServiceAccount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write NAMESPACE:NAME, for example tokensource-system:tokensource-operator")]
pub struct ServiceAccountNameError;

impl FromStr for ServiceAccountName {
    type Err = ServiceAccountNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = |it: &str| {
            !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        };
        let (namespace, name) = text.split_once(':').ok_or(ServiceAccountNameError)?;
        if !is_name(namespace) || !is_name(name) {
            return Err(ServiceAccountNameError);
        }
        Ok(ServiceAccountName { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl fmt::Display for ServiceAccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.namespace, self.name)
    }
}

impl Grant {
    /// The command that grants the rights in a namespace.
    #[must_use]
    pub fn command(&self, namespace: &str) -> String {
        let Grant { role, account } = self;
        format!(
            "kubectl -n {namespace} create rolebinding {NAME} --clusterrole={role} --serviceaccount={account}"
        )
    }

    /// The RoleBinding that grants the rights in a namespace.
    #[must_use]
    pub fn manifest(&self, namespace: &str) -> Value {
        let ServiceAccountName { namespace: of, name } = &self.account;
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": self.role},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": of}],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_account_name_without_both_parts_is_refused() {
        let account = ServiceAccountName::from_str("system:operator").unwrap();
        assert_eq!(account.to_string(), "system:operator");
        for wrong in ["operator", ":operator", "system:", "a:b:c", "a b:c", "a:b;c"] {
            assert_eq!(ServiceAccountName::from_str(wrong), Err(ServiceAccountNameError), "{wrong}");
        }
    }
}
