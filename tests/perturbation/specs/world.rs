//! What a walk changes: the spec of a TokenSource, its credentials, its target, and the endpoint.

use std::fmt;

use serde_json::{Value, json};

use super::schema::invalidate;
use crate::random::Random;

/// The state that a walk has led to, apart from what the operator made of it.
#[derive(Debug, Clone)]
pub struct World {
    pub spec: Value,
    pub credentials: Credentials,
    /// The endpoint answers 503.
    pub fails: bool,
    /// Keys and labels that others have added to the target.
    pub foreign: Vec<String>,
    /// The right client secret, which changes.
    pub secret: usize,
}

/// What Secret `credentials` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    Right,
    WrongSecret,
    WithoutSecret,
    Missing,
}

/// One transition.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A valid spec, with what has changed.
    Spec(Value, String),
    /// A spec that the API server must refuse.
    Invalid(Value, String),
    Credentials(Credentials),
    /// A new client secret, at the authorization server and in the Secret.
    Renewed,
    /// A label on the credentials Secret.
    Labelled,
    Fails(bool),
    /// Changes of the target by others.
    Target(TargetChange),
    /// The TokenSource is deleted and created again at once.
    Recreated,
    /// Deleted with `Retain`, its target kept, and created again.
    Retained,
    /// Deleted with its target; another writer's Secret is there before it is created again, and is then handed over.
    Adopted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetChange {
    Deleted,
    KeyEdited,
    KeyRemoved,
    KeyAdded,
    LabelRemoved,
    LabelAdded,
    RecordRemoved,
    OwnerRemoved,
}

impl TargetChange {
    const ALL: [Self; 8] = [
        Self::Deleted,
        Self::KeyEdited,
        Self::KeyRemoved,
        Self::KeyAdded,
        Self::LabelRemoved,
        Self::LabelAdded,
        Self::RecordRemoved,
        Self::OwnerRemoved,
    ];
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transition::Spec(_, what) => write!(f, "spec: {what}"),
            Transition::Invalid(_, what) => write!(f, "invalid: {what}"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl World {
    pub fn new(token_url: &str) -> Self {
        World {
            spec: json!({
                "provider": {"oauth2": {"tokenURL": token_url}},
                "credentials": {"secretRef": {"name": "credentials"}},
                "target": {"name": "token"},
            }),
            credentials: Credentials::Right,
            fails: false,
            foreign: Vec::new(),
            secret: 0,
        }
    }

    /// The next transition.
    pub fn next(&self, random: &mut Random) -> Transition {
        match random.below(20) {
            // Whatever cannot work is ended soon, so that most transitions start from what works.
            0..=2 if self.fails => Transition::Fails(false),
            0..=2 if self.credentials != Credentials::Right => Transition::Credentials(Credentials::Right),
            0 => Transition::Fails(true),
            1 => Transition::Renewed,
            2 => Transition::Labelled,
            3 => Transition::Credentials(*random.one_of(&[
                Credentials::WrongSecret,
                Credentials::WithoutSecret,
                Credentials::Missing,
            ])),
            4..=6 => Transition::Target(*random.one_of(&TargetChange::ALL)),
            7 => Transition::Recreated,
            8 => Transition::Retained,
            9 => Transition::Adopted,
            10..=12 => {
                let mut spec = self.spec.clone();
                let what = invalidate(&mut spec, random);
                Transition::Invalid(spec, what)
            }
            _ => {
                let mut spec = self.spec.clone();
                let what = change(&mut spec, random);
                Transition::Spec(spec, what)
            }
        }
    }
}

/// Sets one member of the spec to a valid value, or removes it, and returns its name with the value.
fn change(spec: &mut Value, random: &mut Random) -> String {
    let template = |data: Value| json!({"data": data});
    let bearer = json!({"authorization": "Bearer {{ access_token }}"});
    let fields: [(&str, Vec<Value>); 14] = [
        ("/suspend", vec![json!(true), json!(true), Value::Null, Value::Null]),
        ("/refresh/before", vec![json!("30s"), json!("10m"), json!("100h"), Value::Null]),
        ("/refresh/maxInterval", vec![json!("1h"), json!("2h"), Value::Null]),
        ("/refresh/propagationDelay", vec![json!("10s"), json!("1h"), Value::Null]),
        ("/refresh/defaultLifetime", vec![json!("1h"), Value::Null]),
        ("/target/deletionPolicy", vec![json!("Retain"), json!("Delete"), Value::Null]),
        ("/target/propagation", vec![json!("Periodic"), Value::Null]),
        (
            "/target/template",
            vec![
                template(json!({"token": "{{ access_token }}"})),
                template(bearer.clone()),
                template(json!({"token": "{{ access_token }}", "url": "constant"})),
                template(json!({"token": "{{ no_such_value }}"})),
                json!({"type": "example.com/token", "data": bearer}),
                json!({"metadata": {"labels": {"example.com/team": "a"}, "annotations": {"example.com/a": "b"}}}),
                json!({"metadata": {"labels": {"example.com/other": "b"}}}),
                Value::Null,
                Value::Null,
            ],
        ),
        (
            "/provider/oauth2/scopes",
            vec![json!(["read"]), json!(["read", "write"]), json!(["forbidden"]), Value::Null],
        ),
        ("/provider/oauth2/parameters", vec![json!({"tenant": "a"}), Value::Null]),
        ("/provider/oauth2/headers", vec![json!({"X-Team": "a"}), Value::Null]),
        (
            "/provider/oauth2/clientAuthentication",
            vec![json!({"basic": {}}), json!({"post": {}}), Value::Null, Value::Null],
        ),
        (
            "/credentials/secretRef/name",
            vec![json!("credentials"), json!("credentials"), json!("others"), json!("absent")],
        ),
        (
            "/credentials/clientSecretKey",
            vec![json!("client_secret"), json!("no_such_key"), Value::Null, Value::Null],
        ),
    ];
    loop {
        let (path, values) = random.one_of(&fields);
        let value = random.one_of(values).clone();
        let before = spec.clone();
        set(spec, path, value.clone());
        if *spec != before {
            return format!("{path} = {value}");
        }
    }
}

/// Sets a member at a JSON pointer; null removes it.
fn set(spec: &mut Value, pointer: &str, value: Value) {
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let mut place = spec;
    for name in parent.split('/').skip(1) {
        place = place.as_object_mut().unwrap().entry(name).or_insert_with(|| json!({}));
    }
    let members = place.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(member);
    } else {
        members.insert(member.to_owned(), value);
    }
}
