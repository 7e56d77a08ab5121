//! Draws the pictures of the documentation, of what a terminal shows: `make pictures`. Everything in them is real output.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::plugin::{Background, Plugin, everything};
use super::prompt::{folder, pod};
use super::shells::ON_A_TERMINAL;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::run;
use super::support::scene::Scene;

/// Of a character, in the units of the picture.
const WIDTH: f64 = 7.8;
const LINE: usize = 18;
const MARGIN: usize = 16;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make pictures"]
async fn pictures_of_the_documentation_are_drawn() {
    let scene = Scene::new("payments", 300).await;
    let source = |name: &str, change| {
        let mut manifest = scene.source(change);
        manifest["metadata"]["name"] = json!(name);
        manifest["spec"]["target"]["name"] = json!(format!("{name}-token"));
        manifest
    };
    scene.apply(source("vault-api", json!({}))).await;
    scene.apply(source("reports", json!({"credentials": {"secretRef": {"name": "reports-client"}}}))).await;
    scene.secret("partner-client", &[("client_id", &scene.namespace), ("client_secret", "wrong")]).await;
    scene.apply(source("partner", json!({"credentials": {"secretRef": {"name": "partner-client"}}}))).await;
    scene.secret("ledger-client", &[("client_id", &scene.namespace), ("client_secret", "right")]).await;
    scene.apply(source("ledger", json!({"credentials": {"secretRef": {"name": "ledger-client"}}}))).await;
    scene.apply(source("archive", json!({"suspend": true}))).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.condition("vault-api", "Ready", "True TokenValid").await;
    scene.condition("reports", "Ready", "False CredentialsNotFound").await;
    scene.condition("partner", "Ready", "False ClientRejected").await;
    scene.condition("ledger", "Ready", "True TokenValid").await;
    scene.secret("ledger-client", &[("client_id", &scene.namespace), ("client_secret", "wrong")]).await;
    scene.condition("ledger", "Ready", "True RefreshFailing").await;
    scene.condition("archive", "Ready", "False Suspended").await;
    let mut web = folder();
    if let Some(name) = web.pointer_mut("/volumes/0/secret/secretName") {
        *name = json!("vault-api-token");
    }
    pod(&scene, "web-1", "Running", web).await;

    let labels = json!({"app.kubernetes.io/part-of": "tokensource-operator"});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "o", "args": ["run"]}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
    scene
        .apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "o", "labels": labels}, "spec": spec}))
        .await;
    let plugin = Plugin::new();
    for (name, arguments) in [("get", &["get"][..]), ("explain", &["explain", "vault-api"])] {
        // On a terminal, for the colours; without the progress.
        let mut python = Command::new("python3");
        python.args(["-c", ON_A_TERMINAL, "sh", "-c", "exec \"$0\" \"$@\" 2>/dev/null"]);
        python.arg(plugin.program()).args(arguments).args(["-n", &scene.namespace]);
        python.env("KUBECONFIG", everything()).env("TERM", "xterm");
        python.env("TOKENSOURCE_OPERATOR_NAMESPACE", &scene.namespace);
        let said = run(python, "").await.stdout.replace(&scene.namespace, "payments").replace('\r', "");
        draw(name, &format!("kubectl tokensource {} -n payments", arguments.join(" ")), &said);
    }
}

/// How many requests the picture of the dashboard shows: some five minutes of tokens of 60 s.
const SHOWN_REQUESTS: u64 = 60;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make pictures"]
async fn pictures_of_the_documentation_show_the_dashboard() {
    let scene = Scene::new("payments", 60).await;
    scene.secret("wrong-client", &[("client_id", &scene.namespace), ("client_secret", "wrong")]).await;
    for (name, client) in [
        ("vault-api", "credentials"),
        ("vault-files", "credentials"),
        ("ledger", "credentials"),
        ("invoices", "credentials"),
        ("search", "credentials"),
        ("reports", "reports-client"),
        ("partner", "wrong-client"),
    ] {
        let mut source = scene.source(json!({"credentials": {"secretRef": {"name": client}}}));
        source["metadata"]["name"] = json!(name);
        source["spec"]["target"]["name"] = json!(format!("{name}-token"));
        scene.apply(source).await;
    }
    let of_issuers = [
        ("idp", "credentials", "orders"),
        ("idp", "credentials", "stock"),
        ("old", "wrong-client", "legacy"),
    ];
    for (issuer, client, name) in of_issuers {
        scene
            .kubectl(&["label", "--overwrite", "secret", client, "tokensource.dev/credentials=true"], "")
            .await;
        let issuer = format!("{}-{issuer}", scene.namespace);
        scene
            .apply(json!({
                "apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": issuer},
                "spec": {
                    "controller": scene.namespace, "provider": {"vgs": {"tokenURL": scene.server.vgs_token_url()}},
                    "credentials": {"secretRef": {"name": client}}, "namespaces": {"names": [scene.namespace]},
                    "allow": {"withoutScopes": true},
                },
            }))
            .await;
        scene
            .apply(json!({
                "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": name},
                "spec": {"issuerRef": {"name": issuer}},
            }))
            .await;
    }
    let mut flags = vec!["--allow-http", "--egress-allow", "127.0.0.0/8"];
    flags.extend(["--issuers-namespace", &scene.namespace, "--issuers-controller", &scene.namespace]);
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    let folder = tempfile::tempdir().unwrap();
    let scraped =
        json!({"targets": [operator.admin_address()], "labels": {"instance": "tokensource-operator-0"}});
    let configuration = json!({
        "global": {"scrape_interval": "2s"},
        "scrape_configs": [{"job_name": "operator", "static_configs": [scraped]}],
    });
    let file = folder.path().join("prometheus.yml");
    fs::write(&file, configuration.to_string()).unwrap();
    // None that the system gives to others that ask for any.
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let address = format!("127.0.0.1:{}", (15_000..20_000).find(is_free).expect("a free port"));
    let mut prometheus = Command::new("prometheus");
    prometheus.arg(format!("--config.file={}", file.display()));
    prometheus.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    prometheus.arg(format!("--web.listen-address={address}")).stderr(std::process::Stdio::null());
    let _prometheus = Background::start(&mut prometheus);
    eventually("enough requests", Duration::from_secs(600), async || match scene.mints().await {
        requests if requests >= SHOWN_REQUESTS => Ok(()),
        requests => Err(requests),
    })
    .await;
    let mut draw = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hack/dashboard.py"));
    draw.args([&format!("http://{address}"), "270"]);
    let drawn = run(draw, "").await;
    assert_eq!(drawn.code, 0, "{drawn:?}");
    let picture = drawn.stdout.replace(&scene.namespace, "payments");
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures/dashboard.svg"), picture).unwrap();
}

/// The parts of a line, each with its colour.
fn parts(line: &str) -> Vec<(Option<&'static str>, String)> {
    let mut parts = vec![];
    for (number, part) in line.split("\u{1b}[").enumerate() {
        let (code, text) =
            if number == 0 { ("0", part) } else { part.split_once('m').unwrap_or(("0", part)) };
        let colour = match code {
            "31" => Some("#ff8080"),
            "32" => Some("#8fd3a6"),
            "33" => Some("#f2cc66"),
            _ => None,
        };
        parts.push((colour, text.to_owned()));
    }
    parts
}

/// Writes `docs/pictures/NAME.svg`.
fn draw(name: &str, command: &str, output: &str) {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Viewers collapse spaces.
    let shown = |line: &str| escaped(line).replace(' ', "\u{a0}");
    let span = |(colour, text): &(Option<&str>, String)| match colour {
        Some(colour) => format!("<tspan fill=\"{colour}\">{}</tspan>", shown(text)),
        None => shown(text),
    };
    let lines: Vec<String> =
        std::iter::once(format!("$ {command}")).chain(output.trim_end().lines().map(str::to_owned)).collect();
    let plain = |line: &str| parts(line).into_iter().map(|(_, text)| text).collect::<String>();
    let columns = lines.iter().map(|line| plain(line).chars().count()).max().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "a terminal has few columns")]
    let width = (columns as f64).mul_add(WIDTH, 2.0 * MARGIN as f64).ceil();
    let height = lines.len() * LINE + 2 * MARGIN;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\" \
         aria-label=\"{}\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#1d2330\"/>\n\
         <g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"13\" \
         fill=\"#d7deea\">\n",
        escaped(command)
    );
    for (number, line) in lines.iter().enumerate() {
        let (y, length) = (MARGIN + number * LINE + 13, plain(line).chars().count());
        let colour = if number == 0 { " fill=\"#8fd3a6\"" } else { "" };
        // The length keeps columns aligned whatever the font is.
        #[expect(clippy::cast_precision_loss, reason = "a terminal has few columns")]
        let length = length as f64 * WIDTH;
        picture += &format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\"{colour}>{}</text>\n",
            parts(line).iter().map(span).collect::<String>()
        );
    }
    picture += "</g>\n</svg>\n";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.svg")), picture).unwrap();
}
