//! What the chart renders, by Helm and without a cluster. In a cluster: `tests/helm.rs`, `tests/integration/chart_objects.rs`.
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "../support/mod.rs"]
mod support;

mod arguments;
mod manifests;
mod metrics;
mod names;
mod notes;
mod pages;
mod pod;
mod rights;
mod values;

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use support::chart::find;
use support::program::{PROGRAM, output};

fn container(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "")["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(objects: &[Value]) -> Vec<String> {
    container(objects)["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn operator(arguments: &[String]) -> std::process::Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("KUBECONFIG", "/dev/null");
    output(command, "")
}

/// The objects by kind, namespace and name.
fn identities(objects: &[Value]) -> BTreeMap<[String; 3], &Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let identity =
        |it: &Value| [text(&it["kind"]), text(&it["metadata"]["namespace"]), text(&it["metadata"]["name"])];
    objects.iter().map(|it| (identity(it), it)).collect()
}
