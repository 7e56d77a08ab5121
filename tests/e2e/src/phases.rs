//! The disturbances, one after the other, and when each began and ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    cluster::Cluster,
    command::{Result, eventually, now, say},
    issuer::Issuer,
    keyless,
    node::{self, Node},
    operator,
    settings::Settings,
    sources::{self, Kind},
};

/// How long the leader's node is gone: longer than the lease.
const NODE_GONE: Duration = Duration::from_secs(50);
/// A user like those that OpenShift assigns; the image knows none of them.
const ARBITRARY_USER: u32 = 1_000_650_000;
/// What a new token needs to reach every pod.
pub const SYNC: Duration = Duration::from_secs(90);
/// An outage is this much shorter than the table's longest, at the end of which the operator tries again at the latest.
const LAST_ATTEMPT: Duration = Duration::from_secs(10);

/// A phase with the time in which it was, in milliseconds since 1970.
pub struct Window {
    pub phase: Phase,
    pub began: i64,
    pub ended: i64,
    /// What was done, with what was measured; what failed, if it could not be done.
    pub note: String,
    pub failed: bool,
    /// The highest load of this machine: processes that ran or waited to, averaged over a minute.
    pub load: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Steady,
    Restart,
    LeaderKilled,
    NodeGone,
    Upgrade,
    ArbitraryUser,
    IssuerOutage,
    ControlPlane,
    Kubelet,
    Keyless,
}

impl Phase {
    const ALL: [Self; 10] = [
        Self::Steady,
        Self::Restart,
        Self::LeaderKilled,
        Self::NodeGone,
        Self::Upgrade,
        Self::ArbitraryUser,
        Self::IssuerOutage,
        Self::ControlPlane,
        Self::Kubelet,
        Self::Keyless,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Restart => "restart",
            Self::LeaderKilled => "leader-killed",
            Self::NodeGone => "node-gone",
            Self::Upgrade => "upgrade",
            Self::ArbitraryUser => "arbitrary-user",
            Self::IssuerOutage => "issuer-outage",
            Self::ControlPlane => "control-plane",
            Self::Kubelet => "kubelet",
            Self::Keyless => "keyless",
        }
    }

    /// Whether a refresh may be late: its issuer or its operator is away.
    pub fn delays_refreshes(self) -> bool {
        match self {
            Self::LeaderKilled | Self::NodeGone | Self::IssuerOutage | Self::ControlPlane => true,
            Self::Steady
            | Self::Restart
            | Self::Upgrade
            | Self::ArbitraryUser
            | Self::Kubelet
            | Self::Keyless => false,
        }
    }

    /// Whether it needs the node of `hack/node.sh`.
    fn needs_node(self) -> bool {
        matches!(self, Self::NodeGone | Self::ControlPlane | Self::Kubelet | Self::Keyless)
    }
}

pub fn run(
    settings: &Settings,
    cluster: &Cluster,
    node: Option<&Node>,
    issuer: &Issuer,
    kinds: &[Kind],
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
        if phase == Phase::Keyless && !keyless::is_possible() {
            say(&format!("{title}: left out, Keycloak cannot be had"));
            continue;
        }
        let duration = if phase == Phase::Steady { settings.steady } else { settings.phase };
        say(&format!("{title}: {} s", duration.as_secs()));
        let (began, start, mut highest) = (now(), Instant::now(), load());
        let done = thread::scope(|scope| {
            let disturbing = scope.spawn(|| {
                let done = disturb(phase, settings, cluster, node, issuer, kinds);
                // The other phases are measured nevertheless.
                let failed = done.is_err();
                let note = done.unwrap_or_else(|error| format!("FAILED: {error}"));
                say(&format!("{title}: {note}"));
                (note, failed)
            });
            while start.elapsed() < duration || !disturbing.is_finished() {
                let left = duration.saturating_sub(start.elapsed());
                // Some disturbances take longer than a phase.
                let left = if left.is_zero() { Duration::from_secs(10) } else { left };
                thread::sleep(left.min(Duration::from_secs(30)));
                highest = highest.max(load());
                say(&format!("{title}: {} of {} s", start.elapsed().as_secs(), duration.as_secs()));
            }
            disturbing.join()
        });
        let (note, failed) = done.unwrap_or_else(|_| ("FAILED: a thread panicked".to_owned(), true));
        windows.push(Window { phase, began, ended: now(), note, failed, load: highest.max(load()) });
    }
    windows
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// Disturbs, and says what was done.
fn disturb(
    phase: Phase,
    settings: &Settings,
    cluster: &Cluster,
    node: Option<&Node>,
    issuer: &Issuer,
    kinds: &[Kind],
) -> Result<String> {
    Ok(match (phase, node) {
        (Phase::Restart, _) => {
            operator::restart(cluster)?;
            "`kubectl rollout restart`".to_owned()
        }
        (Phase::LeaderKilled, _) => kill_leader(cluster, node)?,
        (Phase::NodeGone, Some(_)) => remove_leaders_node(cluster)?,
        (Phase::Upgrade, _) => upgrade_and_roll_back(cluster)?,
        (Phase::ArbitraryUser, _) => run_as_arbitrary_user(cluster, node)?,
        (Phase::IssuerOutage, _) => fail_issuer(cluster, issuer, kinds)?,
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
        (Phase::Keyless, Some(_)) => keyless::check(settings, cluster, issuer)?,
        (Phase::Kubelet, Some(node)) => {
            node.kill("kubelet")?;
            "SIGKILL for the kubelet, which started again".to_owned()
        }
        (Phase::Steady, _) => match sources::stagger(cluster, kinds)? {
            None => "nothing is disturbed".to_owned(),
            Some(staggered) => format!("nothing is disturbed; {staggered}"),
        },
        (phase, None) => return Err(format!("{} needs a node", phase.name()).into()),
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

fn upgrade_and_roll_back(cluster: &Cluster) -> Result<String> {
    let before = operator::image(cluster)?;
    let mut values = operator::image_values("E2E_UPGRADE_IMAGE");
    let what = if values.is_empty() { "with other annotations" } else { "to another image" };
    values.push("podAnnotations.e2e=upgraded".to_owned());
    operator::upgrade(cluster, &values)?;
    let upgraded = operator::image(cluster)?;
    if (upgraded == before) != (values.len() == 1) {
        return Err(format!("before the upgrade {before} ran, after it {upgraded}").into());
    }
    thread::sleep(Duration::from_secs(30));
    operator::rollback(cluster)?;
    let after = operator::image(cluster)?;
    if after != before {
        return Err(format!("before the upgrade {before} ran, after the rollback {after}").into());
    }
    Ok(format!("`helm upgrade --wait` {what}, and 30 s later `helm rollback --wait`"))
}

/// As OpenShift does with a pod that names no user: a random one, and the group of the volumes.
fn run_as_arbitrary_user(cluster: &Cluster, node: Option<&Node>) -> Result<String> {
    let values = ["runAsUser", "fsGroup"].map(|field| format!("podSecurityContext.{field}={ARBITRARY_USER}"));
    operator::upgrade(cluster, &values)?; // until the kubelet's probes succeed
    let leader = operator::leader(cluster)?;
    for pod in operator::pods(cluster)? {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if node.is_some() {
            let user = Node::user(&Node::process(container(&pod["status"])?)?)?;
            if user != ARBITRARY_USER {
                return Err(format!("{name} runs as {user}").into());
            }
        }
        let leads = if pod["metadata"]["uid"] == leader["metadata"]["uid"] { "1" } else { "0" };
        eventually("the metric of the leader", Duration::from_secs(30), || {
            match operator::metric(cluster, name, "tokensource_leader")? {
                value if value == leads => Ok(()),
                value => Err(format!("it is {value} in {name}").into()),
            }
        })?;
    }
    thread::sleep(SYNC);
    operator::rollback(cluster)?;
    Ok(format!("both replicas as user {ARBITRARY_USER} for {} s, as OpenShift assigns one", SYNC.as_secs()))
}

/// For one TokenSource of each kind whose table has room: from just before its refresh is due, ten seconds less than the table's
/// longest outage.
fn fail_issuer(cluster: &Cluster, issuer: &Issuer, kinds: &[Kind]) -> Result<String> {
    let outage = |kind: Kind| u64::try_from(kind.longest_outage()).ok()?.checked_sub(LAST_ATTEMPT.as_secs());
    let affected: Vec<(Kind, u64)> =
        kinds.iter().filter_map(|&kind| Some((kind, outage(kind).filter(|&seconds| seconds > 0)?))).collect();
    thread::scope(|scope| {
        let threads: Vec<_> = affected
            .iter()
            .map(|&(kind, outage)| {
                scope.spawn(move || fail_one(cluster, issuer, kind, Duration::from_secs(outage)))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    })?;
    thread::sleep(SYNC + LAST_ATTEMPT);
    let outages: Vec<String> = affected.iter().map(|(kind, outage)| format!("{kind}: {outage} s")).collect();
    Ok(format!("503 for a client of each from when its refresh was due ({})", outages.join(", ")))
}

/// The TokenSource of a kind that is due first.
fn fail_one(cluster: &Cluster, issuer: &Issuer, kind: Kind, outage: Duration) -> Result<()> {
    let next_due = || -> Result<(Duration, String)> {
        let mut waits = Vec::new();
        for name in kind.names() {
            let due = sources::token_time(cluster, &name, "refreshAt")?.as_millisecond();
            // One that is due at this moment is refreshed first.
            if let Ok(wait) = u64::try_from(due - now() - 1000) {
                waits.push((Duration::from_millis(wait), name));
            }
        }
        waits.into_iter().min().ok_or_else(|| format!("{kind}: a refresh is due").into())
    };
    let (wait, name) = eventually("the next refresh", Duration::from_secs(60), next_due)?;
    thread::sleep(wait);
    issuer.fail(&name, true)?;
    thread::sleep(outage + Duration::from_secs(1));
    issuer.fail(&name, false)
}
