//! `kubectl tokensource report` against a real control plane: it has no value of a Secret, even one that other objects repeat,
//! and says what the role does not permit to read.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::Api;
use kube::api::{ListParams, PostParams};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rcgen::KeyPair;
use serde_json::json;

use super::canary::assert_silent;
use super::issuers::{issuer, names};
use super::plugin::{Plugin, everything};
use super::support::account::TestAccount;
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, ProgramOutput, output_beside, text};
use super::support::scene::Scene;

const SECRET: &str = "Kanarie/1+a=&%q";
const REFRESH_TOKEN: &str = "Kanarie-2.b~c d";
const ISSUER_SECRET: &str = "hunter2hunter2hunter2";

/// The files of a report by their path below its folder.
fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    files_of(&std::fs::read(archive).unwrap())
}

fn files_of(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let file = |mut entry: tar::Entry<'_, _>| {
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (path.split_once('/').unwrap().1.to_owned(), text)
    };
    archive.entries().unwrap().map(|entry| file(entry.unwrap())).collect()
}

fn values(secrets: &[Secret]) -> Vec<Vec<u8>> {
    let is_secret = |key: &str| !["client_id", "token_type", "expires_at"].contains(&key);
    let data = secrets.iter().flat_map(|secret| secret.data.iter().flatten());
    // Shorter ones may be a part of any text.
    data.filter(|(key, value)| is_secret(key) && value.0.len() >= 8)
        .map(|(_, value)| value.0.clone())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn report_has_no_value_of_a_secret_and_says_what_may_not_be_read() {
    let scene = Scene::new("report", 300).await;
    let (plugin, namespace) = (Plugin::new(), scene.namespace.clone());
    let template =
        json!({"config": "machine example.com\npassword {{ access_token }}\n", "only": "{{ access_token }}"});
    scene.apply(scene.source(json!({"target": {"template": {"data": template}}}))).await;
    let key = KeyPair::generate().unwrap().serialize_pem();
    let data = [
        ("client_id", "the-client"),
        ("client_secret", SECRET),
        ("refresh_token", REFRESH_TOKEN),
        ("private_key.pem", &key),
    ];
    scene.secret("others", &data).await;
    let mut broken = scene.source(json!({"credentials": {"secretRef": {"name": "others"}}}));
    broken["metadata"]["name"] = json!("broken");
    broken["spec"]["target"]["name"] = json!("broken");
    scene.apply(broken).await;
    // A tenant's word about a key of the Secret makes none of its values public.
    let mut liar = scene
        .source(json!({"credentials": {"secretRef": {"name": "others"}, "clientIDKey": "client_secret"}}));
    liar["metadata"]["name"] = json!("liar");
    liar["spec"]["target"]["name"] = json!("liar");
    liar["spec"]["suspend"] = json!(true);
    scene.apply(liar).await;
    let operator = Operator::start(&namespace).await;
    scene.ready("True TokenValid").await;
    scene.condition("broken", "Ready", "False ClientRejected").await;

    // A token that it refreshed later would be in no Secret any more.
    drop(operator);
    // Another program repeats all of it in an event, and a person in manifests.
    let secrets = scene.secrets().list(&ListParams::default()).await.unwrap().items;
    let values = values(&secrets);
    assert!(values.len() >= 5, "{}", values.len());
    let texts = values.iter().filter_map(|value| std::str::from_utf8(value).ok());
    let repeated: String = texts
        .flat_map(|text| {
            let json = json!(text).to_string();
            let percent = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            [
                text.replace('\n', " | "),
                json,
                percent,
                STANDARD.encode(text),
                URL_SAFE.encode(format!("id:{text}")),
            ]
        })
        .map(|form| format!("{form}\n"))
        .collect();
    let labels = json!({"app.kubernetes.io/part-of": "tokensource-operator"});
    let arguments = json!([
        "run",
        format!("--namespace={namespace}"),
        format!("--issuers-namespace={namespace}"),
        format!("--issuers-controller={namespace}"),
        format!("--log-level={SECRET}")
    ]);
    let containers = json!([{"name": "operator", "image": "o", "args": arguments, "env": [{"name": "NOTE", "value": repeated}]}]);
    let pods = json!({"metadata": {"labels": labels, "annotations": {"note": repeated}}, "spec": {"containers": containers}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": pods});
    scene
        .apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "o", "labels": labels}, "spec": spec}))
        .await;
    let mut lends = issuer(&scene, names(&[&scene]));
    lends["spec"]["provider"]["oauth2"]["parameters"] = json!({"key": ISSUER_SECRET});
    scene.apply(lends).await;
    scene.secret("idp-client", &[("client_secret", ISSUER_SECRET)]).await;
    let repeated = repeated + ISSUER_SECRET;
    for (number, line) in repeated.lines().enumerate() {
        let message: String = line.chars().take(1000).collect();
        scene
            .apply(json!({
                "apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("repeats-{number}")},
                "involvedObject": {"kind": "TokenSource", "namespace": namespace, "name": "source"},
                "reason": "Repeated", "type": "Normal", "message": message,
            }))
            .await;
    }
    scene
        .apply(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "names-the-client"},
            "involvedObject": {"kind": "TokenSource", "namespace": namespace, "name": "broken"},
            "reason": "Named", "type": "Normal", "message": "the client is the-client",
        }))
        .await;

    // Where events about objects of no namespace are.
    let about_issuer = serde_json::from_value(json!({
        "metadata": {"generateName": "says-", "namespace": "default"},
        "involvedObject": {"kind": "ClusterTokenIssuer", "name": namespace},
        "reason": "Said", "type": "Normal", "message": format!("of the issuer: {ISSUER_SECRET}"),
    }))
    .unwrap();
    let client = ControlPlane::shared().client().await;
    Api::<Event>::namespaced(client, "default").create(&PostParams::default(), &about_issuer).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.tar.gz");
    let path = file.display().to_string();
    let said = plugin
        .run(&everything(), &["report", "-n", &namespace, "--operator-namespace", &namespace, "-o", &path])
        .await;
    assert!([0, 3].contains(&said.code) && said.stderr.contains(" files, "), "{said:?}");
    let files = unpacked(&file);
    let all: String = files.iter().map(|(path, text)| format!("== {path}\n{text}\n")).collect();
    for part in [
        "== report.txt",
        "== check.txt",
        "== tokensources.txt",
        &format!("== tokensources/{namespace}/source.yaml"),
        &format!("== secrets/{namespace}.yaml"),
        &format!("== operator/{namespace}/o/deployment.yaml"),
        "== definition.yaml",
        "== issuer-definition.yaml",
        &format!("== issuers/{namespace}.yaml"),
        "kind: ClusterTokenIssuer",
        "TokenSource {namespace}/broken",
        "client_secret: 15",
        "Normal TokenSource",
        "Repeated: ",
        "Said: of the issuer: [redacted]",
        "[redacted]",
        "there is no valid token",
    ] {
        let part = part.replace("{namespace}", &namespace);
        assert!(all.contains(&part), "{part} is not in:\n{}\n{}", files["report.txt"], files["explain.txt"]);
    }
    assert!(
        all.contains("Named: the client is [redacted]"),
        "{}",
        files[&format!("events/tokensources-{namespace}.txt")]
    );
    assert!(!all.contains(ISSUER_SECRET), "a value of an issuer's Secret");
    assert_silent("the report", &(all + &said.all()), &values);

    // Also where the TokenSource that names another key is not selected.
    let of_one = ["report", "broken", "-n", &namespace, "--operator-namespace", &namespace, "-o", &path];
    let said = plugin.run(&everything(), &of_one).await;
    assert!([0, 3].contains(&said.code), "{said:?}");
    let files = unpacked(&file);
    let events = &files[&format!("events/tokensources-{namespace}.txt")];
    assert!(events.contains("Named: the client is [redacted]"), "{events}");
    assert!(!files.contains_key(&format!("tokensources/{namespace}/liar.yaml")), "{:?}", files.keys());

    scene
        .apply(json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "lent"},
            "spec": {"issuerRef": {"name": namespace}, "request": {"scopes": ["read"]}, "suspend": true},
        }))
        .await;
    // Without rights, and as the roles view and edit.
    let account = TestAccount::new(&scene, "person").await;
    let report = async || {
        let said = plugin
            .run(
                &account.kubeconfig(),
                &["report", "-n", &namespace, "--operator-namespace", &namespace, "-o", &path],
            )
            .await;
        (said, unpacked(&file))
    };
    let says = |said: &ProgramOutput, sentence: &str| {
        said.assert(3, &[&format!("not in the report: {sentence}")]);
        let long = said.stderr.lines().filter(|line| line.contains(sentence)).count();
        assert_eq!(long, 1, "one sentence: {said:?}");
    };
    let (said, files) = report().await;
    says(&said, "TokenSources: TokenSources cannot be listed: tokensources.tokensource.dev is forbidden");
    says(&said, "the operator: the operator's Deployment cannot be read: deployments.apps is forbidden");
    assert!(files["report.txt"].contains("Not in the report:\n- ") && files.contains_key("check.txt"));

    let group = json!(["tokensource.dev"]);
    let view = json!({"apiGroups": group, "resources": ["tokensources"], "verbs": ["list", "get"]});
    account.may(json!([view])).await;
    let (said, files) = report().await;
    says(
        &said,
        &format!(
            "Secrets of {namespace} (broken, broken-refresh-token, credentials, lent, lent-refresh-token, liar, liar-refresh-token, others, source-refresh-token, token), so"
        ),
    );
    says(&said, &format!("events of {namespace}: events is forbidden"));
    says(&said, "ClusterTokenIssuers: clustertokenissuers.tokensource.dev is forbidden");
    says(&said, "the CustomResourceDefinition of ClusterTokenIssuers: customresourcedefinitions");
    assert!(files.contains_key(&format!("tokensources/{namespace}/source.yaml")), "{files:?}");

    let edit =
        json!({"apiGroups": [""], "resources": ["secrets", "events", "pods"], "verbs": ["get", "list"]});
    account.may(json!([edit, view])).await;
    let (said, files) = report().await;
    assert_eq!((said.code, said.stderr.contains("Secrets of ")), (3, false), "{said:?}");
    let all: String = files.values().cloned().collect();
    assert!(all.contains("Repeated: "), "{:?}", files.keys());
    assert_silent("the report of the role edit", &(all + &said.all()), &values);

    // Standard output, and what cannot be written.
    let mut to_stdout = Command::new(PROGRAM);
    to_stdout.args(["report", "-n", &namespace, "-o", "-", "--operator-namespace", &namespace]);
    to_stdout.arg("--kubeconfig").arg(everything());
    let output = output_beside(to_stdout, "").await;
    let notes = text(&output.stderr);
    assert!(
        [Some(0), Some(3)].contains(&output.status.code())
            && notes.contains(" kB: standard output. It contains"),
        "{notes}"
    );
    let files = files_of(&output.stdout);
    assert!(files.contains_key(&format!("tokensources/{namespace}/source.yaml")), "{:?}", files.keys());
    assert_silent("the report on standard output", &files.into_values().collect::<String>(), &values);
    let said = plugin.run(&everything(), &["report", "-n", &namespace, "-o", "/nonexistent/a"]).await;
    said.assert(1, &["/nonexistent/a cannot be written"]);
}
