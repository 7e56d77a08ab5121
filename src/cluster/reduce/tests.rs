use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const OBJECT: Keep = Keep::Members(&[
    (
        "metadata",
        Keep::Members(&[
            ("name", Keep::Value(64)),
            ("labels", Keep::Members(&[("kept", Keep::Value(64))])),
            ("fields", Keep::Elements(&Keep::Members(&[("manager", Keep::Value(20))]), 100)),
        ]),
    ),
    ("spec", Keep::Value(300)),
]);
const LIST: Keep = Keep::Members(&[
    ("metadata", Keep::Members(&[("continue", Keep::Value(64))])),
    ("items", Keep::Items(&OBJECT)),
]);

/// Reduces `input` in parts of `step` bytes.
fn reduced(root: Keep, input: &str, step: usize) -> Vec<Reduced> {
    let (mut reducer, mut all) = (Reducer::new(root), vec![]);
    for mut part in input.as_bytes().chunks(step) {
        while let Some(reduced) = reducer.next(&mut part).unwrap() {
            all.push(reduced);
        }
        assert!(part.is_empty());
    }
    assert!(reducer.is_complete(), "{input}");
    all
}

/// What [`Keep`] means, with the JSON as a whole. Bounds count bytes of compact JSON.
fn expected(keep: Keep, value: &Value) -> Value {
    match (keep, value) {
        (Keep::Value(bound), value) if value.to_string().len() <= bound => value.clone(),
        (Keep::Members(members), Value::Object(object)) => {
            let kept = members
                .iter()
                .filter_map(|(name, keep)| Some(((*name).to_owned(), expected(*keep, object.get(*name)?))));
            Value::Object(kept.collect())
        }
        (Keep::Elements(keep, _) | Keep::Items(keep), Value::Array(elements)) => {
            elements.iter().map(|element| expected(*keep, element)).collect()
        }
        _ => Value::Null,
    }
}

fn parsed(reduced: &Reduced) -> Value {
    serde_json::from_slice(&reduced.json).unwrap()
}

/// Any JSON, in which the names that are kept are frequent, and strings hold what JSON escapes.
fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[\"\\\\{}\\[\\],: a\u{1}\u{20ac}<]{0,12}", "[a-z]{0,90}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-9999..9999i32).prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        text.clone().prop_map(Value::from),
    ];
    let name = prop_oneof![
        4 => prop::sample::select(vec!["metadata", "name", "labels", "kept", "spec", "manager", "continue", "items"])
            .prop_map(str::to_owned),
        1 => text,
    ];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn reducer_keeps_what_the_rule_names_and_nothing_else(
        values in prop::collection::vec(any_json(), 1..4), step in 1usize..40, pretty: bool,
    ) {
        let text = |value: &Value| if pretty { format!("{value:#}") } else { value.to_string() };
        let input: String = values.iter().map(|value| format!("{}\n", text(value))).collect();
        let all = reduced(OBJECT, &input, step);
        prop_assert_eq!(all.len(), values.len());
        for (reduced, value) in all.iter().zip(&values) {
            prop_assert!(!reduced.is_item);
            // Pretty JSON has more bytes, so that more of it is too large.
            if !pretty {
                prop_assert_eq!(parsed(reduced), expected(OBJECT, value));
            } else if reduced.too_large.is_empty() {
                prop_assert_eq!(parsed(reduced), expected(OBJECT, value));
            }
        }
    }

    #[test]
    fn reducer_takes_items_out_one_at_a_time_wherever_the_metadata_is(
        items in prop::collection::vec(any_json(), 0..6), step in 1usize..40, first: bool,
    ) {
        let metadata = r#""metadata":{"resourceVersion":"7","continue":"abc"}"#;
        let list = format!(r#""items":{}"#, Value::from(items.clone()));
        let input = if first { format!("{{{metadata},{list}}}\n") } else { format!("{{{list},\"kind\":\"L\",{metadata}}}") };
        let all = reduced(LIST, &input, step);
        let (document, found) = all.split_last().unwrap();
        prop_assert_eq!(parsed(document), json!({"metadata": {"continue": "abc"}, "items": []}));
        prop_assert!(!document.is_item && found.iter().all(|item| item.is_item));
        let items: Vec<Value> = items.iter().map(|item| expected(OBJECT, item)).collect();
        prop_assert_eq!(found.iter().map(parsed).collect::<Vec<_>>(), items);
    }

    #[test]
    fn reducer_of_any_bytes_ends(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,80}") {
        for mut input in [&*bytes, text.as_bytes()] {
            let mut reducer = Reducer::new(LIST);
            while let Ok(Some(_)) = reducer.next(&mut input) {}
        }
    }
}

#[test]
fn reducer_replaces_what_is_too_large_and_names_it() {
    let element = json!({"manager": "m", "fieldsV1": {"f:a": {}}});
    let object = json!({
        "metadata": {
            "labels": {"kept": "x".repeat(80), "other": "x".repeat(900)},
            "fields": vec![element; 50],
            "name": "n",
        },
        "spec": {"text": "\"".repeat(900)},
    });
    let list = json!({"items": [object, {"metadata": {"name": "next"}}]}).to_string();
    let all = reduced(LIST, &list, 7);
    let kept = json!({"metadata": {"labels": {"kept": null}, "fields": null, "name": "n"}, "spec": null});
    assert_eq!(parsed(&all[0]), kept);
    assert_eq!(all[0].too_large, ["metadata.fields", "metadata.labels.kept", "spec"]);
    assert_eq!((parsed(&all[1]), all[1].too_large.len()), (json!({"metadata": {"name": "next"}}), 0));
}

#[test]
fn reducer_stores_little_of_a_large_object() {
    let mut reducer = Reducer::new(OBJECT);
    let mut feed = |text: &str| {
        let mut input = text.as_bytes();
        assert_eq!(reducer.next(&mut input), Ok(None));
        assert!(reducer.out.capacity() < 2000 && reducer.name.capacity() < 200, "{reducer:?}");
    };
    feed(r#"{"spec":""#);
    (0..1000).for_each(|_| feed(&"spec".repeat(100)));
    feed(r#"","metadata":{"labels":{""#);
    (0..1000).for_each(|_| feed(&"name".repeat(100)));
    feed(r#"":"","fields":["#);
    (0..1000).for_each(|_| feed(r#"{"manager":"m","fields":[[[1]]]},"#));
}

#[test]
fn reducer_of_repeated_members_fails_before_it_stores_too_much() {
    let mut reducer = Reducer::new(OBJECT);
    assert_eq!(reducer.next(&mut &b"{"[..]), Ok(None));
    let member = format!(r#""spec":"{}","#, "x".repeat(290));
    let ends = (0..20_000).find(|_| reducer.next(&mut member.as_bytes()).is_err());
    assert!(ends.is_some());
}

#[test]
fn reducer_refuses_what_is_not_json() {
    for text in ["}", "{]", "{\"metadata\" 1}", "{\"metadata\":{]", "{1:2}"] {
        assert_eq!(Reducer::new(OBJECT).next(&mut text.as_bytes()), Err(Malformed), "{text}");
    }
}
