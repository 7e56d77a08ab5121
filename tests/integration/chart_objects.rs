//! The API server accepts the rendered chart with strict validation, including other projects' kinds.

use serde_json::{Value, json};

use super::support::chart::template;
use super::support::control_plane::ControlPlane;
use super::support::definitions;
use super::support::scene::Scene;

/// Asserts that the API server accepts each object and knows each field.
async fn assert_accepted(scene: &Scene, values: &Value) {
    let manifests = template(&scene.namespace, values).unwrap();
    let arguments =
        ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server", "-f", "-"];
    let said = scene.try_kubectl(&arguments, &manifests).await;
    assert!(said.is_ok(), "{values}: {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_objects_pass_strict_validation() {
    let scene = Scene::bare("objects").await;
    definitions::install(ControlPlane::shared()).await;
    let namespaced = json!({"namespaces": [scene.namespace]});
    let monitored = json!({
        "metrics": {
            "from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}],
            "serviceMonitor": {
                "enabled": true,
                "relabelings": [{"targetLabel": "cluster", "replacement": "a"}],
                "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "process_.*"}],
            },
            "prometheusRule": {
                "enabled": true, "ruleLabels": {"team": "a"}, "rules": {"TokenSourcePanics": {"for": "7m"}},
            },
            "dashboard": {"enabled": true},
            "service": {"ipFamilyPolicy": "PreferDualStack"},
        },
        "verticalPodAutoscaler": {"enabled": true, "maxAllowed": {"memory": "1Gi"}},
        "promptPropagation": {"enabled": true},
        "networkPolicy": {"egress": [{"ports": [{"port": 443}]}], "from": [{"namespaceSelector": {}}]},
        "podDisruptionBudget": {"maxUnavailable": null, "minAvailable": "50%"},
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "startupProbe": {"exec": {"command": ["/tokensource-operator", "probe", "livez"]}},
        "livenessProbe": {"httpGet": {"port": "admin", "path": "/livez"}},
        "strategy": {"type": "Recreate"},
        "global": {
            "imagePullSecrets": ["a"], "tolerations": [{"key": "a", "operator": "Exists"}],
            "topologySpreadConstraints": [{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
        },
        "extraInitContainers": [{"name": "a", "image": "a"}],
        "hostUsers": false,
        "schedulerName": "a",
    });
    let pods = json!({"metrics": {"from": [{"podSelector": {}}], "podMonitor": {"enabled": true}}});
    let secure = json!({
        "metrics": {
            "secure": true,
            "tls": {"secretName": "certificate"},
            "from": [{"podSelector": {}}],
            "serviceMonitor": {"enabled": true},
        },
    });
    let secure_pods = json!({
        "metrics": {
            "secure": true,
            "from": [{"podSelector": {}}],
            "podMonitor": {
                "enabled": true,
                "authorization": {"credentials": {"name": "scraper", "key": "token"}},
                "endpointAdditionalProperties": {"honorTimestamps": false},
            },
        },
    });
    for values in [json!({}), namespaced, monitored, pods, secure, secure_pods] {
        assert_accepted(&scene, &values).await;
    }
}
