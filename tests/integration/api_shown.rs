//! The API as `kubectl` shows it; accepted manifests stay as written.

use serde_json::json;

use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explain_and_get_show_fields_and_columns() {
    let scene = Scene::bare("explained").await;
    let mut source = scene.source(json!({"target": {"name": "vgs-token"}}));
    source["metadata"]["name"] = json!("vault-api");
    scene.apply(source).await;
    let explained = scene.kubectl(&["explain", "tokensource.spec"], "").await;
    for field in ["provider", "credentials", "target", "refresh", "suspend"] {
        assert!(explained.contains(&format!("  {field}\t<")), "{field}: {explained}");
    }
    let deep = scene.kubectl(&["explain", "tks.spec.provider.oauth2.requestEncoding"], "").await;
    assert!(deep.contains("ENUM:") && deep.contains("default: Form"), "{deep}");

    // Not reconciled yet: kstatus and `kubectl wait` must not consider it current.
    let status = scene.sources().get("vault-api").await.unwrap().status.unwrap();
    assert_eq!(status.observed_generation, Some(-1));

    let header = |table: &str| {
        table
            .lines()
            .next()
            .unwrap_or_default()
            .split("  ")
            .map(str::trim)
            .filter(|it| !it.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let table = scene.kubectl(&["get", "tks"], "").await;
    assert_eq!(header(&table), ["NAME", "READY", "REASON", "EXPIRES", "TARGET", "AGE"], "{table}");
    let wide = scene.kubectl(&["get", "tokensource", "-o", "wide"], "").await;
    let columns = [
        "NAME",
        "READY",
        "REASON",
        "EXPIRES",
        "TARGET",
        "AGE",
        "PROVIDER",
        "REFRESH AT",
        "TOKEN ID",
        "FAILURES",
    ];
    assert_eq!(header(&wide), columns, "{wide}");
    assert!(scene.kubectl(&["get", "tokensource"], "").await.contains("vault-api"));
}

#[tokio::test(flavor = "multi_thread")]
async fn applied_manifest_has_no_diff_after_reconciliation() {
    let scene = Scene::new("gitops", 300).await;
    let _operator = Operator::start(&scene.namespace).await;
    let manifest =
        scene.source(json!({"refresh": {"before": "1h30m", "maxInterval": "90s"}, "suspend": false}));
    scene.apply(manifest.clone()).await;
    scene.ready("True TokenValid").await;

    let table = scene.kubectl(&["get", "tks", "-o", "wide"], "").await;
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let token = scene.sources().get("source").await.unwrap().status.unwrap().token.unwrap();
    let (expires, refresh) = (token.expires_at.to_string(), token.refresh_at.to_string());
    assert_eq!(row[..5], ["source", "True", "TokenValid", &expires, "token"], "{table}");
    assert_eq!(row[6..9], ["vgs", &refresh, &token.id], "{table}");

    // As Argo CD and Flux apply. Where the other mode was used before, kubectl's annotation would be a difference.
    let mut server_side = manifest.clone();
    server_side["metadata"]["name"] = json!("server-side");
    server_side["spec"]["target"]["name"] = json!("another-token");
    scene.kubectl(&["apply", "--server-side", "-f", "-"], &server_side.to_string()).await;
    scene.condition("server-side", "Ready", "True TokenValid").await;
    for (flag, manifest) in [("--server-side=false", manifest), ("--server-side", server_side)] {
        let arguments = ["-n", &scene.namespace, "diff", flag, "-f", "-"];
        let output = ControlPlane::shared().kubectl(&arguments, &manifest.to_string()).await;
        assert!(output.status.success(), "{flag}: {}", String::from_utf8_lossy(&output.stdout));
    }
    scene.kubectl(&["wait", "--for=condition=Ready", "tks/source", "--timeout=5s"], "").await;
}
