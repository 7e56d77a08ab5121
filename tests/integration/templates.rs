//! Templates of the target: rendering, changes, and errors.

use serde_json::{Value, json};

use super::oauth2;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

/// A TokenSource `source` with this template.
fn with(scene: &Scene, template: Value) -> Value {
    scene.source(json!({"target": {"template": template}}))
}

async fn set(scene: &Scene, template: Value) {
    scene.patch("tokensource", "source", json!({"spec": {"target": {"template": template}}})).await;
}

/// The names of Secret `token`'s keys, in order.
async fn keys(scene: &Scene) -> Vec<String> {
    scene.secrets().get("token").await.unwrap().data.unwrap_or_default().into_keys().collect()
}

async fn until_keys(scene: &Scene, expected: &[&str]) {
    eventually(&format!("the keys are {expected:?}"), SOON, async || {
        let keys = keys(scene).await;
        if keys == expected { Ok(()) } else { Err(keys) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn template_defines_target_content_and_restart_costs_no_token_request() {
    let scene = Scene::new("template", 600).await;
    let operator = Operator::start(&scene.namespace).await;
    let template = json!({
        "type": "example.com/token",
        "metadata": {"labels": {"team": "payments"}, "annotations": {"example.com/note": "a: b\n"}},
        "data": {
            "authorization": "{{ token_type }} {{ access_token }}",
            ".netrc": "machine api.example.com\nlogin oauth2\npassword {{ access_token }}\n",
            "times": "{{ issued_at }} {{ expires_at }} {{ expires_at_unix }}",
            "constant": "as it is",
        },
    });
    scene.apply(with(&scene, template)).await;
    scene.ready("True TokenValid").await;
    let secret = scene.secrets().get("token").await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("example.com/token"));
    let (labels, annotations) = (secret.metadata.labels.unwrap(), secret.metadata.annotations.unwrap());
    assert_eq!(labels["team"], "payments");
    assert_eq!(labels["app.kubernetes.io/managed-by"], "tokensource-operator");
    assert_eq!(annotations["example.com/note"], "a: b\n");
    assert_eq!(keys(&scene).await, [".netrc", "authorization", "constant", "times"]);
    let authorization = scene.value("token", "authorization").await.unwrap();
    let token = authorization.strip_prefix("Bearer ").unwrap();
    assert!(scene.server.is_valid(token).await);
    assert_eq!(scene.value("token", "constant").await.as_deref(), Some("as it is"));
    let times = scene.value("token", "times").await.unwrap();
    let times: Vec<&str> = times.split(' ').collect();
    let expires: jiff::Timestamp = times[1].parse().unwrap();
    assert_eq!(expires.duration_since(times[0].parse().unwrap()).as_secs(), 600);
    assert_eq!(times[2], expires.as_second().to_string());

    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_change_costs_one_token_request_and_removes_own_keys_only() {
    let scene = Scene::new("template-changed", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let theirs = json!({"metadata": {"labels": {"team": "theirs"}}, "data": {"ca.crt": "dGhlaXJz"}});
    scene.patch("secret", "token", theirs).await;

    // A longer spelling of the same is no change.
    set(&scene, json!({"type": "Opaque", "metadata": {"labels": {}}})).await;
    scene.ready("True TokenValid").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);

    let labels = json!({"labels": {"tier": "gold"}, "annotations": {"example.com/a": "b"}});
    set(&scene, json!({"metadata": labels, "data": {"header": "{{ access_token }}", "access_token": "{{ access_token }}"}})).await;
    until_keys(&scene, &["access_token", "ca.crt", "header"]).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);

    set(&scene, json!({"metadata": null, "data": {"header": null}})).await;
    until_keys(&scene, &["access_token", "ca.crt"]).await;
    scene.ready("True TokenValid").await;
    let secret = scene.secrets().get("token").await.unwrap().metadata;
    let (labels, annotations) = (secret.labels.unwrap(), secret.annotations.unwrap());
    assert_eq!((labels.get("tier"), labels["team"].as_str()), (None, "theirs"));
    assert_eq!(annotations.get("example.com/a"), None);
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 3);

    set(&scene, Value::Null).await;
    until_keys(&scene, &["access_token", "ca.crt", "expires_at", "token_type"]).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_error_costs_no_token_request_and_names_key_and_line() {
    let scene = Scene::new("template-broken", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    let data = |text: &str| json!({"data": {"key": text}});
    scene.apply(with(&scene, data("a\n{{ acces_token }}"))).await;
    let words = ["key key, line 2", "the name acces_token is not defined; there are access_token"];
    scene.reports("False TemplateInvalid", &words).await;
    scene.condition("source", "Stalled", "True TemplateInvalid").await;
    for (template, words) in [
        (data("{{ access_token"), "key key, line 1: this is not in Jinja's syntax"),
        (data("{% for a in scope %}{% endfor %}"), "and no other statements"),
        (data("{{ values.instance_url }}"), "values.instance_url is not defined"),
        (
            json!({"type": "kubernetes.io/dockerconfigjson", "data": {"key": null, ".dockerconfigjson": "{{ access_token }}"}}),
            "key .dockerconfigjson: what it makes is no JSON",
        ),
    ] {
        set(&scene, template).await;
        scene.reports("False TemplateInvalid", &[words]).await;
    }
    assert_eq!(scene.mints().await, 0);
    set(&scene, json!({"type": null, "data": {".dockerconfigjson": "{{ access_token }}"}})).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);

    // The existing token stays, and its condition is right.
    let before = scene.value("token", ".dockerconfigjson").await;
    set(&scene, data("{{ nothing }}")).await;
    scene.reports("False TemplateInvalid", &["the name nothing is not defined"]).await;
    assert_eq!(scene.value("token", ".dockerconfigjson").await, before);
    assert!(scene.status().await.token.is_some());
    assert_eq!(scene.mints().await, 1);
}

/// An endpoint that always returns this response, which has more members than the token.
async fn vendor(scene: &Scene, answer: &Value) -> ScriptedServer {
    scene.secret("credentials", &[("client_id", "id"), ("client_secret", "hunter2-4711")]).await;
    ScriptedServer::start(vec![Reply::Json(200, answer.to_string()); 8]).await
}

fn vendors(scene: &Scene, server: &ScriptedServer, values: Value, template: Value) -> Value {
    let mut source =
        oauth2::source(scene, json!({"tokenURL": server.url("/token"), "response": {"values": values}}));
    source["spec"]["target"]["template"] = template;
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn template_can_use_values_of_response() {
    let scene = Scene::bare("template-values").await;
    let answer = json!({"access_token": "t-1", "expires_in": 600, "data": [{"url": "https://a.example.com", "n": 7, "on": true}]});
    let server = vendor(&scene, &answer).await;
    let _operator = Operator::start(&scene.namespace).await;
    let values = json!({"url": "/data/0/url", "n": "/data/0/n", "on": "/data/0/on", "none": "/data/1"});
    let template = json!({"data": {
        "config.json": "{\"url\": {{ values.url | tojson }}, \"token\": {{ access_token | tojson }}, \"n\": {{ values.n }}, \"on\": {{ values.on }}}",
        "optional": "{{ values.none | default('-') }}",
    }});
    scene.apply(vendors(&scene, &server, values, template)).await;
    scene.ready("True TokenValid").await;
    let config: Value = serde_json::from_str(&scene.value("token", "config.json").await.unwrap()).unwrap();
    assert_eq!(config, json!({"url": "https://a.example.com", "token": "t-1", "n": 7, "on": true}));
    assert_eq!(scene.value("token", "optional").await.as_deref(), Some("-"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_missing_value_keeps_response_until_template_changes() {
    let scene = Scene::bare("template-missing").await;
    let server = vendor(&scene, &json!({"access_token": "t-1", "expires_in": 3600})).await;
    let _operator = Operator::start(&scene.namespace).await;
    let template = json!({"data": {"url": "{{ values.url }}", "token": "{{ access_token }}"}});
    scene.apply(vendors(&scene, &server, json!({"url": "/url"}), template)).await;
    scene.reports("False TemplateInvalid", &["key url, line 1: a value is not defined", "default('')"]).await;
    assert_eq!(server.requests().len(), 1);
    set(&scene, json!({"data": {"url": "{{ values.url | default('') }}"}})).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.value("token", "token").await.as_deref(), Some("t-1"));
    assert_eq!(server.requests().len(), 1, "the received token was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn template_missing_value_of_one_response_does_not_hold_the_next_request_back() {
    let scene = Scene::bare("template-once").await;
    scene.secret("credentials", &[("client_id", "id"), ("client_secret", "hunter2-4711")]).await;
    let answer = |answer: Value| Reply::Json(200, answer.to_string());
    let replies = vec![
        answer(json!({"access_token": "t-1", "expires_in": 3600})),
        answer(json!({"access_token": "t-2", "expires_in": 3600, "url": "https://a.example.com"})),
    ];
    let server = ScriptedServer::start(replies).await;
    let _operator = Operator::start(&scene.namespace).await;
    let template = json!({"data": {"url": "{{ values.url }}", "token": "{{ access_token }}"}});
    scene.apply(vendors(&scene, &server, json!({"url": "/url"}), template)).await;
    scene.reports("False TemplateInvalid", &["key url, line 1: a value is not defined"]).await;
    let request = "tokensource.dev/refresh-requested-at=1";
    scene.kubectl(&["annotate", "tokensource", "source", request], "").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.value("token", "token").await.as_deref(), Some("t-2"));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn template_values_never_contain_secrets_of_response() {
    let scene = Scene::bare("template-secret").await;
    // The response repeats the client secret and the new refresh token under other names.
    let answer = json!({"access_token": "t-1", "expires_in": 600, "refresh_token": "r-4711-new", "note": "it is hunter2-4711", "next": "r-4711-new"});
    let server = vendor(&scene, &answer).await;
    let operator = Operator::start(&scene.namespace).await;
    let template = json!({"data": {"note": "{{ values.note }}"}});
    for at in ["/note", "/next"] {
        scene.apply(vendors(&scene, &server, json!({"note": at}), template.clone())).await;
        let words = format!("with a secret at {at}, where response.values looks");
        scene.reports("False ResponseMalformed", &[&words]).await;
    }
    assert!(scene.secrets().get_opt("token").await.unwrap().is_none());
    let log = operator.stop().await;
    assert!(!log.contains("hunter2") && !log.contains("r-4711"));
}
