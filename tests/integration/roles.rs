//! Each command of `kubectl tokensource` as a user with the cluster's own roles `view` and `edit`, which the chart extends, and
//! with none: what may not be done is said in one sentence.

use serde_json::{Value, json};

use super::plugin::{Plugin, everything};
use super::support::account::TestAccount;
use super::support::eventually;
use super::support::program::ProgramOutput;
use super::support::scene::{SOON, Scene};

const VIEW: &str = include_str!("../../deploy/olm/manifests/tokensource-operator-view.clusterrole.yaml");
const EDIT: &str = include_str!("../../deploy/olm/manifests/tokensource-operator-edit.clusterrole.yaml");

/// What a command says to a user.
#[derive(Clone, Copy)]
struct Expected {
    code: i32,
    words: &'static str,
}

const fn says(code: i32, words: &'static str) -> Expected {
    Expected { code, words }
}

const UNREAD: &str = "cannot be read: tokensources.tokensource.dev \"source\" is forbidden: User";
const UNCHANGED: &str = "cannot be changed: tokensources.tokensource.dev \"source\" is forbidden: User";

#[tokio::test(flavor = "multi_thread")]
async fn commands_say_in_a_sentence_what_the_roles_view_edit_and_none_do_not_permit() {
    let scene = Scene::new("roles", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let mut asleep = scene.source(json!({"suspend": true}));
    asleep["metadata"]["name"] = json!("asleep");
    asleep["spec"]["target"]["name"] = json!("asleep");
    scene.apply(asleep).await;
    let roles = [(VIEW, "view"), (EDIT, "edit")].map(|(manifest, role)| {
        let mut manifest: Value = serde_saphyr::from_str(manifest).unwrap();
        manifest["metadata"]["name"] = json!(format!("{}-{role}", scene.namespace));
        manifest
    });
    for role in &roles {
        scene.apply(role.clone()).await;
    }
    let (plugin, namespace) = (Plugin::new(), scene.namespace.as_str());
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.tar.gz").display().to_string();
    let account = TestAccount::new(&scene, "person").await;
    let as_person = async |command: &str, rest: &[&str]| -> ProgramOutput {
        let mut arguments = vec![command];
        if command != "bindings" {
            arguments.extend(["-n", namespace]);
        }
        arguments.extend(rest);
        plugin.run(&account.kubeconfig(), &arguments).await
    };
    let mint: &[&str] = &["source", "--allow-http", "--egress-allow=127.0.0.0/8"];
    let report: &[&str] = &["-o", &report];
    let forbidden = "TokenSources cannot be listed: tokensources.tokensource.dev is forbidden: User";
    // Command, its arguments, and what it says to none, view and edit.
    let cases: [(&str, &[&str], [Expected; 3]); 9] = [
        ("get", &[], [says(1, forbidden), says(0, "source"), says(0, "source")]),
        (
            "explain",
            &["source"],
            [says(1, UNREAD), says(2, "you may not read Secret token"), says(2, "there is no valid token")],
        ),
        ("refresh", &["source"], [says(1, UNREAD), says(1, UNCHANGED), says(0, "source refresh requested")]),
        ("suspend", &["source"], [says(1, UNREAD), says(1, UNCHANGED), says(0, "source suspended")]),
        (
            "resume",
            &["asleep"],
            [
                says(1, "\"asleep\" is forbidden"),
                says(1, "\"asleep\" is forbidden"),
                says(0, "asleep resumed"),
            ],
        ),
        (
            "mint",
            mint,
            [says(1, UNREAD), says(2, "secrets \"credentials\" is forbidden: User"), says(0, "access_token")],
        ),
        (
            "check",
            &[],
            [
                says(3, "unknown  definition"),
                says(3, "and not patch tokensources"),
                says(3, "unknown  operator    where the operator is cannot be read"),
            ],
        ),
        (
            "report",
            report,
            [
                says(3, forbidden),
                says(3, "so that their values could not be looked for in the texts: secrets"),
                says(3, "not in the report: the operator: where the operator is cannot be read"),
            ],
        ),
        (
            "bindings",
            &[],
            [
                says(1, "at the cluster scope"),
                says(1, "at the cluster scope"),
                says(1, "at the cluster scope"),
            ],
        ),
    ];
    for (number, role) in [None, Some("view"), Some("edit")].into_iter().enumerate() {
        if let Some(role) = role {
            let person = format!("--serviceaccount={namespace}:person");
            scene
                .kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &person], "")
                .await;
            let verb = if role == "view" { "list" } else { "patch" };
            let who = format!("--as=system:serviceaccount:{namespace}:person");
            eventually("the role takes effect", SOON, async || {
                scene.try_kubectl(&["auth", "can-i", verb, "tokensources.tokensource.dev", &who], "").await
            })
            .await;
        }
        for (command, arguments, expected) in &cases {
            let said = as_person(command, arguments).await;
            let Expected { code, words } = expected[number];
            assert_eq!(said.code, code, "{role:?} {command}: {said:?}");
            assert!(said.all().contains(words), "{words:?}, {role:?} {command}: {said:?}");
            // Where a command ends for want of a right, it says no more than that.
            if code == 1 && *command != "mint" {
                assert!(said.stderr.starts_with("kubectl-tokensource: "), "{command}: {said:?}");
                assert_eq!(
                    (said.stdout.as_str(), said.stderr.lines().count()),
                    ("", 1),
                    "{command}: {said:?}"
                );
            }
        }
    }
    // Only an administrator may read all of it.
    let all = plugin.run(&everything(), &["bindings"]).await;
    assert_eq!(all.code, 0, "{all:?}");
    for role in &roles {
        let name = role["metadata"]["name"].as_str().unwrap();
        scene.kubectl(&["delete", "clusterrole", name], "").await;
    }
}
