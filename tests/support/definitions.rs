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

const EXTERNAL_SECRETS: (&str, &str) = (
    "github.com/external-secrets/external-secrets@v1.3.2",
    "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
);

const FLUX_SOURCES: (&str, &str) =
    ("github.com/fluxcd/source-controller@v1.9.6", "h1:nG534/bI6nVpyHra7ONAk6xDB3xPsVT+EOLHZHXPrrc=");

/// A module with its version, the hash that Go gives it, and the file in it. `#` names one object of the file.
const DEFINITIONS: [(&str, &str, &str); 15] = [
    (FLUX_SOURCES.0, FLUX_SOURCES.1, "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml"),
    (FLUX_SOURCES.0, FLUX_SOURCES.1, "config/crd/bases/source.toolkit.fluxcd.io_helmrepositories.yaml"),
    (FLUX_SOURCES.0, FLUX_SOURCES.1, "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml"),
    (EXTERNAL_SECRETS.0, EXTERNAL_SECRETS.1, "config/crds/bases/external-secrets.io_secretstores.yaml"),
    (EXTERNAL_SECRETS.0, EXTERNAL_SECRETS.1, "config/crds/bases/external-secrets.io_pushsecrets.yaml"),
    (
        "sigs.k8s.io/gateway-api@v1.4.1",
        "h1:NPxFutNkKNa8UfLd2CMlEuhIPMQgDQ6DXNKG9sHbJU8=",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
    (
        "github.com/envoyproxy/gateway@v1.9.1",
        "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY=",
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_httproutefilters.yaml",
    ),
    (
        "istio.io/api@v1.27.3",
        "h1:Ek00/+kB0wepYuevSfE0Edh2o5ndEtekmo/Nkx5LIYA=",
        "kubernetes/customresourcedefinitions.gen.yaml#envoyfilters.networking.istio.io",
    ),
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
    (EXTERNAL_SECRETS.0, EXTERNAL_SECRETS.1, "config/crds/bases/external-secrets.io_externalsecrets.yaml"),
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
    let (file, object) = file.split_once('#').unwrap_or((file, ""));
    let text = std::fs::read_to_string(Path::new(folder).join(file)).unwrap();
    if object.is_empty() {
        return text;
    }
    let name = format!("\n  name: {object}\n");
    text.split("\n---\n")
        .find(|part| part.contains(&name))
        .unwrap_or_else(|| panic!("{file}: no {object}"))
        .to_owned()
}
