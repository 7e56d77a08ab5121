//! What the operator requires of TokenSources with a provider of their own, by the flags of its Deployment.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use tokensource_api::TokenSource;

use super::fault::Fault;
use crate::commands::operator::has_switch;
use crate::key::Key;
use crate::secret::{Facts, not_released};
use crate::spec::IssuerError;

/// Nothing, where the Deployment may not be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requirements {
    /// They must name a ClusterTokenIssuer instead (`--require-issuer`).
    issuer: bool,
    /// Their Secrets must be released for use (`--require-credentials-label`).
    label: bool,
}

impl Requirements {
    pub(super) fn of(deployment: Option<&Deployment>) -> Self {
        let Some(deployment) = deployment else { return Requirements::default() };
        Requirements {
            issuer: has_switch(deployment, "require-issuer"),
            label: has_switch(deployment, "require-credentials-label"),
        }
    }

    pub(super) fn check_source(self, source: &TokenSource) -> Result<(), Fault> {
        if !self.issuer || source.spec.issuer_ref.is_some() {
            return Ok(());
        }
        Err(Fault::told(IssuerError::Required.reason(), IssuerError::Required.to_string()))
    }

    /// Checks a Secret of the TokenSource's namespace that it names as credentials or in `spec.tls`.
    pub(super) fn check_secret(self, secret: &Secret, namespace: &str) -> Result<(), Fault> {
        if !self.label || Facts::of(&secret.metadata).is_none_or(|facts| facts.released) {
            return Ok(());
        }
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        Err(Fault::credentials(not_released(&Key::new(namespace, name))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::mint::fault::Exit;

    /// Of an operator with these arguments.
    fn requirements(arguments: &[&str]) -> Requirements {
        let deployment = json!({
            "metadata": {"name": "o", "namespace": "s"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "operator", "args": arguments}]}}},
        });
        Requirements::of(Some(&serde_json::from_value(deployment).unwrap()))
    }

    #[test]
    fn secret_without_the_label_is_a_fault_where_the_operator_requires_it() {
        let secret = |label: &str| -> Secret {
            let labels = json!({"tokensource.dev/credentials": label});
            let metadata = json!({"name": "client", "uid": "u", "resourceVersion": "1", "labels": labels});
            serde_json::from_value(json!({"metadata": metadata})).unwrap()
        };
        let (released, other) = (secret("true"), secret("false"));
        let requires = requirements(&["run", "--require-credentials-label"]);
        let fault = requires.check_secret(&other, "payments").unwrap_err();
        let expected = "Secret client is not labelled tokensource.dev/credentials=true, and this operator uses no other Secrets (--require-credentials-label): kubectl label secret client -n payments tokensource.dev/credentials=true";
        assert_eq!((fault.exit, fault.message.as_str()), (Exit::Credentials, expected));
        requires.check_secret(&released, "payments").unwrap();
        for any in [requirements(&["run"]), Requirements::of(None)] {
            any.check_secret(&other, "payments").unwrap();
        }
    }

    #[test]
    fn source_without_an_issuer_is_a_fault_where_the_operator_requires_one() {
        let source = |spec: serde_json::Value| -> TokenSource {
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
        };
        let (own, lent) =
            (source(json!({"provider": {"vgs": {}}})), source(json!({"issuerRef": {"name": "idp"}})));
        let requires = requirements(&["run", "--issuers-namespace=s", "--require-issuer"]);
        let fault = requires.check_source(&own).unwrap_err();
        assert_eq!((fault.exit, fault.reason), (Exit::Configuration, Some(IssuerError::Required.reason())));
        assert!(fault.message.contains("--require-issuer"), "{}", fault.message);
        requires.check_source(&lent).unwrap();
        requirements(&["run", "--issuers-namespace=s"]).check_source(&own).unwrap();
    }
}
