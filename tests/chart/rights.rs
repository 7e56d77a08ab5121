//! Roles and bindings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::identities;
use super::support::chart::{CHART, NAMESPACE, find, objects, render, template_with_tests};

#[test]
fn chart_rules_for_secrets_equal_those_of_templates() {
    let file = std::fs::read_to_string(format!("{CHART}/files/secret-rules.json")).unwrap();
    let rules: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(rules, tokensource_api::permitted::secret_rules(), "run `make generate`");
}

#[test]
fn namespaced_mode_grants_the_same_rules_by_roles_and_no_cluster_role() {
    let everywhere = render(NAMESPACE, &json!({}));
    let everywhere = identities(&everywhere);
    let name = format!("tokensource-operator.{NAMESPACE}");
    let granted = |kind: &str, namespace: &str| [kind.to_owned(), namespace.to_owned(), name.clone()];
    let values = json!({"namespaces": ["b", "a"], "rbac": {"aggregateToDefaultRoles": false}});
    let namespaced = render(NAMESPACE, &values);
    let namespaced = identities(&namespaced);
    for namespace in ["a", "b"] {
        let role = namespaced[&granted("Role", namespace)];
        let mut rules = everywhere[&granted("ClusterRole", "")]["rules"].as_array().unwrap().clone();
        // What belongs to the cluster.
        rules.retain(|rule| rule["resources"] != json!(["servicecidrs"]));
        assert_eq!(role["rules"], json!(rules));
        let binding = namespaced[&granted("RoleBinding", namespace)];
        assert_eq!(binding["subjects"], everywhere[&granted("ClusterRoleBinding", "")]["subjects"]);
    }
    assert!(!namespaced.keys().any(|[kind, ..]| kind.starts_with("ClusterRole")), "{namespaced:?}");
}

/// What is off has no right; what is on has one for the ServiceAccounts that are named.
#[test]
fn tokens_of_service_accounts_are_a_right_of_served_namespaces_and_of_named_accounts_only_where_allowed() {
    let allowed = json!([{"audience": "https://idp.example.com", "hosts": ["idp.example.com"]}]);
    let tokens = |names: &[&str]| json!({"allowed": allowed, "names": names});
    let rules = |values: Value, kind: &str, suffix: &str| -> Vec<Value> {
        let rendered = render(NAMESPACE, &values);
        let named = |it: &&Value| {
            let name = it["metadata"]["name"].as_str().unwrap();
            it["kind"] == kind && name == format!("tokensource-operator.{NAMESPACE}{suffix}")
        };
        let role = rendered.iter().find(named).unwrap()["rules"].as_array().unwrap().clone();
        role.into_iter().filter(|rule| rule.to_string().contains("serviceaccounts")).collect()
    };
    let expected = |names: Option<&[&str]>| {
        [("serviceaccounts", "get"), ("serviceaccounts/token", "create")].map(|(resource, verb)| {
            let mut rule = json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]});
            if let Some(names) = names {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
    };
    let per_namespace = json!({"mode": "perNamespace"});
    assert_eq!(rules(json!({}), "ClusterRole", ""), [] as [Value; 0]);
    assert_eq!(rules(json!({"serviceAccountTokens": tokens(&[])}), "ClusterRole", ""), expected(None));
    let values = json!({"serviceAccountTokens": tokens(&["a"]), "namespaces": ["n"]});
    assert_eq!(rules(values, "Role", ""), expected(Some(&["a"])));
    let values = json!({"serviceAccountTokens": tokens(&["a"]), "rbac": per_namespace});
    assert_eq!(rules(values.clone(), "ClusterRole", ""), [] as [Value; 0]);
    assert_eq!(rules(values, "ClusterRole", "-served"), expected(Some(&["a"])));
    let policy =
        |values: Value| find(&render(NAMESPACE, &values), "ValidatingAdmissionPolicy", "").to_string();
    assert!(!policy(json!({})).contains("serviceaccounts/token"));
    assert!(policy(json!({"serviceAccountTokens": tokens(&[])})).contains("serviceaccounts/token CREATE"));
}

#[test]
fn rights_by_namespace_are_the_same_in_roles_of_which_one_is_bound_in_the_cluster() {
    let everywhere = render(NAMESPACE, &json!({}));
    let bind = json!(["b", "a", "b"]);
    let bound = render(NAMESPACE, &json!({"rbac": {"mode": "perNamespace", "bind": bind}}));
    let name = format!("tokensource-operator.{NAMESPACE}");
    let rules = |objects: &[Value], name: &str| {
        let role = |it: &&Value| it["kind"] == "ClusterRole" && it["metadata"]["name"] == name;
        objects.iter().find(role).unwrap()["rules"].as_array().unwrap().clone()
    };
    let served = format!("{name}-served");
    let (in_cluster, in_namespace) = (rules(&bound, &name), rules(&bound, &served));
    let text = |rules: &[Value]| rules.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        text(&[in_cluster.clone(), in_namespace].concat()),
        text(&rules(&everywhere, &name)),
        "together they are those of the other mode"
    );
    let resources = in_cluster.iter().flat_map(|rule| rule["resources"].as_array().unwrap().clone());
    let resources: BTreeSet<_> = resources.map(|it| it.as_str().unwrap().to_owned()).collect();
    let expected = ["servicecidrs", "tokensources", "tokensources/status"].map(str::to_owned);
    assert_eq!(resources, BTreeSet::from(expected));

    let bindings = |kind: &str| -> Vec<_> {
        let of_kind = bound.iter().filter(|it| it["kind"] == kind && it["roleRef"]["kind"] == "ClusterRole");
        of_kind.map(|it| (it["metadata"]["namespace"].clone(), it["roleRef"]["name"].clone())).collect()
    };
    assert_eq!(bindings("ClusterRoleBinding"), [(Value::Null, json!(name))], "no other role, `bind` least");
    assert_eq!(bindings("RoleBinding"), ["a", "b"].map(|it| (json!(it), json!(served))));
    let may_bind = find(&bound, "ClusterRole", "-bind");
    assert_eq!(may_bind["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
    assert_eq!(may_bind["rules"][0]["resourceNames"], json!([served]));
}

/// What is off has no right. The Secrets of issuers are those of the operator's namespace, in every mode.
#[test]
fn issuers_are_a_right_of_the_operators_namespace_and_of_the_cluster_only_where_enabled() {
    let issuers = |values: &Value, more: Value| {
        let mut values = values.clone();
        values["issuers"] = more;
        render(NAMESPACE, &values)
    };
    let name = format!("tokensource-operator.{NAMESPACE}-issuers");
    for (mode, reads_labels) in [
        (json!({}), true),
        (json!({"rbac": {"mode": "perNamespace"}}), true),
        (json!({"namespaces": ["a"]}), false),
    ] {
        let mut off = render(NAMESPACE, &mode);
        off.retain(|it| it["kind"] != "CustomResourceDefinition");
        assert!(
            !json!(off).to_string().contains("-issuers")
                && !json!(off).to_string().contains("clustertokenissuers.")
        );
        let on = issuers(&mode, json!({"enabled": true}));
        let rules = |kind: &str| {
            let role =
                on.iter().find(|it| it["kind"] == kind && it["metadata"]["name"] == json!(name)).unwrap();
            let of_role = |it: &Value| (it["resources"][0].clone(), it["verbs"].clone());
            (
                role["metadata"]["namespace"].clone(),
                role["rules"].as_array().unwrap().iter().map(of_role).collect::<Vec<_>>(),
            )
        };
        let mut in_cluster = vec![
            (json!("clustertokenissuers"), json!(["list", "watch"])),
            (json!("clustertokenissuers/status"), json!(["patch"])),
        ];
        in_cluster.extend(reads_labels.then(|| (json!("namespaces"), json!(["list", "watch"]))));
        assert_eq!(rules("ClusterRole"), (Value::Null, in_cluster), "{mode}");
        let own =
            vec![(json!("secrets"), json!(["get", "list", "watch"])), (json!("configmaps"), json!(["get"]))];
        assert_eq!(rules("Role"), (json!(NAMESPACE), own), "{mode}");
        let events = on.iter().find(|it| it["kind"] == "Role" && it["metadata"]["namespace"] == "default");
        assert_eq!(events.unwrap()["rules"][0]["resources"], json!(["events"]), "{mode}");
        let policies = |objects: &[Value]| {
            objects.iter().filter(|it| it["kind"] == "ValidatingAdmissionPolicy").cloned().collect::<Vec<_>>()
        };
        let [policy] = &policies(&on)[..] else { panic!("one policy") };
        for words in ["clustertokenissuers.tokensource.dev/status UPDATE", "key != 'tokensource.dev/issuer'"]
        {
            assert!(policy.to_string().contains(words), "{words}");
        }
        let required = policies(&issuers(&mode, json!({"enabled": true, "required": true})));
        assert_eq!(required.len(), 2);
        // No role of people reaches the kind.
        let people = on.iter().filter(|it| it["metadata"]["labels"].to_string().contains("aggregate-to-"));
        assert!(
            people.clone().count() > 0
                && people.into_iter().all(|it| !it.to_string().contains("clustertokenissuers"))
        );
    }
}

/// With these rights `explain` knows all that it reports.
#[test]
fn helm_test_may_read_what_its_spec_names_and_nothing_else() {
    let tokens = json!({"allowed": [{"audience": "https://a", "hosts": ["a"]}]});
    let provider = json!({"oauth2": {"issuer": "https://a"}});
    let target = "tokensource-operator-test-token";
    for (spec, more, secrets, accounts) in [
        (
            json!({"provider": provider, "credentials": {"secretRef": {"name": "client"}}}),
            json!({}),
            json!([target, "client"]),
            None,
        ),
        (
            json!({"provider": provider, "credentials": {"serviceAccountToken": {"name": "payments"}}}),
            json!({"serviceAccountTokens": tokens}),
            json!([target]),
            Some(json!(["payments"])),
        ),
        (
            json!({"issuerRef": {"name": "idp"}, "request": {"serviceAccountName": "payments"}}),
            json!({"issuers": {"enabled": true}}),
            json!([target]),
            Some(json!(["payments"])),
        ),
        (json!({"issuerRef": {"name": "idp"}}), json!({"issuers": {"enabled": true}}), json!([target]), None),
    ] {
        let mut values = more;
        values["helmTest"] = json!({"namespace": "payments", "spec": spec});
        let objects = objects(&template_with_tests(&values));
        let source = find(&objects, "TokenSource", "");
        assert_eq!(source["spec"]["target"]["name"], target);
        for (member, value) in spec.as_object().unwrap() {
            assert_eq!(source["spec"][member], *value, "{spec}");
        }
        let is_its_role =
            |it: &&Value| it["kind"] == "Role" && it["metadata"]["name"] == "tokensource-operator-test";
        let role = objects.iter().find(is_its_role).unwrap();
        assert_eq!(role["metadata"]["namespace"], "payments");
        let of = |resource: &str| {
            let rules = role["rules"].as_array().unwrap();
            let rule = rules.iter().find(|rule| rule["resources"] == json!([resource]))?;
            assert_eq!(rule["verbs"], json!(["get"]), "{resource}");
            Some(rule["resourceNames"].clone())
        };
        assert_eq!((of("secrets"), of("serviceaccounts")), (Some(secrets), accounts), "{spec}");
    }
}
