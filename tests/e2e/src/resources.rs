//! Memory and CPU of the operator's pods by the number of TokenSources, from the kubelet's cAdvisor: the working set is the usage
//! less inactive file pages, which is what evictions and `kubectl top` count.

use std::{
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::Cluster,
    command::{Result, eventually, say},
    issuer::Issuer,
    operator,
    settings::Settings,
    sources::{LONG_LIFETIME, REFRESHED_EVERY},
};

const NAMESPACE: &str = "e2e-fleet";
const CLIENT: &str = "fleet";
/// For how long memory and CPU without refreshes are measured.
const IDLE: Duration = Duration::from_secs(60);
/// How many manifests kubectl gets at once.
const BATCH: u32 = 500;

/// Of the pod that leads, with so many TokenSources.
pub struct Resources {
    pub sources: u32,
    /// Bytes: the highest of all readings, and of the replica that waits.
    pub leader: u64,
    pub follower: u64,
    /// Seconds of CPU for each first token.
    pub per_token: f64,
    /// Cores, without a refresh.
    pub idle: f64,
    /// From the creation to the last token.
    pub created_in: Duration,
}

impl Resources {
    /// Cores, with the refreshes of that lifetime.
    pub fn cores(&self) -> f64 {
        self.idle + self.per_token * f64::from(self.sources) / f64::from(REFRESHED_EVERY)
    }
}

/// Of a container: bytes, and seconds of CPU since its start.
#[derive(Clone, Copy, Default)]
struct Usage {
    memory: u64,
    cpu: f64,
}

pub fn measure(settings: &Settings, cluster: &Cluster, issuer: &Issuer) -> Result<Vec<Resources>> {
    if settings.fleets.iter().all(|&fleet| fleet == 0) {
        return Ok(Vec::new());
    }
    cluster.create_namespace(NAMESPACE)?;
    issuer.register(CLIENT, LONG_LIFETIME)?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: client, namespace: {NAMESPACE}}}\n\
         stringData: {{client_id: {CLIENT}, client_secret: secret}}\n"
    ))?;
    let (mut measured, mut present) = (Vec::new(), 0);
    for &fleet in &settings.fleets {
        say(&format!("memory and CPU with {fleet} TokenSources of {LONG_LIFETIME} s"));
        measured.push(measure_one(cluster, issuer, present, fleet)?);
        present = fleet;
    }
    let _ = cluster.kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
    Ok(measured)
}

fn measure_one(cluster: &Cluster, issuer: &Issuer, present: u32, fleet: u32) -> Result<Resources> {
    let (leader, follower) = replicas(cluster)?;
    let before = usage(cluster, &leader)?;
    let began = Instant::now();
    let mut highest = before.memory;
    for first in (present..fleet).step_by(usize::try_from(BATCH)?) {
        cluster.create(&manifests(issuer, first, fleet.min(first + BATCH)))?;
        highest = highest.max(usage(cluster, &leader)?.memory);
    }
    eventually("the first tokens", Duration::from_secs(600), || match issuer.succeeded(CLIENT)? {
        all if all >= u64::from(fleet) => Ok(()),
        some => Err(format!("{some} of {fleet}").into()),
    })?;
    let created_in = began.elapsed();
    thread::sleep(Duration::from_secs(30)); // cAdvisor reads every ten to fifteen seconds
    let created = usage(cluster, &leader)?;
    let (mut follower_memory, idle_began) = (0, Instant::now());
    let mut after = created;
    while idle_began.elapsed() < IDLE {
        thread::sleep(Duration::from_secs(15));
        after = usage(cluster, &leader)?;
        highest = highest.max(after.memory);
        follower_memory = follower_memory.max(usage(cluster, &follower)?.memory);
    }
    let idle = (after.cpu - created.cpu) / idle_began.elapsed().as_secs_f64();
    let work = created.cpu - before.cpu - idle * (began.elapsed() - idle_began.elapsed()).as_secs_f64();
    if operator::leader(cluster)?["metadata"]["name"] != leader.as_str() {
        return Err("another replica leads: the figures are of two processes".into());
    }
    Ok(Resources {
        sources: fleet,
        leader: highest.max(created.memory),
        follower: follower_memory,
        per_token: (work / f64::from(fleet - present)).max(0.0),
        idle,
        created_in,
    })
}

/// The names of the pod that leads and of the one that waits.
fn replicas(cluster: &Cluster) -> Result<(String, String)> {
    let leader = operator::leader(cluster)?["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let pods = operator::pods(cluster)?;
    let mut names = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
    let follower = names.find(|name| *name != leader).ok_or("there is no second replica")?.to_owned();
    Ok((leader, follower))
}

fn manifests(issuer: &Issuer, first: u32, end: u32) -> String {
    let mut text = String::new();
    for number in first..end {
        let _ = write!(
            text,
            r#"
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {{name: source-{number}, namespace: {NAMESPACE}}}
spec:
  provider: {{oauth2: {{tokenURL: "{url}"}}}}
  credentials: {{secretRef: {{name: client}}}}
  target: {{name: token-{number}}}
---
"#,
            url = issuer.token_url(),
        );
    }
    text
}

/// Of the operator's container in a pod.
fn usage(cluster: &Cluster, pod: &str) -> Result<Usage> {
    eventually("cAdvisor's figures", Duration::from_secs(60), || {
        let node = cluster.kubectl(&[
            "-n",
            operator::NAMESPACE,
            "get",
            "pod",
            pod,
            "-o",
            "jsonpath={.spec.nodeName}",
        ])?;
        let text =
            cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/cadvisor")])?;
        let value = |metric: &str| series(&text, metric, pod);
        let memory = value("container_memory_working_set_bytes").ok_or("no memory")?;
        let cpu = value("container_cpu_usage_seconds_total").ok_or("no CPU")?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // bytes
        Ok(Usage { memory: memory as u64, cpu })
    })
}

/// The latest value of a pod's first container, which is not the pause container.
fn series(text: &str, metric: &str, pod: &str) -> Option<f64> {
    let (pod, paused) = (format!("pod=\"{pod}\""), "container=\"\"");
    let lines =
        text.lines().filter(|line| line.starts_with(metric) && line.contains(&pod) && !line.contains(paused));
    // A killed container's series remains for a while: the last has the latest time.
    let value_and_time = lines.filter_map(|line| {
        let mut words = line.rsplit(' ');
        let time: i64 = words.next()?.parse().ok()?;
        Some((time, words.next()?.parse().ok()?))
    });
    value_and_time.max_by_key(|(time, _)| *time).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The members of a series differ between version 1 of cgroups and version 2 with systemd, not what is read.
    #[test]
    fn usage_of_a_pod_is_read_from_both_versions_of_cgroups() {
        for (paused, operator) in [
            ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1/c2"),
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-c2.scope",
            ),
        ] {
            let line = |metric: &str, container: &str, id: &str, pod: &str, value_and_time: &str| {
                format!(
                    "{metric}{{container=\"{container}\",id=\"{id}\",image=\"i\",name=\"n\",namespace=\"tokensource-system\",\
                     pod=\"{pod}\"}} {value_and_time}\n"
                )
            };
            let memory = "container_memory_working_set_bytes";
            let text = [
                format!(
                    "# HELP {memory} Current working set of the container in bytes\n# TYPE {memory} gauge\n"
                ),
                line(memory, "", paused, "operator-1", "9e+06 1796000000300"),
                line(memory, "operator", operator, "operator-1", "1.2345344e+07 1796000000200"),
                line(memory, "operator", "killed", "operator-1", "7e+06 1796000000100"),
                line(memory, "operator", "other", "operator-12", "8e+06 1796000000400"),
            ]
            .concat();
            assert_eq!(series(&text, memory, "operator-1"), Some(12_345_344.0));
            assert_eq!(series(&text, memory, "operator"), None);
        }
    }
}
