//! Known faults of similar products, each with the tests that would find it here. (Tests that belong nowhere else are here,
//! too.)

use std::path::Path;

use futures::{StreamExt, stream};
use kube::api::PostParams;
use serde_json::json;
use tokensource_api::TokenSource;

use super::support::authorization_server::Behaviour;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// The pitfall; the file of its tests without `.rs`; their names.
const PITFALLS: [(&str, &str, &[&str]); 22] = [
    (
        "requesting every token again after a restart",
        "tests/integration/restarts",
        &["killed_and_restarted_operator_makes_no_token_request"],
    ),
    (
        "Ready with an expired token",
        "tests/integration/conditions",
        &["ready_is_false_from_expiry_on_even_while_endpoint_hangs"],
    ),
    (
        "a margin larger than the lifetime that loops on the endpoint",
        "tests/integration/refresh",
        &["refresh_before_longer_than_lifetime_does_not_loop_and_is_reported"],
    ),
    ("skipping every second refresh", "tests/integration/pitfalls", &["refresh_is_never_skipped"]),
    (
        "one hung endpoint that blocks the rest",
        "tests/integration/hanging",
        &["twenty_hanging_endpoints_on_same_host_do_not_delay_healthy_one"],
    ),
    (
        "overwriting a Secret of another owner",
        "tests/integration/ownership",
        &["foreign_secret_is_not_modified", "two_sources_with_one_target_first_keeps_it"],
    ),
    (
        "the refresh token in the Secret that pods mount",
        "tests/integration/rotation/mod",
        &["rotation_newest_refresh_token_survives_everything_and_enters_no_other_secret"],
    ),
    ("a response body in an event", "tests/integration/canary", &["secrets_appear_in_no_output"]),
    (
        "a deleted target that stays away until the next interval",
        "tests/integration/ownership",
        &["deleted_target_is_recreated_at_once_by_one_token_request"],
    ),
    (
        "silently stopping at a few thousand objects",
        "tests/integration/pitfalls",
        &["thousands_of_sources_do_not_block_a_new_one"],
    ),
    (
        "memory that grows with Secrets of others",
        "src/controller/cache/secrets/tests",
        &["secrets_unreferenced_secret_is_not_cached"],
    ),
    (
        "memory that grows with the annotations of Secrets",
        "src/secret/facts",
        &["secret_metadata_drops_annotations_of_others"],
    ),
    (
        "a lease that is lost, and two that write",
        "tests/integration/replicas",
        &[
            "paused_leader_overwrites_nothing_newer_and_costs_at_most_one_token_request",
            "leader_unable_to_renew_lease_stops_before_another_begins_and_returns",
        ],
    ),
    (
        "overwriting what another writer created meanwhile",
        "tests/integration/rotation/sharing",
        &["rotation_secrets_created_during_token_request_are_not_overwritten"],
    ),
    (
        "a label on the credentials Secret that causes a token request",
        "tests/integration/restarts",
        &["changed_labels_and_annotations_cost_no_token_request"],
    ),
    (
        "a label on the credentials Secret that brings a spent refresh token back",
        "tests/integration/rotation/mod",
        &["rotation_newest_refresh_token_survives_everything_and_enters_no_other_secret"],
    ),
    (
        "a refused write that repeats token requests",
        "tests/integration/ownership",
        &[
            "exceeded_quota_costs_no_token_request",
            "admission_policy_refusing_first_write_costs_no_token_request",
            "admission_policy_refusing_refresh_costs_one_token_request",
            "immutable_target_costs_one_token_request",
        ],
    ),
    (
        "restoring that works against a foreground deletion",
        "tests/integration/ownership",
        &["foreground_deletion_does_not_recreate_target"],
    ),
    (
        "a retained Secret that its own re-created resource calls foreign",
        "tests/integration/ownership",
        &["retained_secret_is_kept_and_reused_without_token_request"],
    ),
    (
        "Ready or Stalled that change because a refresh failed while the token is valid",
        "tests/integration/pitfalls",
        &["failing_refresh_changes_neither_ready_nor_stalled"],
    ),
    (
        "clamp with min above max",
        "src/refresh/schedule",
        &[
            "schedule_of_any_numbers_refreshes_within_the_lifetime",
            "schedule_of_tiny_lifetimes_and_intervals_keeps_the_shortest_intervals",
        ],
    ),
    (
        "clamp with min above max, in waits",
        "src/refresh/backoff",
        &["wait_of_any_numbers_is_at_least_a_second"],
    ),
];

#[test]
fn every_pitfall_has_its_tests() {
    for (pitfall, file, tests) in PITFALLS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file).with_extension("rs");
        let source = std::fs::read_to_string(&path).unwrap();
        for test in tests {
            assert!(source.contains(&format!("fn {test}(")), "{pitfall}: no {test} in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_is_never_skipped() {
    // Refreshed after 6 s; a refresh that is skipped as too early would come after expiry.
    let scene = Scene::new("skipped", 12).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let mut issued_at = scene.status().await.token.unwrap().issued_at;
    for n in 2..=5 {
        let next = scene.issued_at_other_than(issued_at).await;
        let after = next.duration_since(issued_at).as_secs();
        assert!((6..12).contains(&after), "refreshed after {after} s");
        issued_at = next;
        assert_eq!(scene.mints().await, n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_refresh_changes_neither_ready_nor_stalled() {
    let scene = Scene::new("flips", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let since = async || {
        let conditions = scene.status().await.conditions;
        let kinds: Vec<_> = conditions.iter().map(|it| it.type_.as_str()).collect();
        assert_eq!(kinds, ["Ready", "PropagationSafe"], "neither Stalled nor Reconciling");
        conditions.into_iter().next().unwrap().last_transition_time.0
    };
    let before = since().await;
    let request = async |value: &str| {
        let annotation = format!("tokensource.dev/refresh-requested-at={value}");
        scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", &annotation], "").await;
    };
    // Each class of failure: unreachable, rate limited, no token, a wrong client, a missing Secret.
    for (status, reason) in
        [(503, "EndpointUnavailable"), (200, "ResponseMalformed"), (401, "ClientRejected")]
    {
        let answer = Behaviour { status: Some(status), body: Some(json!({})), ..Behaviour::default() };
        scene.server.behave(&scene.namespace, Some(answer)).await;
        request(reason).await;
        eventually(reason, SOON, async || match scene.status().await.last_failure {
            Some(last) if last.reason == reason && last.count > 0 => Ok(()),
            other => Err(other),
        })
        .await;
        scene.ready("True RefreshFailing").await;
        assert_eq!(since().await, before);
    }
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene.reports("True RefreshFailing", &["Secret credentials does not exist"]).await;
    assert_eq!(since().await, before);
    scene.server.behave(&scene.namespace, None).await;
    scene.server.set_secret(&scene.namespace, "another").await;
    scene.credentials("another").await;
    scene.ready("True TokenValid").await;
    assert_eq!(since().await, before, "as before the failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_sources_do_not_block_a_new_one() {
    const SOURCES: usize = 2500;
    let scene = Scene::new("thousands", 600).await;
    let create = async |name: String, suspend: bool| {
        let mut source =
            scene.source(json!({"target": {"name": format!("{name}-token")}, "suspend": suspend}));
        source["metadata"]["name"] = json!(name);
        let source: TokenSource = serde_json::from_value(source).unwrap();
        scene.sources().create(&PostParams::default(), &source).await.unwrap();
    };
    // Suspended, so that they cost no token requests.
    let create = &create;
    stream::iter(0..SOURCES)
        .for_each_concurrent(32, |n| async move { create(format!("crowd-{n:04}"), true).await })
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    eventually("all of them are reconciled", 10 * SOON, async || {
        let sources = scene.sources().list(&Default::default()).await.unwrap().items;
        let reconciled = |source: &&TokenSource| {
            source
                .status
                .as_ref()
                .is_some_and(|status| status.observed_generation == source.metadata.generation)
        };
        let seen = sources.iter().filter(reconciled).count();
        if seen == SOURCES { Ok(()) } else { Err(format!("{seen} of {SOURCES}")) }
    })
    .await;

    // The last one in every order, and one of the others.
    create("zz-last".into(), false).await;
    scene.condition("zz-last", "Ready", "True TokenValid").await;
    scene.patch("tokensource", "crowd-1234", json!({"spec": {"suspend": false}})).await;
    scene.condition("crowd-1234", "Ready", "True TokenValid").await;
    scene.kubectl(&["delete", "secret", "zz-last-token"], "").await;
    eventually("it is restored", SOON, async || {
        scene.value("zz-last-token", "access_token").await.ok_or("gone")
    })
    .await;
    assert_eq!(scene.mints().await, 3);
}
