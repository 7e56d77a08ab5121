//! What one refresh computes, by instructions and allocations: `make bench-micro`. No sockets, no files.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark stops where it cannot go on"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gungraun::{Dhat, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use http::{HeaderMap, HeaderValue, StatusCode};
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use token_endpoint::{
    ClientAuthentication, Credentials, Egress, EgressRefused, Grant, RequestDescription, TokenRequest, read,
};
use tokensource_operator::controller::api_permits::{ApiPermits, Stake};
use tokensource_operator::controller::work_queue::{Urgency, WorkQueue};
use tokensource_operator::key::Key;
use tokensource_operator::refresh::{DEFAULT_MAX_INTERVAL, Decision, MintReason, Observed, Policy, Tried, Wanted, decide, needed};
use tokensource_operator::secret::{
    Facts, Inputs, KeySet, Minted, Owner, RECORD_ANNOTATION, Record, SecretMetadata, TargetSecret, Template,
    Token, Version,
};

const ISSUED: i64 = 1_800_000_000;
const POLICY: Policy = Policy { before: None, max_interval: DEFAULT_MAX_INTERVAL, propagation_delay: 90, min_interval: 0 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(ISSUED + seconds).unwrap()
}

fn owner() -> Owner {
    Owner { name: "vault-api".into(), uid: "3d5c1d5e-53b1-4d0c-9d5b-6a5a4c5b1c1a".into() }
}

/// The record of a token of 300 s.
fn record() -> Record {
    let minted = Minted {
        issued_at: at(0),
        expires_at: at(300),
        token_id: "3f9a1c0d42be".into(),
        token_type: "Bearer".into(),
        scope: Some("read write".into()),
        lifetime_is_assumed: false,
        is_jwt: true,
        remarks: vec![],
    };
    let credentials = Version { uid: owner().uid, resource_version: "71234".into() };
    let provider = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into();
    Record::new(owner(), Inputs { provider, credentials }, None, minted, None)
}

/// What a watch shows of a target after its write.
fn metadata() -> Vec<u8> {
    let owner = owner();
    let fields = json!({"f:data": {".": {}, "f:access_token": {}}, "f:metadata": {"f:labels": {}}, "f:type": {}});
    json!({
        "name": "api-token",
        "namespace": "payments",
        "uid": "8c1e7f0a-6a29-4a63-8a4d-2f4b7f6f3c55",
        "resourceVersion": "81234",
        "creationTimestamp": "2027-01-15T08:00:00Z",
        "labels": {"app.kubernetes.io/managed-by": "tokensource-operator"},
        "annotations": {(RECORD_ANNOTATION): record().to_annotation()},
        "ownerReferences": [{
            "apiVersion": "tokensource.dev/v1alpha1",
            "kind": "TokenSource",
            "name": owner.name,
            "uid": owner.uid,
            "controller": true,
        }],
        "managedFields": [{
            "manager": "tokensource-operator",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": "2027-01-15T08:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }],
    })
    .to_string()
    .into_bytes()
}

fn facts(metadata: &[u8]) -> Facts {
    serde_json::from_slice::<SecretMetadata>(metadata).unwrap().facts().unwrap()
}

/// A TokenSource with a valid token.
struct World {
    owner: Owner,
    wanted: Wanted,
    target: Facts,
    credentials: Version,
    tried: Tried,
}

fn world() -> World {
    let Inputs { provider, credentials } = record().inputs;
    World {
        owner: owner(),
        wanted: Wanted {
            provider,
            refresh_request: None,
            template: None,
            keys: KeySet::from_iter(["access_token"]),
            owner_reference: true,
        },
        target: facts(&metadata()),
        credentials,
        tried: Tried { spec: "s".into(), request: "r".into(), credentials: "c".into() },
    }
}

impl World {
    fn observed(&self) -> Observed<'_> {
        Observed {
            credentials: Some(&self.credentials),
            target: Some(&self.target),
            ..Observed::nothing(&self.owner, &self.wanted, POLICY)
        }
    }
}

#[library_benchmark]
#[bench::valid(world())]
fn decide_what_to_do(world: World) -> Decision {
    black_box(decide(at(60), &black_box(world.observed()), &world.tried))
}

#[library_benchmark]
#[bench::due(world())]
fn whether_a_token_is_needed(world: World) -> Option<MintReason> {
    black_box(needed(at(200), &black_box(world.observed())))
}

#[library_benchmark]
#[bench::target(metadata())]
fn read_metadata(metadata: Vec<u8>) -> Facts {
    black_box(facts(&black_box(metadata)))
}

/// A template, a token of 1,000 bytes, and the record that goes beside it.
struct Target {
    spec: Option<tokensource_api::Template>,
    token: SecretString,
    values: BTreeMap<String, SecretString>,
    record: Record,
}

fn target(template: Option<Value>) -> Target {
    Target {
        spec: template.map(|template| serde_json::from_value(template).unwrap()),
        token: "a".repeat(1000).into(),
        values: BTreeMap::new(),
        record: record(),
    }
}

fn plain() -> Target {
    target(None)
}

fn templated() -> Target {
    target(Some(json!({
        "metadata": {"labels": {"app": "payments"}},
        "data": {
            "token": "{{ access_token }}",
            "header": "{{ token_type }} {{ access_token }}",
            "config.ini": "[api]\nkey = {{ access_token }}\nends = {{ expires_at }}\n",
        },
    })))
}

#[library_benchmark]
#[bench::plain(plain())]
#[bench::templated(templated())]
fn render_target(target: Target) -> String {
    let token = Token {
        access_token: &target.token,
        token_type: "Bearer",
        issued_at: at(0),
        expires_at: at(300),
        scope: "read".into(),
        values: &target.values,
    };
    let rendered = Template::of(target.spec.as_ref(), &[]).unwrap().render(&token).unwrap();
    let secret = TargetSecret {
        name: "api-token",
        record: &target.record,
        rendered: &rendered,
        owner_reference: true,
    };
    black_box(secret.apply(Some(&target.record.inputs.credentials)).to_string())
}

/// A request, and the answer to it.
fn exchange() -> (TokenRequest, HeaderMap, Vec<u8>) {
    let url = "https://idp.example.com/token".parse().unwrap();
    let description =
        RequestDescription::new(url, Grant::ClientCredentials, ClientAuthentication::Post);
    let credentials = Credentials {
        client_id: Some("payments".into()),
        client_secret: Some("correct horse battery staple".into()),
        ..Credentials::default()
    };
    let body = json!({
        "access_token": "a".repeat(1000),
        "expires_in": 300,
        "token_type": "Bearer",
        "scope": "read write",
        "not-before-policy": 0,
    });
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
    (description.request(&credentials).unwrap(), headers, body.to_string().into_bytes())
}

#[library_benchmark]
#[bench::keycloak(exchange())]
fn read_answer((request, headers, body): (TokenRequest, HeaderMap, Vec<u8>)) -> usize {
    let answer = read(StatusCode::OK, &headers, black_box(&body), &request).unwrap();
    black_box(answer.token_type.len())
}

fn egress() -> Egress {
    Egress::new(Vec::new(), None, false, Vec::new())
}

#[library_benchmark]
#[bench::public(egress())]
fn check_egress(egress: Egress) -> [Result<(), EgressRefused>; 2] {
    let address: IpAddr = [93, 184, 216, 34].into();
    let url = "https://idp.example.com/token".parse().unwrap();
    black_box([egress.check_url(&url), egress.check_address("idp.example.com", 443, address)])
}

/// A queue where 10,000 TokenSources of 100 namespaces wait.
fn crowd() -> (WorkQueue, Arc<ApiPermits>, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let queue = WorkQueue::default();
    let now = tokio::time::Instant::now();
    for number in 0..10_000_u64 {
        let key = Key::new(&format!("namespace-{}", number % 100), &format!("source-{number}"));
        let deadline = now + Duration::from_millis(number * 7919 % 10_000);
        queue.trigger(key, Urgency { deadline, stake: Stake::Token });
    }
    (queue, ApiPermits::new(40, 10), runtime)
}

#[library_benchmark]
#[bench::of_10_000(crowd())]
fn take_a_hundred(crowd: (WorkQueue, Arc<ApiPermits>, tokio::runtime::Runtime)) -> impl Sized {
    let (queue, permits, runtime) = &crowd;
    let urgency = Urgency { deadline: tokio::time::Instant::now(), stake: Stake::Token };
    runtime.block_on(async {
        for _ in 0..100 {
            let (key, permit) = queue.next(permits, |_| urgency).await;
            drop(permit);
            queue.done(key, None);
        }
    });
    // Dropped outside of what is counted.
    black_box(crowd)
}

library_benchmark_group!(
    name = refresh,
    benchmarks = [
        decide_what_to_do,
        whether_a_token_is_needed,
        read_metadata,
        render_target,
        read_answer,
        check_egress,
        take_a_hundred,
    ]
);

main!(
    config = LibraryBenchmarkConfig::default().tool(Dhat::default()),
    library_benchmark_groups = refresh
);
