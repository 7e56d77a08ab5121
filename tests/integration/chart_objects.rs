//! The API server accepts the rendered chart with strict validation, including other projects' kinds.

use serde_json::{Value, json};

use super::support::chart::{find, render, template};
use super::support::control_plane::ControlPlane;
use super::support::definitions;
use super::support::eventually;
use super::support::scene::{SOON, Scene};

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

/// `hack/control-plane.sh` limits the system's priorities to namespaces with a quota for them, as GKE does.
#[tokio::test(flavor = "multi_thread")]
async fn priority_of_the_page_is_admitted_where_the_api_server_limits_those_of_the_system() {
    let page = include_str!("../../docs/high-availability.md");
    let block = page
        .split("```yaml\n")
        .find(|block| block.starts_with("# fragment of values.yaml\npriority"))
        .unwrap();
    let of_the_page: Value = serde_saphyr::from_str(block.split("```").next().unwrap()).unwrap();
    let scene = Scene::bare("priority").await;
    let pod = |values: &Value| {
        let objects = render(&scene.namespace, values);
        let spec = &find(&objects, "Deployment", "")["spec"]["template"]["spec"];
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}).to_string()
    };
    let objects = render(&scene.namespace, &of_the_page);
    scene.apply(find(&objects, "ServiceAccount", "").clone()).await;
    let class = find(&objects, "PriorityClass", "");
    scene.apply(class.clone()).await;
    let create = ["create", "--dry-run=server", "-f", "-"];
    let admitted = eventually("the API server sees the PriorityClass", SOON, async || {
        scene.try_kubectl(&create, &pod(&of_the_page)).await
    });
    assert_eq!(admitted.await, "pod/operator created (server dry run)\n");

    let of_the_system = json!({"priorityClassName": "system-cluster-critical"});
    let refused = scene.try_kubectl(&create, &pod(&of_the_system)).await.unwrap_err();
    let words = "insufficient quota to match these scopes";
    assert!(refused.contains(words) && page.contains(words), "{refused}");
    scene.kubectl(&["delete", "-f", "-"], &class.to_string()).await;
}
