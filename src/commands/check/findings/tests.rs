use serde_json::{Value, json};

use super::*;
use tokensource_api::crd;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn refused() -> CallError {
    CallError::Refused("forbidden".into())
}

fn right(verb: &'static str) -> Right {
    Right { group: "", resource: "secrets", verb, namespace: None }
}

/// An object of Kubernetes from JSON.
fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A cluster in which all is well.
fn seen() -> Seen {
    let lease = json!({"spec": {"holderIdentity": "pod-1", "renewTime": at(-3), "leaseDurationSeconds": 15}});
    let deployment = json!({
        "metadata": {"name": "o", "namespace": "s", "labels": {"app.kubernetes.io/version": VERSION}},
        "spec": {"replicas": 2, "selector": {}, "template": {}},
        "status": {"availableReplicas": 2},
    });
    let its_user = "request.userInfo.username == 'system:serviceaccount:s:o'";
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConditions": [{"name": "u", "expression": its_user}]}});
    Seen {
        namespace: "payments".into(),
        version: Ok(((1, 33), "v1.33.1".into())),
        definition: Ok(Some(crd())),
        sources: Ok(vec![]),
        operators: Ok(vec![Operator {
            deployment: object(deployment),
            account: ("s".into(), "o".into()),
            lease: Some((Key::new("s", "l"), Ok(Some(object(lease))))),
            rights: vec![(right("get"), Ok(true))],
            issuers: None,
        }]),
        policies: Ok(vec![object(policy)]),
        bindings: Ok(vec![object(json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}))]),
        own: vec![(right("get"), Ok(true)), (right("list"), Ok(false))],
    }
}

/// The second policy of `issuers.required`, which judges nothing of the operator.
fn about_sources() -> ValidatingAdmissionPolicy {
    object(json!({"metadata": {"name": "p"}, "spec": {"validations": []}}))
}

fn changed(change: impl FnOnce(&mut Seen)) -> Seen {
    let mut seen = seen();
    change(&mut seen);
    seen
}

fn of_operator_with(change: impl FnOnce(&mut Operator)) -> Seen {
    changed(|seen| change(&mut seen.operators.as_mut().unwrap()[0]))
}

#[test]
fn findings_of_a_ready_cluster_are_all_ok() {
    let all = findings(at(0), &seen());
    assert!(all.iter().all(|finding| finding.grade == Grade::Ok), "{all:?}");
    let parts: Vec<_> = all.iter().map(|finding| finding.part).collect();
    assert_eq!(
        parts,
        ["kubernetes", "definition", "operator", "version", "leader", "rights", "policies", "you"]
    );
    assert_eq!(all[7].message, "may get secrets, and not list secrets");
}

#[test]
fn oldest_version_of_kubernetes_is_that_of_the_chart() {
    let chart = include_str!("../../../../charts/tokensource-operator/Chart.yaml");
    let version = format!("kubeVersion: \">=1.{FIRST_MINOR}.0-0\"");
    assert!(chart.lines().any(|line| line == version), "{chart}");
}

#[test]
fn findings_name_what_is_missing_and_what_is_not_known() {
    let lease =
        |value: Value| of_operator_with(|it| it.lease = Some((Key::new("s", "l"), Ok(Some(object(value))))));
    for (seen, part, grade, words) in [
        (
            changed(|it| it.version = Ok(((1, 30), "v1.30.9".into()))),
            "kubernetes",
            Grade::Fail,
            "v1.30.9 is too old: 1.31 is needed",
        ),
        (changed(|it| it.version = Ok(((1, 31), "v1.31.0".into()))), "kubernetes", Grade::Ok, "v1.31.0"),
        (changed(|it| it.definition = Ok(None)), "definition", Grade::Fail, "is not installed"),
        (
            changed(|it| it.definition.as_mut().unwrap().as_mut().unwrap().spec.versions[0].schema = None),
            "definition",
            Grade::Warn,
            "its schema is not that of version",
        ),
        (changed(|it| it.definition = Err(refused())), "definition", Grade::Ok, "of payments can be listed"),
        (
            changed(|it| (it.definition, it.sources) = (Err(refused()), Err(refused()))),
            "definition",
            Grade::Unknown,
            "cannot be read: forbidden",
        ),
        (
            changed(|it| it.operators = Err(InstallationError::NotFound)),
            "operator",
            Grade::Fail,
            "install it",
        ),
        (
            changed(|it| it.operators = Err(InstallationError::Unlocated(refused()))),
            "operator",
            Grade::Unknown,
            "where the operator is cannot be read (forbidden): say it with --operator-namespace",
        ),
        (
            of_operator_with(|it| it.deployment.status = None),
            "operator",
            Grade::Fail,
            "no available pod of 2",
        ),
        (of_operator_with(|it| it.deployment.metadata.labels = None), "version", Grade::Unknown, "no label"),
        (
            lease(json!({"spec": {"holderIdentity": "a", "renewTime": at(-31)}})),
            "leader",
            Grade::Fail,
            "has not renewed Lease s/l for 31 s",
        ),
        (
            lease(json!({"spec": {"holderIdentity": "", "renewTime": at(-1)}})),
            "leader",
            Grade::Fail,
            "nothing holds",
        ),
        (
            of_operator_with(|it| it.rights.push((right("patch"), Ok(false)))),
            "rights",
            Grade::Fail,
            "may not patch secrets",
        ),
        (
            of_operator_with(|it| it.rights.push((right("patch"), Err(refused())))),
            "rights",
            Grade::Unknown,
            "cannot be read",
        ),
        (of_operator_with(|it| it.issuers = Some(Ok(None))), "issuers", Grade::Fail, "is not installed"),
        (of_operator_with(|it| it.issuers = Some(Ok(Some(crd())))), "issuers", Grade::Warn, "its schema"),
        (of_operator_with(|it| it.issuers = Some(Err(refused()))), "issuers", Grade::Unknown, "forbidden"),
        (
            of_operator_with(|it| it.issuers = Some(Ok(Some(tokensource_api::issuer_crd())))),
            "issuers",
            Grade::Ok,
            "ClusterTokenIssuers are known",
        ),
        (changed(|it| it.policies = Ok(vec![])), "policies", Grade::Warn, "admissionPolicy.enabled"),
        (
            changed(|it| {
                (it.operators, it.policies) = (Err(InstallationError::NotFound), Ok(vec![]));
            }),
            "policies",
            Grade::Warn,
            "no admission policy keeps the operator from",
        ),
        (
            changed(|it| it.policies = Ok(vec![about_sources()])),
            "policies",
            Grade::Warn,
            "no admission policy keeps s/o from writing other Secrets",
        ),
        (
            of_operator_with(|it| it.account.1 = "other".into()),
            "policies",
            Grade::Warn,
            "no admission policy keeps s/o",
        ),
        (
            changed(|it| {
                it.policies = Ok(vec![about_sources()]);
                let arguments = json!(["run", "--service-account-tokens-allowed=https://a=a"]);
                let containers = json!([{"name": "operator", "args": arguments}]);
                it.operators.as_mut().unwrap()[0].deployment.spec.as_mut().unwrap().template =
                    object(json!({"spec": {"containers": containers}}));
            }),
            "policies",
            Grade::Fail,
            "may create tokens of any ServiceAccount",
        ),
        (changed(|it| it.bindings = Ok(vec![])), "policies", Grade::Fail, "p has no binding"),
        (
            changed(|it| {
                it.bindings =
                    Ok(vec![object(json!({"spec": {"policyName": "p", "validationActions": ["Audit"]}}))])
            }),
            "policies",
            Grade::Fail,
            "the binding of p does not deny",
        ),
        (changed(|it| it.policies = Err(refused())), "policies", Grade::Unknown, "forbidden"),
    ] {
        let all = findings(at(0), &seen);
        let found = all.iter().find(|finding| finding.part == part).unwrap();
        assert_eq!(found.grade, grade, "{words}: {found:?}");
        assert!(found.message.contains(words), "{words}: {found:?}");
    }
}
