//! The operator as users run it: the chart with its defaults, two replicas.

use std::{
    collections::BTreeSet,
    env,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    command::{Result, eventually},
    issuer::Issuer,
};

pub const NAMESPACE: &str = "tokensource-system";
const RELEASE: &str = "tokensource-operator";
const CHART: &str = "charts/tokensource-operator";

/// The time that `helm install --wait` took.
pub fn install(cluster: &Cluster, issuer: &Issuer) -> Result<Duration> {
    cluster.create_namespace(NAMESPACE)?;
    let began = Instant::now();
    // The issuer has a private address and no TLS, which the operator refuses by default.
    let allow = format!("egress.allow={{{}}}", issuer.resource());
    let mut arguments =
        vec!["install", RELEASE, CHART, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
    arguments.extend(["--set", &allow, "--set", "allowHTTP=true", "--set", "promptPropagation.enabled=true"]);
    let image_values = image_values("E2E_IMAGE");
    for value in &image_values {
        arguments.extend(["--set", value]);
    }
    cluster.helm(&arguments)?;
    Ok(began.elapsed())
}

/// REGISTRY/REPOSITORY:TAG of an environment variable as values of the chart; none if it is not set.
pub fn image_values(variable: &str) -> Vec<String> {
    let image = env::var(variable).unwrap_or_default();
    let Some((registry, rest)) = image.split_once('/') else { return Vec::new() };
    let (repository, tag) = rest.rsplit_once(':').unwrap_or((rest, "latest"));
    vec![
        format!("image.registry={registry}"),
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
    ]
}

/// Changes values, which replaces the pods.
pub fn upgrade(cluster: &Cluster, values: &[String]) -> Result<()> {
    let mut arguments = vec!["upgrade", RELEASE, CHART, "--namespace", NAMESPACE, "--reuse-values", "--wait"];
    for value in values {
        arguments.extend(["--set", value]);
    }
    cluster.helm(&arguments).map(drop)
}

pub fn rollback(cluster: &Cluster) -> Result<()> {
    cluster.helm(&["rollback", RELEASE, "--namespace", NAMESPACE, "--wait"]).map(drop)
}

pub fn restart(cluster: &Cluster) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", &deployment])?;
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", &deployment, "--timeout=120s"]).map(drop)
}

pub fn uninstall(cluster: &Cluster) {
    let _ = cluster.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]);
}

/// The digest of the image that both replicas run.
pub fn image(cluster: &Cluster) -> Result<String> {
    eventually("one image", Duration::from_secs(60), || {
        let pods = pods(cluster)?;
        let digests: BTreeSet<_> =
            pods.iter().filter_map(|pod| pod["status"]["containerStatuses"][0]["imageID"].as_str()).collect();
        match (pods.len(), digests.first()) {
            (2, Some(digest)) if digests.len() == 1 && !digest.is_empty() => Ok((*digest).to_owned()),
            (pods, _) => Err(format!("{pods} pods run {digests:?}").into()),
        }
    })
}

/// The value of a metric that every replica has, of one pod.
pub fn metric(cluster: &Cluster, pod: &str, name: &str) -> Result<String> {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8080/proxy/metrics");
    let metrics = cluster.kubectl(&["get", "--raw", &path])?;
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.ok_or_else(|| format!("{pod} has no metric {name}"))?.to_owned())
}

/// Who holds the lease.
fn holder(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["-n", NAMESPACE, "get", "lease", RELEASE, "-o", "jsonpath={.spec.holderIdentity}"])
}

/// The pod that leads.
pub fn leader(cluster: &Cluster) -> Result<Value> {
    eventually("a leader", Duration::from_secs(60), || {
        let holder = holder(cluster)?;
        let mut pods = pods(cluster)?;
        pods.retain(|pod| pod["metadata"]["name"].as_str().is_some_and(|name| holder.starts_with(name)));
        pods.pop().ok_or_else(|| format!("{holder:?} is no pod").into())
    })
}

/// How long after `since` another process leads.
pub fn until_another_leads(cluster: &Cluster, former: &str, since: Instant) -> Result<Duration> {
    eventually("another leader", Duration::from_secs(90), || match holder(cluster)? {
        now if now.is_empty() || now == former => Err("the lease is still the former leader's".into()),
        _ => Ok(since.elapsed()),
    })
}

/// The identity of the process that leads.
pub fn leading_process(cluster: &Cluster) -> Result<String> {
    eventually("a leader", Duration::from_secs(60), || match holder(cluster)? {
        none if none.is_empty() => Err("nobody holds the lease".into()),
        holder => Ok(holder),
    })
}

pub fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut pods =
        cluster.list(&["-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/name=tokensource-operator"])?;
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running");
    Ok(pods)
}
