use super::super::Transport;
use super::{LookupError, Lookups, Tenant};
use crate::transport::{LOOKUP_TIMEOUT, MAX_LOOKUPS};
use crate::{BasicEncoding, ClientAuthentication, Credentials, Egress, Error, Grant, RequestDescription};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};

/// The longest that a test waits, by the real clock: threads that block stop the paused one.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a tenant has that is alone: four fifths of one half.
const ALONE: usize = 52;
/// The tenants that occupy all but one look-up, if each wants eight.
const COLLUDING: usize = 72;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A resolver whose name server does not answer. It blocks for each name that begins with `dead` until the test ends the wait.
struct DeadServer {
    lookups: Arc<Lookups>,
    /// The names, in the order in which their look-ups begin.
    begun: Arc<Mutex<Receiver<String>>>,
    give_ups: Arc<(Mutex<usize>, Condvar)>,
}

impl DeadServer {
    fn new() -> Self {
        let (begin, begun) = channel();
        let give_ups: Arc<(Mutex<usize>, Condvar)> = Arc::default();
        let given = Arc::clone(&give_ups);
        let lookups = Lookups::new(move |name| {
            let _ = begin.send(name.to_owned()); // an error: the test has ended
            if name.starts_with("dead") {
                let (count, changed) = &*given;
                let waited = changed.wait_timeout_while(count.lock().unwrap(), PATIENCE, |count| *count == 0);
                let mut count = waited.unwrap().0;
                *count = count.saturating_sub(1);
                return Err(std::io::Error::other("dead"));
            }
            Ok(vec![ADDRESS])
        });
        Self { lookups: Arc::new(lookups), begun: Arc::new(Mutex::new(begun)), give_ups }
    }

    /// Has this many of the look-ups end.
    fn give_up(&self, lookups: usize) {
        *self.give_ups.0.lock().unwrap() = lookups;
        self.give_ups.1.notify_all();
    }

    async fn next(&self) -> String {
        let begun = Arc::clone(&self.begun);
        let next = spawn_blocking(move || begun.lock().unwrap().recv_timeout(PATIENCE)).await.unwrap();
        next.expect("a look-up begins")
    }

    /// Waits until every task has come to its wait.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    fn lookup(&self, tenant: &str, name: &str) -> JoinHandle<Result<Vec<IpAddr>, LookupError>> {
        let (lookups, tenant, name) = (Arc::clone(&self.lookups), Tenant::from(tenant), name.to_owned());
        tokio::spawn(async move { lookups.lookup(&tenant, &name).await })
    }
}

impl Drop for DeadServer {
    /// The runtime waits for its threads.
    fn drop(&mut self) {
        self.give_up(usize::MAX);
    }
}

#[tokio::test(start_paused = true)]
async fn lookups_of_a_tenant_occupy_its_share_alone() {
    let server = DeadServer::new();
    let dead: Vec<_> = (0..100).map(|number| server.lookup("a", &format!("dead-{number}."))).collect();
    for _ in 0..ALONE {
        assert!(server.next().await.starts_with("dead"));
    }
    assert_eq!(server.lookup("b", "idp.example.com.").await.unwrap().unwrap(), [ADDRESS]);
    assert_eq!(server.next().await, "idp.example.com.", "no further one of the other tenant has begun");

    // Those that wait end with their time. Those that have begun hold their turns until the resolver gives up.
    tokio::time::advance(LOOKUP_TIMEOUT).await;
    for lookup in dead {
        assert!(matches!(lookup.await.unwrap(), Err(LookupError::Timeout)));
    }
    let waiting = server.lookup("a", "alive.");
    server.settle().await;
    assert!(!waiting.is_finished());
    server.give_up(1);
    assert_eq!(waiting.await.unwrap().unwrap(), [ADDRESS]);
}

#[tokio::test(start_paused = true)]
async fn lookups_of_the_tenant_with_the_fewest_go_first() {
    let server = DeadServer::new();
    for (tenant, name) in (0..COLLUDING).flat_map(|tenant| (0..8).map(move |name| (tenant, name))) {
        drop(server.lookup(&format!("tenant-{tenant}"), &format!("dead-{name}.")));
    }
    for _ in 0..MAX_LOOKUPS - 1 {
        server.next().await;
    }
    assert_eq!(server.lookup("first", "first.example.com.").await.unwrap().unwrap(), [ADDRESS]);
    assert_eq!(server.next().await, "first.example.com.");

    drop(server.lookup("last", "dead."));
    assert_eq!(server.next().await, "dead.");
    let honest = server.lookup("honest", "idp.example.com.");
    server.settle().await;
    assert!(!honest.is_finished(), "the process is at its limit");
    server.give_up(1);
    assert_eq!(honest.await.unwrap().unwrap(), [ADDRESS]);
    assert_eq!(server.next().await, "idp.example.com.");
}

#[tokio::test(start_paused = true)]
async fn lookups_of_one_name_at_the_same_time_are_one() {
    let server = DeadServer::new();
    let first: Vec<_> = (0..50).map(|_| server.lookup("a", "dead.")).collect();
    let other = server.lookup("b", "dead.");
    assert_eq!((server.next().await, server.next().await), ("dead.".to_owned(), "dead.".to_owned()));
    server.give_up(2);
    for lookup in first.into_iter().chain([other]) {
        assert!(matches!(lookup.await.unwrap(), Err(LookupError::System(_))));
    }
    assert!(server.begun.lock().unwrap().try_recv().is_err());
    // Nothing is kept.
    server.lookup("a", "alive.").await.unwrap().unwrap();
    server.lookup("a", "alive.").await.unwrap().unwrap();
    assert_eq!((server.next().await, server.next().await), ("alive.".to_owned(), "alive.".to_owned()));
    assert!(server.lookups.flights.lock().unwrap().len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn transport_counts_lookups_for_its_tenant() {
    let server = DeadServer::new();
    let egress = Arc::new(Egress::new(Vec::new(), None, true, Vec::new()));
    let transport = Transport {
        lookups: Arc::clone(&server.lookups),
        ..Transport::new(egress, "token-endpoint/test").unwrap()
    };
    let trusted = transport.for_trusted(false);
    let send_over = |transport: &Transport, tenant: &str, host: &str| {
        let transport = transport.for_tenant(tenant);
        let description = RequestDescription::new(
            format!("http://{host}/token").parse().unwrap(),
            Grant::ClientCredentials,
            ClientAuthentication::Basic(BasicEncoding::Percent),
        );
        let credentials = Credentials {
            client_id: Some("client".into()),
            client_secret: Some("secret".into()),
            ..Credentials::default()
        };
        let request = description.request(&credentials).unwrap();
        tokio::spawn(async move { transport.send(&request, Duration::from_secs(20)).await })
    };
    let send = |tenant: &str, host: &str| send_over(&transport, tenant, host);
    let dead: Vec<_> = (0..2 * ALONE).map(|name| send("a", &format!("dead-{name}"))).collect();
    for _ in 0..ALONE {
        assert!(server.next().await.starts_with("dead"));
    }
    // Loopback, which the policy refuses.
    let answered = send("b", "idp.example.com").await.unwrap();
    assert!(matches!(answered, Err(Error::Egress(_))), "{answered:?}");
    assert_eq!(server.next().await, "idp.example.com.", "absolute");
    // An endpoint that the tenant did not choose waits for none that it did.
    let answered = send_over(&trusted, "a", "lent.example.com").await.unwrap();
    assert!(matches!(answered, Err(Error::Egress(_))), "{answered:?}");
    assert_eq!(server.next().await, "lent.example.com.");

    tokio::time::advance(LOOKUP_TIMEOUT).await;
    for sent in dead {
        let error = sent.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Dns { .. }), "{error:?}");
        assert!(error.to_string().ends_with("cannot be resolved: no answer within 4 s"), "{error}");
    }
}
