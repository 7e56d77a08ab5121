//! What `explain` says of the target Secret.

use serde_json::{Value, json};

use super::*;

/// The operator dates a token by its corrected clock where the record was written by a clock that was ahead.
#[test]
fn assess_of_a_record_by_another_clock_takes_the_times_of_status() {
    let mut found = found(source(json!({}), json!({})));
    found.target = Ok(Some(facts(record(&found.source, 7100, 7400), &KEYS)));
    let report = explain(&found).to_string();
    assert!(report.contains("is valid until 2027-01-15T08:03:20Z"), "{report}");
    assert!(report.contains("and status agrees"), "{report}");
}

#[test]
fn assess_of_an_unusable_target_is_not_valid() {
    let none = || json!({});
    let change = |change: &dyn Fn(&mut Found)| {
        let mut found = found(source(none(), none()));
        change(&mut found);
        explain(&found)
    };
    let with = |part: Value, keys: &[&str]| {
        let source = source(none(), none());
        let mut record = record(&source, -100, 200);
        merge(&mut record, part);
        Ok(Some(facts(record, keys)))
    };
    for (report, part) in [
        (change(&|it| it.target = Ok(None)), "vgs-token does not exist"),
        (
            change(&|it| it.target = with(json!({"expiresAt": at(-5)}), &KEYS)),
            "has ended, at 2027-01-15T07:59:55Z (5 s ago)",
        ),
        (
            change(&|it| it.target = with(json!({"owner": {"name": "other"}}), &KEYS)),
            "is not this TokenSource's: it belongs to TokenSource other",
        ),
        (
            change(&|it| it.target = with(none(), &["access_token"])),
            "another writer changed or removed a key",
        ),
        (
            change(&|it| it.target = with(json!({"inputs": {"provider": "other"}}), &KEYS)),
            "requested for an earlier spec",
        ),
        (
            // The keys are those of the former template: no other writer changed them.
            change(&|it| {
                it.source =
                    source(json!({"target": {"template": {"data": {"config": "{{ token }}"}}}}), none());
                it.target = with(none(), &KEYS);
            }),
            "is written with an earlier spec.target.template",
        ),
        (
            change(&|it| it.target = with(json!({"version": 2}), &["access_token"])),
            "was written by another version of the operator, with other keys",
        ),
        (
            change(&|it| {
                it.source = source(json!({"refresh": {"before": "soon"}}), none());
                it.target = with(none(), &KEYS);
            }),
            "the spec is invalid",
        ),
    ] {
        assert_eq!(report.verdict, Level::NotValid, "{part}");
        let text = report.to_string();
        assert!(
            text.contains("there is no valid token for the present spec") && text.contains(part),
            "{part}\n{text}"
        );
    }
    let lags = change(&|it| it.target = with(json!({"tokenId": "000000000000"}), &KEYS));
    assert!(lags.target.message.contains("status names 3f9a1c0d42be"), "{lags}");
    assert_eq!(lags.verdict, Level::Attention);
    let lags = change(&|it| it.target = with(json!({"tokenId": "000000000000", "issuedAt": at(-90)}), &KEYS));
    assert!(lags.target.message.contains("it was not reported yet"), "{lags}");
    let older =
        change(&|it| it.target = with(json!({"tokenId": "000000000000", "issuedAt": at(-900)}), &KEYS));
    assert!(older.target.message.contains("it was put back, for example from a backup"), "{older}");
    let moved = json!({"inputs": {"credentials": {"uid": "c", "resourceVersion": "0"}}});
    let moved = change(&|it| it.target = with(moved.clone(), &KEYS));
    assert!(moved.target.message.contains("a token of an earlier version of Secret vgs-client"), "{moved}");
    assert_eq!((moved.target.level, moved.token.level), (Level::Attention, Level::Well));
}

/// Each beside what it could be mistaken for.
#[test]
fn assess_of_a_changed_key_names_the_writer_and_no_other_cause() {
    let mut found = found(source(json!({}), json!({})));
    let mut metadata = json!({
        "name": "vgs-token", "uid": "s", "resourceVersion": "9",
        "labels": {"app.kubernetes.io/managed-by": "tokensource-operator"},
        "annotations": {"tokensource.dev/record": record(&found.source, -100, 200).to_string()},
        "managedFields": [
            {"manager": "tokensource-operator", "operation": "Apply", "fieldsV1": {"f:data": {"f:token_type": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": at(-10), "fieldsV1": {"f:data": {"f:access_token": {}}}},
        ],
    });
    found.target = Ok(Facts::of(&serde_json::from_value(metadata.clone()).unwrap()));
    assert_eq!(
        explain(&found).target.message,
        "vgs-token does not hold it as it was written: another writer (kubectl-edit) changed or removed a key"
    );
    metadata["deletionTimestamp"] = json!(at(-1));
    found.target = Ok(Facts::of(&serde_json::from_value(metadata).unwrap()));
    assert_eq!(explain(&found).target.message, "vgs-token is being deleted");
}
