//! Steps of the wall clock of a single operator.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use super::support::eventually;
use super::support::scene::{SOON, Scene};
use super::{Clocked, DAY, HOUR, MINUTE, Reader, ahead, assert_times_are_true, change_record};

/// What is done to a wall clock: how far it is ahead at the start of the operator, and then.
#[derive(Clone, Copy, Debug)]
struct Steps {
    at_start: i64,
    then: &'static [i64],
}

/// The sample of `make test`: a day back, a day ahead, a node that booted two hours ahead and is corrected.
const SAMPLE: [Steps; 3] = [
    Steps { at_start: 0, then: &[-DAY] },
    Steps { at_start: 0, then: &[DAY] },
    Steps { at_start: 2 * HOUR, then: &[0] },
];

const ALL: [Steps; 14] = [
    Steps { at_start: 0, then: &[-DAY] },
    Steps { at_start: 0, then: &[-2 * HOUR] },
    Steps { at_start: 0, then: &[-4 * MINUTE] },
    Steps { at_start: 0, then: &[-20] },
    Steps { at_start: 0, then: &[-3] },
    Steps { at_start: 0, then: &[3] },
    Steps { at_start: 0, then: &[20] },
    Steps { at_start: 0, then: &[4 * MINUTE] },
    Steps { at_start: 0, then: &[2 * HOUR] },
    Steps { at_start: 0, then: &[DAY] },
    Steps { at_start: 2 * HOUR, then: &[0] },
    Steps { at_start: -DAY, then: &[0] },
    Steps { at_start: 0, then: &[-DAY, DAY, -4 * MINUTE, 2 * HOUR, 0, -DAY] },
    Steps { at_start: 0, then: &[-4, -8, -12, -16, -20, -24, -28, -32] },
];

/// Refreshes of tokens of `lifetime` seconds are in time, and there are no others, while the clock is set.
async fn refreshes_are_in_time(lifetime: u32, steps: Steps, refreshes: u64) {
    let what = format!("{lifetime} s, {steps:?}");
    let scene = Scene::new("clock", lifetime).await;
    let operator = Clocked::start(&scene, steps.at_start).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let begun = Instant::now();
    let reader = Reader::start(&scene, lifetime);
    assert_times_are_true(&scene, &operator, &what).await;

    let pause = Duration::from_secs(u64::from(lifetime)) / 20 / u32::try_from(steps.then.len()).unwrap();
    for ahead in steps.then {
        tokio::time::sleep(pause).await;
        operator.clock.set(*ahead);
    }
    let last = steps.then.last().copied().unwrap_or_default();
    let mut token = scene.token().await.unwrap();
    for refresh in 1..=refreshes {
        let limit = Duration::from_secs(u64::from(lifetime));
        let after =
            eventually(&format!("{what}: refresh {refresh}"), limit, async || match scene.token().await {
                Some(new) if new != token => Ok(new),
                _ => Err(scene.status_text("source").await),
            })
            .await;
        token = after;
        assert_eq!(scene.mints().await, 1 + refresh, "{what}: a step requests nothing");
        assert_times_are_true(&scene, &operator, &what).await;
    }
    // Refreshed after half of the lifetime at least, and with jitter not much earlier.
    let least = f64::from(lifetime) * 0.45 * f64::from(u32::try_from(refreshes).unwrap());
    assert!(begun.elapsed().as_secs_f64() > least - 3.0, "{what}: {:?} is too early", begun.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let expected = -last as f64;
    eventually(&format!("{what}: the difference is shown"), SOON, async || {
        let shown = operator.metric("tokensource_clock_difference_seconds").await.unwrap();
        if (shown - expected).abs() <= 2.0 { Ok(()) } else { Err(shown) }
    })
    .await;
    reader.stop().await;
    eprintln!("{what}: {refreshes} refreshes in {:?}, none expired", begun.elapsed());
}

/// An operator takes up a token whose record lies two hours ahead, of a process whose clock was.
async fn record_ahead_of_the_clock(lifetime: u32) {
    let scene = Scene::new("record", lifetime).await;
    let first = Clocked::start(&scene, 0).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    drop(first);
    change_record(&scene, |record| ahead(record, 2 * HOUR)).await;
    let reader = Reader::start(&scene, lifetime);
    let operator = Clocked::start(&scene, 0).await;
    let before = scene.token().await;
    assert_times_are_true(&scene, &operator, "the API server's time of the record").await;
    assert_eq!(scene.mints().await, 1, "its age is known by the API server's time of the record");
    scene.new_token(before.as_deref()).await;
    assert_eq!(scene.mints().await, 2);
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_set_neither_delay_a_refresh_nor_request_a_token() {
    let all = SAMPLE.map(|steps| refreshes_are_in_time(20, steps, 1));
    tokio::join!(join_all(all), record_ahead_of_the_clock(20));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn clocks_that_are_set_delay_no_refresh_of_tokens_of_a_minute() {
    join_all(ALL.map(|steps| refreshes_are_in_time(60, steps, 5))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn clocks_that_are_set_delay_no_refresh_of_tokens_of_five_minutes() {
    join_all(ALL.map(|steps| refreshes_are_in_time(300, steps, 2))).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn clocks_that_are_set_delay_no_refresh_of_tokens_of_half_an_hour() {
    join_all(ALL.map(|steps| refreshes_are_in_time(1800, steps, 1))).await;
}
