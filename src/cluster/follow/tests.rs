use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Response;
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::{Value, json};

use super::*;
use crate::cluster::objects::SecretObject;

/// What the API server answers, in order; and then a watch in which nothing happens. Real ones are in `tests/perturbation`:
/// here are those that they give rarely, and the waits in between.
struct Server {
    follow: Follow<SecretObject>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        token_endpoint::transport::install_crypto_provider();
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&asked);
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let query = request
                .uri()
                .query()
                .unwrap_or_default()
                .replace("&timeoutSeconds=290&allowWatchBookmarks=true", "");
            seen.lock().unwrap().push(query.trim_start_matches('&').to_owned());
            let answer = answers.lock().unwrap().pop_front();
            async move {
                let (status, text) = answer.clone().unwrap_or((200, String::new()));
                let part = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(text)))]);
                let ends = if answer.is_some() {
                    stream::empty().left_stream()
                } else {
                    stream::pending().right_stream()
                };
                let body = StreamBody::new(part.chain(ends));
                Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        let client = Client::new(service, "default");
        Server { follow: Follow::new(client, Some("ns"), None), asked }
    }

    /// What comes next, in short; and after how many seconds.
    async fn next(&mut self) -> (String, u64) {
        let begun = Instant::now();
        let next = match self.follow.next().await {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(secret)) => format!("listed {}", secret.key().name),
            Ok(Event::InitDone) => "done".to_owned(),
            Ok(Event::Apply(secret)) => format!("changed {}", secret.key().name),
            Ok(Event::Delete(secret)) => format!("deleted {}", secret.key().name),
            Err(error) => error.to_string(),
        };
        (next, begun.elapsed().as_secs())
    }

    async fn all(&mut self, count: usize) -> Vec<String> {
        let mut all = vec![];
        for _ in 0..count {
            all.push(self.next().await.0);
        }
        all
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn secret(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "uid": "u", "resourceVersion": version.to_string()}})
}

fn list(names: &[&str], metadata: Value) -> (u16, String) {
    let items: Vec<_> = names.iter().map(|name| secret(name, 1)).collect();
    (200, json!({"items": items, "metadata": metadata}).to_string())
}

fn watch(events: &[(&str, Value)]) -> (u16, String) {
    let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({"type": kind, "object": object}));
    (200, events.iter().map(line).collect())
}

#[tokio::test(start_paused = true)]
async fn follow_lists_page_by_page_and_continues_from_the_last_version_it_saw() {
    let mut server = Server::new([
        list(&["a", "b"], json!({"continue": "next"})),
        list(&[], json!({"continue": "last"})),
        list(&["c"], json!({"resourceVersion": "7", "continue": ""})),
        watch(&[("ADDED", secret("d", 8)), ("DELETED", secret("a", 9))]),
        watch(&[("BOOKMARK", json!({"metadata": {"resourceVersion": "12"}}))]),
        watch(&[("MODIFIED", secret("d", 13))]),
    ]);
    let seen = server.all(8).await;
    assert_eq!(
        seen,
        ["init", "listed a", "listed b", "listed c", "done", "changed d", "deleted a", "changed d"]
    );
    assert!(tokio::time::timeout(Duration::from_secs(100), server.next()).await.is_err());
    let watched = |version: u64| format!("watch=true&resourceVersion={version}");
    let pages = ["limit=100", "limit=200&continue=next", "limit=400&continue=last"].map(str::to_owned);
    assert_eq!(server.asked(), [&pages[..], &[watched(7), watched(9), watched(12), watched(13)]].concat());
}

/// Small objects may come before large ones.
#[tokio::test(start_paused = true)]
async fn follow_asks_for_few_objects_after_a_large_page_and_for_1000_at_most() {
    let page = |size: usize| {
        let mut object = secret("a", 1);
        object["metadata"]["labels"] = json!({"size": "x".repeat(size)});
        (200, json!({"items": [object], "metadata": {"continue": "more"}}).to_string())
    };
    let last = list(&["z"], json!({"resourceVersion": "7"}));
    let pages = [0, 0, LARGE_PAGE / 2, 0, 0, 0, LARGE_PAGE].map(page);
    let mut server = Server::new(pages.into_iter().chain([last]));
    let _ = server.all(10).await;
    let limits: Vec<_> = server.asked().iter().map(|asked| asked.replace("&continue=more", "")).collect();
    assert_eq!(limits, [100, 200, 400, 400, 800, 1000, 1000, 100].map(|limit| format!("limit={limit}")));
}

/// What an object contains is its tenant's choice.
#[tokio::test(start_paused = true)]
async fn follow_leaves_out_what_cannot_be_read_and_goes_on() {
    let year_9999 = "9999-12-31T23:59:59Z"; // beyond the times that can be read
    let mut odd = secret("odd", 1);
    odd["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply", "time": year_9999}]);
    let mut bad = secret("bad", 8);
    bad["metadata"]["deletionTimestamp"] = year_9999.into();
    let items = json!([odd, bad, secret("a", 1)]);
    let mut server = Server::new([
        (200, json!({"items": items, "metadata": {"resourceVersion": "7"}}).to_string()),
        watch(&[("ADDED", bad.clone()), ("ADDED", secret("b", 9))]),
    ]);
    let begun = Instant::now();
    assert_eq!(server.all(5).await, ["init", "listed odd", "listed a", "done", "changed b"]);
    assert_eq!(begun.elapsed(), Duration::ZERO, "without a wait");
    assert_eq!(server.asked(), ["limit=100", "watch=true&resourceVersion=7"]);
}

#[tokio::test(start_paused = true)]
async fn follow_lists_anew_where_versions_are_gone() {
    let gone = json!({"kind": "Status", "code": 410, "message": "too old"});
    let mut server = Server::new([
        list(&["a"], json!({"resourceVersion": "7"})),
        watch(&[("ERROR", gone.clone())]),
        list(&["a"], json!({"resourceVersion": "8"})),
        (410, gone.to_string()),
        list(&["b"], json!({"continue": "next"})),
        (410, gone.to_string()),
    ]);
    let ended = "the API server has ended the watch: too old (status 410)";
    assert_eq!(server.all(4).await, ["init", "listed a", "done", ended]);
    assert_eq!(server.all(4).await, ["init", "listed a", "done", "watch: too old"]);
    assert_eq!(server.all(3).await, ["init", "listed b", "list: too old"]);
    assert_eq!(server.next().await.0, "init");
}

#[tokio::test(start_paused = true)]
async fn follow_failures_wait_ever_longer_and_a_list_ends_that() {
    let failure = (500, json!({"kind": "Status", "code": 500, "message": "no"}).to_string());
    let truncated = (200, "{\"items\":[{\"metadata\"".to_owned());
    let mut answers = vec![failure; 7];
    answers.extend([truncated, list(&[], json!({"resourceVersion": "7"})), (500, "no".into()), watch(&[])]);
    let mut server = Server::new(answers);
    let mut waits = vec![];
    for _ in 0..8 {
        assert_eq!(server.next().await.0, "init");
        let (error, waited) = server.next().await;
        assert!(error.starts_with("list: "), "{error}");
        waits.push(waited);
    }
    let least = [0, 0, 1, 3, 6, 12, 25, 30];
    assert!(
        waits.iter().zip(least).all(|(wait, least)| (least..=least * 3 / 2 + 1).contains(wait)),
        "{waits:?}"
    );
    assert_eq!(server.all(2).await, ["init", "done"]);
    let (error, waited) = server.next().await;
    assert!(error.starts_with("watch: ") && waited == 0, "{error} {waited}");
    // A watch that ends at once is followed by the next one, not at once.
    let asked = server.asked().len();
    assert!(tokio::time::timeout(Duration::from_secs(60), server.next()).await.is_err());
    assert_eq!(server.asked().len(), asked + 2);
}

#[tokio::test(start_paused = true)]
async fn follow_gives_up_a_watch_in_which_nothing_comes_and_a_list_that_stops() {
    let mut server = Server::new([list(&[], json!({"resourceVersion": "7"}))]);
    assert_eq!(server.all(2).await, ["init", "done"]);
    assert!(tokio::time::timeout(Duration::from_secs(1000), server.next()).await.is_err());
    assert_eq!(server.asked().len(), 1 + 4, "a watch each 295 s");

    let mut hangs = Server::new([]);
    assert_eq!(hangs.next().await.0, "init");
    assert_eq!(hangs.next().await, ("no answer in time".into(), 30));
}

/// It is renewed by a list, by a watch that begins and by its events, and not by failures.
#[tokio::test(start_paused = true)]
async fn follow_contact_is_the_last_answer_that_showed_the_objects() {
    let failures = [(403, String::new()), (500, String::new())];
    let listed = list(&["a"], json!({"resourceVersion": "1"}));
    let mut server = Server::new([failures[0].clone(), failures[1].clone(), listed]);
    let contact = server.follow.contact();
    for _ in 0..4 {
        server.next().await;
    }
    assert!(contact.age() >= MIN_WAIT, "{:?}", contact.age());
    assert_eq!(server.all(3).await, ["init", "listed a", "done"]);
    assert_eq!(contact.age(), Duration::ZERO);
}
