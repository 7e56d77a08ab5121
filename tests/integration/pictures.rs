//! Draws the pictures of the documentation, of what a terminal shows: `make pictures`. Everything in them is real output.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::prompt::{folder, pod};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, run};
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
    let _operator = Operator::start(&scene.namespace).await;
    scene.condition("vault-api", "Ready", "True TokenValid").await;
    scene.condition("reports", "Ready", "False CredentialsNotFound").await;
    scene.condition("partner", "Ready", "False ClientRejected").await;
    let mut web = folder();
    if let Some(name) = web.pointer_mut("/volumes/0/secret/secretName") {
        *name = json!("vault-api-token");
    }
    pod(&scene, "web-1", "Running", web).await;

    let said = scene.kubectl(&["get", "tokensources"], "").await;
    draw("get", "kubectl -n payments get tokensources", &said);

    let mut explain = Command::new(PROGRAM);
    explain.args(["explain", "-n", &scene.namespace, "vault-api"]);
    explain.env("KUBECONFIG", ControlPlane::shared().kubeconfig_path());
    let said = run(explain, "").await.stdout.replace(&scene.namespace, "payments");
    draw("explain", "tokensource-operator explain -n payments vault-api", &said);
}

/// Writes `docs/pictures/NAME.svg`.
fn draw(name: &str, command: &str, output: &str) {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Viewers collapse spaces.
    let shown = |line: &str| escaped(line).replace(' ', "\u{a0}");
    let lines: Vec<String> =
        std::iter::once(format!("$ {command}")).chain(output.trim_end().lines().map(str::to_owned)).collect();
    let columns = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
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
        let (y, length) = (MARGIN + number * LINE + 13, line.chars().count());
        let colour = if number == 0 { " fill=\"#8fd3a6\"" } else { "" };
        // The length keeps columns aligned whatever the font is.
        #[expect(clippy::cast_precision_loss, reason = "a terminal has few columns")]
        let length = length as f64 * WIDTH;
        picture += &format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\"{colour}>{}</text>\n",
            shown(line)
        );
    }
    picture += "</g>\n</svg>\n";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.svg")), picture).unwrap();
}
