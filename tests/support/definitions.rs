//! CustomResourceDefinitions of other projects, from their pinned Go modules: for the manifests of such kinds in the
//! documentation and the chart.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::control_plane::ControlPlane;
use super::eventually;
use super::process::{BUILD_LIMIT, output_within};

const PROMETHEUS: (&str, &str) = (
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
);

/// A module with its version, the hash that Go gives it, and the file in it.
const DEFINITIONS: [(&str, &str, &str); 7] = [
    (
        "github.com/fluxcd/kustomize-controller@v1.9.6",
        "h1:XB+G3A0mky0j5uVHZWv4oSlS2RvZBoNIUhstIvY0JKE=",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
    (
        "github.com/argoproj/argo-cd/v3@v3.4.13",
        "h1:kmnF4nE5SQ83OhtdX6DMmLSpH0eRIa1gNYdCLNHqB+A=",
        "manifests/crds/application-crd.yaml",
    ),
    (
        "github.com/external-secrets/external-secrets@v1.3.2",
        "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    (
        PROMETHEUS.0,
        PROMETHEUS.1,
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    (PROMETHEUS.0, PROMETHEUS.1, "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml"),
    (
        PROMETHEUS.0,
        PROMETHEUS.1,
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
    (
        "k8s.io/autoscaler/vertical-pod-autoscaler@v1.8.1",
        "h1:Pe8bV1wozN4gOKO1rleiIY5alIyAXN+DnXDbXQcL4fI=",
        "deploy/vpa-v1-crd-gen.yaml",
    ),
];

/// Installs all of them.
pub async fn install(control_plane: &ControlPlane) {
    for (module, sum, file) in DEFINITIONS {
        let definition = tokio::task::spawn_blocking(move || read(module, sum, file)).await.unwrap();
        for arguments in [
            ["apply", "--server-side", "--force-conflicts", "-f", "-"],
            ["wait", "--for=condition=Established", "--timeout=60s", "-f", "-"],
        ] {
            // A definition may exist before the API server has set its conditions.
            eventually(file, Duration::from_secs(60), async || {
                let output = control_plane.kubectl(&arguments, &definition).await;
                if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr)) }
            })
            .await;
        }
    }
}

fn read(module: &str, sum: &str, file: &str) -> String {
    eprintln!("reading {file} from the Go module {module} (the first time it is downloaded)");
    let mut download = Command::new("go");
    download.args(["mod", "download", "-json", module]).current_dir(std::env::temp_dir());
    // The hash is compared below; the sums of the machine's own module do not matter.
    download.envs([("GOFLAGS", "-mod=mod"), ("GOWORK", "off"), ("GONOSUMDB", "*")]);
    let output = output_within(download, "", BUILD_LIMIT);
    let module_json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let folder = module_json["Dir"].as_str().unwrap_or_else(|| panic!("{module}: {module_json}"));
    assert_eq!(module_json["Sum"], sum, "{module} is not what was pinned");
    std::fs::read_to_string(Path::new(folder).join(file)).unwrap()
}
