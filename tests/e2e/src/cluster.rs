//! The cluster as its administrator sees it: kubectl and Helm.

use std::{env, time::Duration};

use serde_json::Value;

use crate::command::{self, Result, eventually};

pub struct Cluster {
    kubectl: String,
    helm: String,
}

impl Cluster {
    pub fn of_environment() -> Result<Self> {
        Ok(Self { kubectl: env::var("KUBECTL")?, helm: env::var("HELM")? })
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let arguments = [&["--request-timeout=60s"], arguments].concat();
        Ok(command::output(&self.kubectl, &arguments, "")?.trim().to_owned())
    }

    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        command::output(&self.helm, arguments, "")
    }

    pub fn apply(&self, manifests: &str) -> Result<()> {
        command::output(&self.kubectl, &["apply", "--server-side", "-f", "-"], manifests).map(drop)
    }

    pub fn create(&self, manifests: &str) -> Result<()> {
        command::output(&self.kubectl, &["create", "-f", "-"], manifests).map(drop)
    }

    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The items of a list.
    pub fn list(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        Ok(self.get(arguments)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// A namespace in which only restricted pods are admitted.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        self.create(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    \
             pod-security.kubernetes.io/enforce: restricted\n    pod-security.kubernetes.io/enforce-version: latest\n"
        ))
    }

    /// Fails if any of them exists, so that nothing of others is measured, changed or removed.
    pub fn refuse_existing(&self, objects: &[&str]) -> Result<()> {
        let found = self.kubectl(&[&["get", "--ignore-not-found", "-o", "name"], objects].concat())?;
        if found.is_empty() {
            Ok(())
        } else {
            Err(format!("the cluster has {found}: use one without the operator").into())
        }
    }

    /// Removes what exists of them.
    pub fn remove(&self, objects: &[&str]) {
        let _ = self.kubectl(&[&["delete", "--ignore-not-found", "--wait=false"], objects].concat());
    }

    pub fn until_ready(&self, within: Duration) -> Result<()> {
        eventually("the API server", within, || self.kubectl(&["get", "--raw", "/readyz"])).map(drop)
    }

    pub fn version(&self) -> Result<String> {
        let version = self.get_raw("/version")?;
        Ok(version["gitVersion"].as_str().unwrap_or_default().to_owned())
    }

    fn get_raw(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", "--raw", path])?)?)
    }
}
