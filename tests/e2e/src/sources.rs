//! TokenSources of every lifetime, in both ways of propagation, each with two pods that read its token.

use std::{env, fmt, time::Duration};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    command::{Result, eventually, say},
    issuer::Issuer,
    settings::Settings,
};

pub const NAMESPACE: &str = "e2e";
const READERS: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Periodic,
    Prompt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// In seconds.
    pub lifetime: u32,
    pub propagation: Propagation,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s {:?}", self.lifetime, self.propagation)
    }
}

impl Source {
    pub fn name(self) -> String {
        format!("{:?}-{}", self.propagation, self.lifetime).to_lowercase()
    }

    /// The least life that is left in a mounted file, in seconds: docs/how-it-decides.md. Not positive: nothing is promised.
    pub fn least_life(self) -> i64 {
        let (lifetime, delay) = (i64::from(self.lifetime), self.delay());
        let reserve = (lifetime / 3).max((lifetime - 30).max(lifetime / 2).min(delay + 60));
        reserve - delay
    }

    /// The longest outage of the issuer without effect on readers, in seconds; not positive: none.
    pub fn longest_outage(self) -> i64 {
        self.least_life() - 10
    }

    /// How much the mounted file is behind the Secret at most, in seconds.
    fn delay(self) -> i64 {
        match self.propagation {
            Propagation::Periodic => 90,
            Propagation::Prompt => 15,
        }
    }
}

/// Creates them, and returns when every reader has its token.
pub fn create(cluster: &Cluster, settings: &Settings, issuer: &Issuer) -> Result<Vec<Source>> {
    cluster.create_namespace(NAMESPACE)?;
    let modes = [Propagation::Periodic, Propagation::Prompt];
    let sources: Vec<Source> = modes
        .into_iter()
        .flat_map(|propagation| {
            settings.lifetimes.iter().map(move |&lifetime| Source { lifetime, propagation })
        })
        .collect();
    let mut manifests = String::new();
    for source in &sources {
        issuer.register(&source.name(), source.lifetime)?;
        manifests.push_str(&token_source(*source, issuer));
        let (name, resource) = (&source.name(), issuer.resource());
        manifests.push_str(&readers(&Reader { name, replicas: READERS, resource, path: "/resource" }));
    }
    cluster.apply(&manifests)?;
    say(&format!("{} TokenSources with {READERS} readers each are created", sources.len()));
    cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=condition=Ready",
        "tokensources",
        "--all",
        "--timeout=120s",
    ])?;
    let wait =
        ["-n", NAMESPACE, "wait", "--for=condition=Available", "deployments", "--all", "--timeout=55s"];
    eventually("the readers", Duration::from_secs(300), || cluster.kubectl(&wait))?;
    Ok(sources)
}

fn token_source(source: Source, issuer: &Issuer) -> String {
    format!(
        r#"
apiVersion: v1
kind: Secret
metadata: {{name: {name}-client, namespace: {NAMESPACE}}}
stringData: {{client_id: {name}, client_secret: secret}}
---
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  provider: {{oauth2: {{tokenURL: "{url}"}}}}
  credentials: {{secretRef: {{name: {name}-client}}}}
  target: {{name: {name}-token, propagation: {propagation:?}}}
---
"#,
        name = source.name(),
        url = issuer.token_url(),
        propagation = source.propagation,
    )
}

/// Pods that read the token of a TokenSource.
pub struct Reader<'a> {
    /// Of the TokenSource.
    pub name: &'a str,
    pub replicas: u32,
    /// Address and port of the resource server that they call, and the path there.
    pub resource: &'a str,
    pub path: &'a str,
}

/// As docs/use-the-token.md mounts it.
pub fn readers(Reader { name, replicas, resource, path }: &Reader<'_>) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{source: {name}}}}}
  template:
    metadata: {{labels: {{source: {name}}}}}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      dnsPolicy: Default
      terminationGracePeriodSeconds: 0
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: reader
          image: {image}
          args: [read]
          env:
            - {{name: TOKEN_FILE, value: /var/run/secrets/token/access_token}}
            - {{name: RESOURCE, value: "{resource}"}}
            - {{name: RESOURCE_PATH, value: "{path}"}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts: [{{name: token, mountPath: /var/run/secrets/token, readOnly: true}}]
      volumes:
        - name: token
          secret: {{secretName: {name}-token, defaultMode: 288}}
---
"#,
        image = env::var("E2E_READER_IMAGE").unwrap_or_else(|_| "localhost/tokensource-e2e:1".to_owned()),
    )
}

/// The TokenSource as it is.
pub fn get(cluster: &Cluster, source: Source) -> Result<Value> {
    cluster.get(&["-n", NAMESPACE, "tokensource", &source.name()])
}

/// Of each, status and reason of the condition that says whether readers are safe.
pub fn propagation_safe(cluster: &Cluster, sources: &[Source]) -> Result<Vec<String>> {
    let of = |source: &Value| {
        let found = condition(source, "PropagationSafe");
        let member = |name: &str| found.and_then(|condition| condition[name].as_str()).unwrap_or("none");
        format!("{}, `{}`", member("status"), member("reason"))
    };
    sources.iter().map(|&source| Ok(of(&get(cluster, source)?))).collect()
}

/// A condition of a TokenSource, if it has it.
pub fn condition<'a>(source: &'a Value, kind: &str) -> Option<&'a Value> {
    source["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_equal_the_table_of_how_it_decides() {
        let rows = [
            (60, Propagation::Periodic, -60, -70),
            (60, Propagation::Prompt, 15, 5),
            (150, Propagation::Periodic, 30, 20),
            (300, Propagation::Periodic, 60, 50),
            (300, Propagation::Prompt, 85, 75),
            (1800, Propagation::Periodic, 510, 500),
        ];
        for (lifetime, propagation, least_life, outage) in rows {
            let source = Source { lifetime, propagation };
            assert_eq!((source.least_life(), source.longest_outage()), (least_life, outage), "{source}");
        }
    }
}
