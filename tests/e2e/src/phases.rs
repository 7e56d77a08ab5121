//! The disturbances, one after the other, and when each began and ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{
    cluster::Cluster,
    command::{Result, eventually, now, say},
    issuer::Issuer,
    node::{self, Node},
    operator,
    settings::Settings,
    sources::{self, Source},
};

/// How long the leader's node is gone: longer than the lease.
const NODE_GONE: Duration = Duration::from_secs(50);
/// What a new token needs to reach every pod.
const SYNC: Duration = Duration::from_secs(90);

/// A phase with the time in which it was, in milliseconds since 1970.
pub struct Window {
    pub phase: Phase,
    pub began: i64,
    pub ended: i64,
    /// What was done, with what was measured; what failed, if it could not be done.
    pub note: String,
    pub failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Steady,
    Restart,
    LeaderKilled,
    NodeGone,
    Upgrade,
    IssuerOutage,
    ControlPlane,
    Kubelet,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Steady,
        Self::Restart,
        Self::LeaderKilled,
        Self::NodeGone,
        Self::Upgrade,
        Self::IssuerOutage,
        Self::ControlPlane,
        Self::Kubelet,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Restart => "restart",
            Self::LeaderKilled => "leader-killed",
            Self::NodeGone => "node-gone",
            Self::Upgrade => "upgrade",
            Self::IssuerOutage => "issuer-outage",
            Self::ControlPlane => "control-plane",
            Self::Kubelet => "kubelet",
        }
    }

    /// Whether it needs the node of `hack/node.sh`.
    fn needs_node(self) -> bool {
        matches!(self, Self::NodeGone | Self::ControlPlane | Self::Kubelet)
    }
}

pub fn run(
    settings: &Settings,
    cluster: &Cluster,
    node: Option<&Node>,
    issuer: &Issuer,
    sources: &[Source],
) -> Vec<Window> {
    let mut windows = Vec::new();
    let wanted =
        |phase: &Phase| settings.only.is_empty() || settings.only.iter().any(|name| name == phase.name());
    let phases: Vec<Phase> = Phase::ALL.into_iter().filter(wanted).collect();
    for (number, &phase) in phases.iter().enumerate() {
        let title = format!("phase {} of {}, {}", number + 1, phases.len(), phase.name());
        if phase.needs_node() && node.is_none() {
            say(&format!("{title}: left out, it needs a node of its own"));
            continue;
        }
        say(&format!("{title}: {} s", settings.phase.as_secs()));
        let (began, start) = (now(), Instant::now());
        // The other phases are measured nevertheless.
        let done = disturb(phase, cluster, node, issuer, sources);
        let failed = done.is_err();
        let note = done.unwrap_or_else(|error| format!("FAILED: {error}"));
        say(&format!("{title}: {note}"));
        while start.elapsed() < settings.phase {
            let left = settings.phase.saturating_sub(start.elapsed());
            thread::sleep(left.min(Duration::from_secs(30)));
            say(&format!("{title}: {} of {} s", start.elapsed().as_secs(), settings.phase.as_secs()));
        }
        windows.push(Window { phase, began, ended: now(), note, failed });
    }
    windows
}

/// Disturbs, and says what was done.
fn disturb(
    phase: Phase,
    cluster: &Cluster,
    node: Option<&Node>,
    issuer: &Issuer,
    sources: &[Source],
) -> Result<String> {
    Ok(match (phase, node) {
        (Phase::Restart, _) => {
            operator::restart(cluster)?;
            "`kubectl rollout restart`".to_owned()
        }
        (Phase::LeaderKilled, _) => kill_leader(cluster, node)?,
        (Phase::NodeGone, Some(_)) => remove_leaders_node(cluster)?,
        (Phase::Upgrade, _) => upgrade_and_roll_back(cluster, node)?,
        (Phase::IssuerOutage, _) => fail_issuer(cluster, issuer, sources)?,
        (Phase::ControlPlane, Some(node)) => {
            let began = Instant::now();
            node.kill("kube-apiserver")?;
            node.kill("etcd")?;
            cluster.until_ready(Duration::from_secs(120))?;
            format!(
                "SIGKILL for etcd and kube-apiserver, which was ready again after {} s",
                began.elapsed().as_secs()
            )
        }
        (Phase::Kubelet, Some(node)) => {
            node.kill("kubelet")?;
            "SIGKILL for the kubelet, which started again".to_owned()
        }
        _ => "nothing is disturbed".to_owned(),
    })
}

fn kill_leader(cluster: &Cluster, node: Option<&Node>) -> Result<String> {
    let (leader, former) = (operator::leader(cluster)?, operator::leading_process(cluster)?);
    let since = Instant::now();
    let how = if node.is_some() {
        node::signal("KILL", &Node::process(container(&leader["status"])?)?)?;
        "SIGKILL for the leader"
    } else {
        let pod = leader["metadata"]["name"].as_str().unwrap_or_default();
        cluster.kubectl(&["-n", operator::NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force"])?;
        "`kubectl delete pod --force` for the leader"
    };
    let after = operator::until_another_leads(cluster, &former, since)?;
    Ok(format!("{how}; another process led after {} s", after.as_secs()))
}

/// The id of a pod's container.
fn container(status: &serde_json::Value) -> Result<&str> {
    let id = status["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
    Ok(id.strip_prefix("containerd://").ok_or("the pod has no container")?)
}

/// The leader is stopped and cut off from the network, as if its node were gone; then both end.
fn remove_leaders_node(cluster: &Cluster) -> Result<String> {
    let (leader, former) = (operator::leader(cluster)?, operator::leading_process(cluster)?);
    let process = Node::process(container(&leader["status"])?)?;
    let address = leader["status"]["podIP"].as_str().unwrap_or_default();
    let since = Instant::now();
    Node::drop_packets(address, true)?;
    node::signal("STOP", &process)?;
    let after = operator::until_another_leads(cluster, &former, since);
    thread::sleep(NODE_GONE.saturating_sub(since.elapsed()));
    node::signal("CONT", &process)?;
    Node::drop_packets(address, false)?;
    Ok(format!(
        "the leader stopped and cut off for {} s; another process led after {} s",
        NODE_GONE.as_secs(),
        after?.as_secs()
    ))
}

fn upgrade_and_roll_back(cluster: &Cluster, node: Option<&Node>) -> Result<String> {
    let mut values = vec!["podAnnotations.e2e=upgraded"];
    if node.is_some() {
        let image = operator::image(cluster)?;
        Node::tag(&image, &format!("{}:e2e-upgrade", image.rsplit_once(':').map_or("", |(name, _)| name)))?;
        values.push("image.tag=e2e-upgrade");
    }
    operator::upgrade(cluster, &values)?;
    thread::sleep(Duration::from_secs(30));
    operator::rollback(cluster)?;
    Ok("`helm upgrade --wait`, and 30 s later `helm rollback --wait`".to_owned())
}

/// For each source whose table has room: from just before its refresh is due, ten seconds less than the table's longest outage.
fn fail_issuer(cluster: &Cluster, issuer: &Issuer, sources: &[Source]) -> Result<String> {
    let affected: Vec<(Source, u64)> = sources
        .iter()
        .filter_map(|&source| {
            u64::try_from(source.longest_outage() - 10).ok().filter(|s| *s > 0).map(|s| (source, s))
        })
        .collect();
    thread::scope(|scope| {
        let threads: Vec<_> = affected
            .iter()
            .map(|&(source, outage)| {
                scope.spawn(move || fail_one(cluster, issuer, source, Duration::from_secs(outage)))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    thread::sleep(SYNC);
    let outages: Vec<String> =
        affected.iter().map(|(source, outage)| format!("{source}: {outage} s")).collect();
    Ok(format!("503 for each client from when its refresh was due ({})", outages.join(", ")))
}

fn fail_one(cluster: &Cluster, issuer: &Issuer, source: Source, outage: Duration) -> Result<()> {
    let until_due = || -> Result<Duration> {
        let status = sources::get(cluster, source)?;
        let due: Timestamp = status["status"]["token"]["refreshAt"].as_str().unwrap_or_default().parse()?;
        Ok(Duration::from_millis(u64::try_from(due.as_millisecond() - now() - 1000)?))
    };
    // One that is due at this moment is refreshed first.
    let wait = eventually("the next refresh", Duration::from_secs(60), until_due)?;
    thread::sleep(wait);
    issuer.fail(&source.name(), true)?;
    thread::sleep(outage + Duration::from_secs(1));
    issuer.fail(&source.name(), false)
}
