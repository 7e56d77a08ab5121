//! TokenSources of every lifetime, in both ways of propagation, and the pods that read their tokens.

use std::{collections::BTreeSet, env, fmt, thread, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    cluster::Cluster,
    command::{Result, eventually, now, say},
    issuer::Issuer,
};

pub const NAMESPACE: &str = "e2e";
/// A lifetime, in seconds, with more time between two refreshes than a phase lasts.
pub const LONG_LIFETIME: u32 = 1800;
/// How often such a token is refreshed on average, in seconds: after 1,200 s, and up to 10 % earlier.
pub const REFRESHED_EVERY: u32 = 1140;
/// The TokenSources of that lifetime. Their refreshes are staggered, so that some are refreshed in each phase.
const STAGGERED: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Periodic,
    Prompt,
}

/// What the TokenSources have in common that are one row of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// In seconds.
    pub lifetime: u32,
    pub propagation: Propagation,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s {:?}", self.lifetime, self.propagation)
    }
}

impl Kind {
    /// Of each TokenSource.
    pub fn names(self) -> Vec<String> {
        let name = format!("{:?}-{}", self.propagation, self.lifetime).to_lowercase();
        match self.count() {
            1 => vec![name],
            count => (0..count).map(|number| format!("{name}-{number}")).collect(),
        }
    }

    fn count(self) -> u32 {
        if self.lifetime < LONG_LIFETIME { 1 } else { STAGGERED }
    }

    /// The pods of each TokenSource.
    fn readers_each(self) -> u32 {
        if self.count() == 1 { 2 } else { 1 }
    }

    /// The pods of all.
    pub fn readers(self) -> usize {
        (self.count() * self.readers_each()) as usize
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

pub fn kinds(lifetimes: &[u32]) -> Vec<Kind> {
    let modes = [Propagation::Periodic, Propagation::Prompt];
    let of = |propagation| lifetimes.iter().map(move |&lifetime| Kind { lifetime, propagation });
    modes.into_iter().flat_map(of).collect()
}

/// Creates the TokenSources, and returns when every reader has its token.
pub fn create(cluster: &Cluster, kinds: &[Kind], issuer: &Issuer) -> Result<()> {
    cluster.create_namespace(NAMESPACE)?;
    let (mut manifests, mut sources, mut pods) = (String::new(), 0, 0);
    for kind in kinds {
        for name in &kind.names() {
            issuer.register(name, kind.lifetime)?;
            manifests.push_str(&token_source(*kind, name, issuer));
            let (replicas, resource) = (kind.readers_each(), issuer.resource());
            manifests.push_str(&readers(&Reader { name, replicas, resource, path: "/resource" }));
            sources += 1;
            pods += replicas;
        }
    }
    cluster.apply(&manifests)?;
    say(&format!("{sources} TokenSources with {pods} readers are created"));
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
    eventually("the readers", Duration::from_secs(300), || cluster.kubectl(&wait)).map(drop)
}

fn token_source(kind: Kind, name: &str, issuer: &Issuer) -> String {
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
        url = issuer.token_url(),
        propagation = kind.propagation,
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

/// Requests refreshes of TokenSources of one kind at even distances over the time in which each is refreshed once. Says what was
/// done, if there is more than one TokenSource of a kind.
pub fn stagger(cluster: &Cluster, kinds: &[Kind]) -> Result<Option<String>> {
    let kinds: Vec<&Kind> = kinds.iter().filter(|kind| kind.count() > 1).collect();
    let Some(first) = kinds.first() else { return Ok(None) };
    // The first of each kind are refreshed when they are due.
    let began = token_time(cluster, &first.names()[0], "issuedAt")?.as_millisecond();
    for number in 1..STAGGERED {
        let at = began + i64::from(number * spacing()) * 1000;
        thread::sleep(Duration::from_millis(u64::try_from(at - now()).unwrap_or_default()));
        for kind in &kinds {
            request_refresh(cluster, &kind.names()[number as usize], "staggered")?;
        }
        say(&format!("refreshes of {number} of {} TokenSources of a kind were requested", STAGGERED - 1));
    }
    Ok(Some(format!("refreshes of tokens of {LONG_LIFETIME} s were requested, one every {} s", spacing())))
}

/// Between the refreshes of two TokenSources of one kind, in seconds.
fn spacing() -> u32 {
    REFRESHED_EVERY / STAGGERED
}

pub fn request_refresh(cluster: &Cluster, name: &str, value: &str) -> Result<()> {
    let annotation = format!("tokensource.dev/refresh-requested-at={value}");
    cluster.kubectl(&["-n", NAMESPACE, "annotate", "--overwrite", "tokensource", name, &annotation]).map(drop)
}

/// The TokenSource as it is.
fn get(cluster: &Cluster, name: &str) -> Result<Value> {
    cluster.get(&["-n", NAMESPACE, "tokensource", name])
}

/// A time that the status says about the token.
pub fn token_time(cluster: &Cluster, name: &str, member: &str) -> Result<Timestamp> {
    let source = get(cluster, name)?;
    Ok(source["status"]["token"][member].as_str().unwrap_or_default().parse()?)
}

/// Of each kind, status and reason of the condition that says whether readers are safe.
pub fn propagation_safe(cluster: &Cluster, kinds: &[Kind]) -> Result<Vec<String>> {
    let of = |source: &Value| {
        let found = condition(source, "PropagationSafe");
        let member = |name: &str| found.and_then(|condition| condition[name].as_str()).unwrap_or("none");
        format!("{}, `{}`", member("status"), member("reason"))
    };
    let of_kind = |kind: &Kind| {
        let conditions =
            kind.names().iter().map(|name| Ok(of(&get(cluster, name)?))).collect::<Result<BTreeSet<_>>>()?;
        Ok(conditions.into_iter().collect::<Vec<_>>().join("; "))
    };
    kinds.iter().map(of_kind).collect()
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
            (1800, Propagation::Prompt, 585, 575),
        ];
        for (lifetime, propagation, least_life, outage) in rows {
            let kind = Kind { lifetime, propagation };
            assert_eq!((kind.least_life(), kind.longest_outage()), (least_life, outage), "{kind}");
        }
    }

    #[test]
    fn staggered_tokens_are_refreshed_at_even_distances_before_they_are_due() {
        let kinds = kinds(&[60, 150, 300, LONG_LIFETIME]);
        let names: BTreeSet<String> = kinds.iter().flat_map(|kind| kind.names()).collect();
        assert_eq!(names.len(), 2 * (3 + STAGGERED as usize));
        assert!(names.contains("periodic-60") && names.contains("prompt-1800-9"), "{names:?}");
        // The earliest refresh is after 1,080 s; a phase of 200 s sees one, also if jitter makes another earlier.
        assert!((STAGGERED - 1) * spacing() < 1080 && STAGGERED * spacing() == REFRESHED_EVERY);
        assert!(spacing() + 60 < 200, "{} s", spacing());
    }
}
