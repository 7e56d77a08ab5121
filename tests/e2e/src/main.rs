//! Measures how fresh the token is that a pod reads, while the operator, its issuer and the cluster are disturbed.
//! `hack/e2e.sh` builds what it needs, and starts it on a node of its own or beside the cluster of `KUBECONFIG`.

#![allow(clippy::indexing_slicing)] // of JSON: a member that is missing is null

mod cluster;
mod command;
mod issuer;
#[path = "../../support/keycloak_realm.rs"]
mod keycloak_realm;
mod keyless;
mod node;
mod operator;
mod phases;
#[path = "../../support/process.rs"]
#[allow(clippy::expect_used, reason = "it is shared with the tests, which may")]
mod process;
mod readings;
mod report;
mod resources;
mod settings;
mod sources;

use std::process::ExitCode;

use command::{Result, say};

/// What this program creates in a cluster, beside the release.
const CREATED: [&str; 5] = [
    "namespace/tokensource-system",
    "namespace/e2e",
    "namespace/e2e-fleet",
    "customresourcedefinition/tokensources.tokensource.dev",
    "customresourcedefinition/clustertokenissuers.tokensource.dev",
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether every reader had what it is promised.
fn run() -> Result<bool> {
    let settings = settings::Settings::read()?;
    let cluster = cluster::Cluster::of_environment()?;
    let node = node::Node::of_environment();
    cluster.refuse_existing(&CREATED)?;
    let issuer = issuer::Issuer::start(&settings)?;
    let measured = measure(&settings, &cluster, node.as_ref(), &issuer);
    if node.is_none() {
        say("removing what was installed");
        operator::uninstall(&cluster);
        cluster.remove(&CREATED);
    }
    let (readings, resources) = measured?;
    let report = report::render(&cluster, node.is_some().then_some(settings.command), &readings, &resources)?;
    std::fs::write(settings.out.join("freshness.md"), &report)?;
    say(&format!("the result:\n\n{report}"));
    let broken = readings.broken_promises();
    for broken in &broken {
        say(&format!("BROKEN: {broken}"));
    }
    Ok(broken.is_empty())
}

fn measure(
    settings: &settings::Settings,
    cluster: &cluster::Cluster,
    node: Option<&node::Node>,
    issuer: &issuer::Issuer,
) -> Result<(readings::Readings, Vec<resources::Resources>)> {
    let install = operator::install(cluster, issuer)?;
    say(&format!("helm install --wait took {} s; two replicas are ready", install.as_secs()));
    let kinds = sources::kinds(&settings.lifetimes);
    sources::create(cluster, &kinds, issuer)?;
    // Before anything is disturbed: that nothing is promised must be known by then.
    let conditions = sources::propagation_safe(cluster, &kinds)?;
    let windows = phases::run(settings, cluster, node, issuer, &kinds);
    let readings = readings::Readings::collect(cluster, kinds, conditions, windows, install)?;
    let resources = resources::measure(settings, cluster, issuer)?;
    Ok((readings, resources))
}
