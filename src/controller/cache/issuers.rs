//! The ClusterTokenIssuers, and the labels of namespaces, as the watches have shown them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use token_endpoint::GroupClient;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::issuer_answers::{Answered, Failure, IssuerAnswers};
use crate::cluster::{Contact, IssuerObject};
use crate::key::Key;
use crate::secret::Version;
use crate::spec::Issuer;
use tokensource_api::{ClusterTokenIssuerStatus, DEFAULT_CONTROLLER};

/// How long what a watch has shown counts while it fails: what was withdrawn since is not known. Longer than an idle watch lasts.
const MAX_UNREAD: Duration = Duration::from_secs(10 * 60);
/// How an issuer is named among the users of a Secret: the names of TokenSources have no space.
const USER_PREFIX: &str = "issuer ";

/// How the operator serves issuers.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// The operator's own namespace, with the Secrets of issuers.
    pub namespace: Arc<str>,
    /// The `spec.controller` of the issuers that are served.
    pub controller: String,
    /// TokenSources without an issuer are not served.
    pub required: bool,
    /// The labels of namespaces may not be read, so that issuers must name namespaces.
    pub names_only: bool,
    /// The Secrets of that namespace need a watch of their own.
    pub follows_secrets: bool,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IssuerWatch {
    /// ClusterTokenIssuers. Without them nothing is requested through any.
    Issuers,
    /// The labels of namespaces. Without them the selectors of issuers select none.
    Namespaces,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Issuers {
    settings: Option<IssuerSettings>,
    table: Mutex<IssuerTable>,
    /// The number of watches that have not read their first list yet.
    unread: watch::Sender<usize>,
    has_changed: Notify,
    /// An issuer has changed, or begins to fail or to work.
    has_news: Notify,
}

#[derive(Debug, Default)]
struct IssuerTable {
    issuers: HashMap<Arc<str>, Arc<Issuer>>,
    /// Their statuses.
    reported: HashMap<Arc<str>, ClusterTokenIssuerStatus>,
    answers: HashMap<Arc<str>, IssuerAnswers>,
    /// The clients that they lend, with the version of the credentials.
    clients: HashMap<Arc<str>, (Version, GroupClient)>,
    labels: HashMap<Arc<str>, BTreeMap<String, String>>,
    /// The issuers whose TokenSources are to be reconciled.
    changed: BTreeSet<Arc<str>>,
    /// When the watches were last answered.
    contacts: BTreeMap<IssuerWatch, Contact>,
}

/// The Secret of an issuer that has changed: the one before, and the one now.
pub(crate) type CredentialsChange = [Option<Key>; 2];

impl Issuers {
    /// `None`: no issuers are served.
    pub(crate) fn new(settings: Option<IssuerSettings>) -> Self {
        let watches = settings.as_ref().map_or(0, |settings| 2 - usize::from(settings.names_only));
        Issuers {
            settings,
            table: Mutex::default(),
            unread: watch::Sender::new(watches),
            has_changed: Notify::new(),
            has_news: Notify::new(),
        }
    }

    pub(crate) fn settings(&self) -> Option<&IssuerSettings> {
        self.settings.as_ref()
    }

    /// Waits until everything has been listed once.
    pub(crate) async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.unread.subscribe().wait_for(|unread| *unread == 0).await;
    }

    /// Whether everything has been listed once.
    pub(crate) fn is_ready(&self) -> bool {
        *self.unread.borrow() == 0
    }

    /// A watch has read its first list.
    pub(crate) fn first_list_read(&self) {
        self.unread.send_modify(|unread| *unread = unread.saturating_sub(1));
    }

    /// A watch begins.
    pub(crate) fn follow(&self, what: IssuerWatch, contact: Contact) {
        self.lock().contacts.insert(what, contact);
    }

    /// For how long each watch has not been answered.
    pub(crate) fn unread(&self) -> Vec<(IssuerWatch, Duration)> {
        self.lock().contacts.iter().map(|(what, contact)| (*what, contact.age())).collect()
    }

    /// Whether a watch has failed for so long that what it has shown does not count any more.
    pub(crate) fn is_outdated(&self, what: IssuerWatch) -> bool {
        self.lock().is_outdated(what)
    }

    /// The issuer of this name, if this operator serves it, and it serves the namespace.
    pub(crate) fn serving(&self, name: &str, namespace: &str) -> Option<Arc<Issuer>> {
        let table = self.lock();
        table.issuers.get(name).filter(|issuer| self.selects(&table, issuer, namespace)).map(Arc::clone)
    }

    /// The issuers that this operator serves.
    pub(crate) fn all(&self) -> Vec<Arc<Issuer>> {
        self.lock().issuers.values().cloned().collect()
    }

    /// The status of an issuer, as the watch has shown it.
    pub(crate) fn reported(&self, name: &str) -> ClusterTokenIssuerStatus {
        self.lock().reported.get(name).cloned().unwrap_or_default()
    }

    /// What token requests through an issuer have come to.
    pub(crate) fn answered(&self, name: &str, now: Instant) -> Answered {
        self.lock().answers.get(name).map_or(Answered::Nothing, |answers| answers.sum(now))
    }

    /// A token request through an issuer, as it was then, has succeeded, or has failed because of the issuer.
    pub(crate) fn note(&self, issuer: &Issuer, sent: Instant, failure: Option<Failure>, now: Instant) {
        let table = &mut *self.lock();
        if table.issuers.get(&issuer.name).is_some_and(|now| now.asks_as(issuer)) {
            let answers = table.answers.entry(Arc::clone(&issuer.name)).or_default();
            let before = answers.sum(now);
            answers.note(sent, failure);
            if answers.sum(now) != before {
                self.has_news.notify_one();
            }
        }
    }

    /// The client of an issuer's requests with these credentials, where one was made.
    pub(crate) fn client(&self, issuer: &Issuer, version: &Version) -> Option<GroupClient> {
        let table = self.lock();
        let known = table.clients.get(&issuer.name).filter(|(known, _)| known == version);
        known
            .filter(|_| table.issuers.get(&issuer.name).is_some_and(|now| now.asks_as(issuer)))
            .map(|it| it.1)
    }

    /// A request of an issuer, as it was then, has this client.
    pub(crate) fn remember_client(&self, issuer: &Issuer, version: &Version, client: Option<GroupClient>) {
        let table = &mut *self.lock();
        let is_same = table.issuers.get(&issuer.name).is_some_and(|now| now.asks_as(issuer));
        if let Some(client) = client.filter(|_| is_same) {
            table.clients.insert(Arc::clone(&issuer.name), (version.clone(), client));
        }
    }

    /// Takes in an issuer that appears or changes. Returns how its Secret has changed.
    pub(crate) fn put(&self, object: IssuerObject) -> CredentialsChange {
        let name = object.metadata.name.clone().unwrap_or_default();
        let reported = object.reported.clone();
        let Some(issuer) = self.served(object) else { return self.remove(&name) };
        let now = self.credentials(&issuer);
        let name = Arc::clone(&issuer.name);
        let table = &mut *self.lock();
        table.reported.insert(Arc::clone(&name), reported);
        let before = table.issuers.insert(Arc::clone(&name), Arc::clone(&issuer));
        if before.as_ref().is_none_or(|before| !before.asks_as(&issuer)) {
            // What came of other requests says nothing of the next ones.
            table.answers.remove(&name);
            table.clients.remove(&name);
        }
        if before.as_ref() != Some(&issuer) {
            self.change(table, name);
        }
        [before.and_then(|before| self.credentials(&before)), now]
    }

    /// An issuer is gone. Returns how its Secret has changed.
    pub(crate) fn remove(&self, name: &str) -> CredentialsChange {
        let table = &mut *self.lock();
        let Some(before) = table.issuers.remove(name) else { return [None, None] };
        table.reported.remove(name);
        table.answers.remove(name);
        table.clients.remove(name);
        self.change(table, Arc::clone(&before.name));
        [self.credentials(&before), None]
    }

    /// The names of the issuers that a list did not contain.
    pub(crate) fn others(&self, listed: &BTreeSet<String>) -> Vec<Arc<str>> {
        self.lock().issuers.keys().filter(|name| !listed.contains(&***name)).cloned().collect()
    }

    /// `None`: it belongs to another operator.
    fn served(&self, object: IssuerObject) -> Option<Arc<Issuer>> {
        let settings = self.settings.as_ref()?;
        let controller = object.spec.get("controller").and_then(|controller| controller.as_str());
        if controller.unwrap_or(DEFAULT_CONTROLLER) != settings.controller {
            return None;
        }
        let metadata = object.metadata;
        Some(Arc::new(Issuer {
            name: metadata.name.unwrap_or_default().into(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            spec: serde_json::from_value(object.spec).ok(),
        }))
    }

    /// The Secret with the credentials of an issuer.
    pub(crate) fn credentials(&self, issuer: &Issuer) -> Option<Key> {
        let namespace = Arc::clone(&self.settings.as_ref()?.namespace);
        let name = issuer.spec.as_ref()?.credentials.secret_ref.as_ref()?.name.as_str().into();
        Some(Key::from_parts(namespace, name))
    }

    /// Whether an issuer serves a namespace.
    pub(crate) fn serves(&self, issuer: &Issuer, namespace: &str) -> bool {
        self.selects(&self.lock(), issuer, namespace)
    }

    fn selects(&self, table: &IssuerTable, issuer: &Issuer, namespace: &str) -> bool {
        let names_only = self.settings.as_ref().is_none_or(|settings| settings.names_only);
        issuer.serves(namespace, table.known_labels(namespace), names_only)
    }

    /// A namespace has these labels; `None`: it is gone. Returns whether that is news.
    pub(crate) fn set_labels(&self, namespace: &str, labels: Option<BTreeMap<String, String>>) -> bool {
        let table = &mut *self.lock();
        let known = table.labels.get(namespace) == labels.as_ref();
        match labels {
            Some(labels) => drop(table.labels.insert(namespace.into(), labels)),
            None => drop(table.labels.remove(namespace)),
        }
        !known
    }

    /// The namespaces that a list did not contain.
    pub(crate) fn other_namespaces(&self, listed: &BTreeSet<String>) -> Vec<Arc<str>> {
        self.lock().labels.keys().filter(|name| !listed.contains(&***name)).cloned().collect()
    }

    /// The TokenSources of an issuer are to be reconciled.
    pub(crate) fn touch(&self, issuer: &str) {
        self.change(&mut self.lock(), issuer.into());
    }

    fn change(&self, table: &mut IssuerTable, issuer: Arc<str>) {
        table.changed.insert(issuer);
        self.has_changed.notify_one();
        self.has_news.notify_one();
    }

    /// Waits for issuers whose TokenSources are to be reconciled. For one caller at a time.
    pub(crate) async fn next_changed(&self) -> BTreeSet<Arc<str>> {
        loop {
            let changed = std::mem::take(&mut self.lock().changed);
            if !changed.is_empty() {
                return changed;
            }
            self.has_changed.notified().await;
        }
    }

    /// Waits until there is something to report of an issuer. For one caller at a time.
    pub(crate) async fn has_news(&self) {
        self.has_news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, IssuerTable> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IssuerWatch {
    /// The resource, in the plural.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            IssuerWatch::Issuers => "clustertokenissuers",
            IssuerWatch::Namespaces => "namespaces",
        }
    }
}

impl IssuerTable {
    fn is_outdated(&self, what: IssuerWatch) -> bool {
        self.contacts.get(&what).is_some_and(|contact| contact.age() > MAX_UNREAD)
    }

    /// The labels of a namespace, where they are known.
    fn known_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.labels.get(namespace).filter(|_| !self.is_outdated(IssuerWatch::Namespaces))
    }
}

/// The issuer as a user of a Secret.
pub(crate) fn user(issuer: &str) -> Arc<str> {
    format!("{USER_PREFIX}{issuer}").into()
}

/// The issuer that this user of a Secret is, if it is no TokenSource.
pub(crate) fn issuer_of(user: &str) -> Option<&str> {
    user.strip_prefix(USER_PREFIX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any time to count from")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn issuers() -> Issuers {
        issuers_with(true)
    }

    fn issuers_with(names_only: bool) -> Issuers {
        Issuers::new(Some(IssuerSettings {
            namespace: "operator".into(),
            controller: "a".into(),
            required: false,
            names_only,
            follows_secrets: false,
        }))
    }

    /// The issuer of this name, whichever namespaces it serves.
    fn known(issuers: &Issuers, name: &str) -> Option<Arc<Issuer>> {
        issuers.all().into_iter().find(|issuer| &*issuer.name == name)
    }

    fn object(name: &str, controller: &str, secret: &str) -> IssuerObject {
        let spec = json!({
            "controller": controller, "provider": {"oauth2": {"tokenURL": "https://idp.example.com/t"}},
            "credentials": {"secretRef": {"name": secret}}, "namespaces": {"all": true}, "allow": {},
        });
        issuer_object(name, spec)
    }

    fn issuer_object(name: &str, spec: Value) -> IssuerObject {
        let metadata = json!({"name": name, "uid": "u", "generation": 1});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[tokio::test]
    async fn issuers_of_this_controller_are_known_with_their_secrets_and_changes_are_told_once() {
        let issuers = issuers();
        let key = |name: &str| Some(Key::new("operator", name));
        assert_eq!(issuers.put(object("idp", "a", "one")), [None, key("one")]);
        assert_eq!(issuers.put(object("other", "b", "one")), [None, None], "of another operator");
        assert!(known(&issuers, "other").is_none() && known(&issuers, "idp").is_some());
        assert_eq!(issuers.next_changed().await, BTreeSet::from(["idp".into()]));
        assert_eq!(issuers.put(object("idp", "a", "one")), [key("one"), key("one")]);
        assert!(issuers.lock().changed.is_empty(), "the same again");
        assert_eq!(issuers.put(object("idp", "a", "two")), [key("one"), key("two")]);
        assert_eq!(issuers.remove("idp"), [key("two"), None]);
        assert_eq!(issuers.next_changed().await, BTreeSet::from(["idp".into()]));
    }

    #[test]
    fn issuer_that_does_not_fit_the_schema_is_known_without_a_spec() {
        let issuers = issuers();
        issuers.put(issuer_object("idp", json!({"controller": "a", "namespaces": 1})));
        assert!(known(&issuers, "idp").unwrap().spec.is_none());
        issuers.put(issuer_object("idp", Value::Null));
        assert!(known(&issuers, "idp").is_none(), "too large, so that it is not known whose it is");
    }

    /// A different answer would tell a tenant which issuers exist: it can create TokenSources with any name.
    #[test]
    fn issuer_for_others_is_not_found_whatever_is_wrong_with_it() {
        let issuers = issuers();
        let for_billing = |name: &str, member: &str, value: Value| {
            let mut object = object(name, "a", "one");
            object.spec["namespaces"] = json!({"names": ["billing"]});
            object.spec[member] = value;
            issuers.put(object);
        };
        for_billing("others", "allow", json!({"scopes": ["read"]}));
        for_billing("broken", "provider", json!({}));
        for_billing("unreadable", "limits", json!(1));
        for name in ["others", "broken", "unreadable"] {
            assert!(known(&issuers, name).is_some() && issuers.serving(name, "payments").is_none(), "{name}");
        }
        assert!(issuers.serving("others", "billing").is_some());
    }

    #[test]
    fn issuer_that_asks_otherwise_has_no_answers_yet() {
        let now = Instant::now();
        let issuers = issuers();
        issuers.put(object("idp", "a", "one"));
        let before = known(&issuers, "idp").unwrap();
        issuers.note(&before, now, None, now);
        let mut narrowed = object("idp", "a", "one");
        narrowed.spec["allow"] = json!({"scopes": ["read"]});
        issuers.put(narrowed);
        assert_eq!(issuers.answered("idp", now), Answered::Succeeded, "its requests are the same");
        issuers.put(object("idp", "a", "two"));
        assert_eq!(issuers.answered("idp", now), Answered::Nothing);
        issuers.note(&before, now, None, now);
        assert_eq!(issuers.answered("idp", now), Answered::Nothing, "a request that was under way");
    }

    #[tokio::test(start_paused = true)]
    async fn issuers_and_labels_count_for_ten_minutes_after_the_last_answer_of_their_watch() {
        let issuers = issuers_with(false);
        assert!(!issuers.is_outdated(IssuerWatch::Issuers), "the first list is waited for");
        let mut selecting = object("idp", "a", "one");
        selecting.spec["namespaces"] = json!({"selector": {"matchLabels": {"a": "b"}}});
        issuers.put(selecting);
        issuers.set_labels("ns", Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])));
        let serves = || issuers.serving("idp", "ns").is_some();
        issuers.follow(IssuerWatch::Namespaces, Contact::of_now());
        tokio::time::sleep(MAX_UNREAD - Duration::from_secs(1)).await;
        issuers.follow(IssuerWatch::Issuers, Contact::of_now());
        assert!(serves() && issuers.serving("idp", "other").is_none());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!serves());
        assert!(issuers.is_outdated(IssuerWatch::Namespaces) && !issuers.is_outdated(IssuerWatch::Issuers));
    }

    #[test]
    fn user_of_a_secret_is_an_issuer_or_a_source() {
        assert_eq!(issuer_of(&user("idp")), Some("idp"));
        assert_eq!(issuer_of("idp"), None);
    }
}
