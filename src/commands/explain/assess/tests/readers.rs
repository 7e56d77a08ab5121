//! What `explain` says of the containers that use the Secret.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::commands::explain::assess::readers::container_token;

#[test]
fn assess_names_a_key_of_items_that_the_template_does_not_write() {
    let items = json!([{"key": "token", "path": "token"}]);
    let mut spec = folder();
    spec["volumes"] = json!([{"name": "t", "secret": {"secretName": "vgs-token", "items": items}}]);
    let metadata = json!({"name": "web-1", "uid": "p"});
    let pod =
        json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running", "startTime": at(-9000)}});
    let report = |target: Value| {
        let mut found = found(source(json!({"target": target}), json!({})));
        found.pods = Arc::new(Ok(vec![serde_json::from_value(pod.clone()).unwrap()]));
        explain(&found).to_string()
    };
    let finding = "mounts key token by `items`, which spec.target.template does not write";
    let without = report(json!({}));
    assert!(without.contains(finding) && without.contains("no new pod with it starts"), "{without}");
    let with = report(json!({"template": {"data": {"token": "{{ access_token }}"}}}));
    assert!(!with.contains("mounts key"), "{with}");
}

#[test]
fn container_token_by_way_and_start() {
    let mut subpath = folder();
    subpath["containers"][0]["volumeMounts"][0]["subPath"] = "access_token".into();
    let annotated = |seconds: i64| json!({"tokensource.dev/refreshed": at(seconds)});
    let token =
        |issued: i64| HeldToken { id: String::new(), issued_at: at(issued), expires_at: at(issued + 300) };
    for (issued, pod, level, part) in [
        (
            -100,
            pod("p", -9000, folder(), json!({})),
            Level::Well,
            "has had this token since 2027-01-15T07:59:50Z",
        ),
        (
            -20,
            pod("p", -9000, folder(), json!({})),
            Level::Well,
            "may read the token before it until 2027-01-15T08:01:10Z (in 70 s)",
        ),
        (-20, pod("p", -10, folder(), json!({})), Level::Well, "has had this token since its start at"),
        (
            -20,
            pod("p", -9000, folder(), annotated(-15)),
            Level::Well,
            "was annotated for this token at 2027-01-15T07:59:45Z",
        ),
        (-20, pod("p", -9000, folder(), annotated(-500)), Level::Well, "may read the token before it"),
        (-20, pod("p", -10, environment(), json!({})), Level::Attention, "has this token from its start at"),
        (
            -20,
            pod("p", -200, environment(), json!({})),
            Level::Attention,
            "(3 min 20 s ago), which is an earlier one (tokens live 5 min)",
        ),
        (
            -20,
            pod("p", -7200, subpath, json!({})),
            Level::Attention,
            "(2 h ago), which has ended by now (tokens live 5 min)",
        ),
    ] {
        let uses = pod.uses("vgs-token");
        let found = container_token(at(0), Some(&token(issued)), 90, &pod, uses[0]);
        assert_eq!(found.level, level, "{part}");
        assert!(found.message.contains(part), "{part}: {}", found.message);
    }
}
