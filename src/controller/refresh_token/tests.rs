use std::time::Duration;

use super::registry::UnsavedOriginals;
use super::stored::is_by;
use super::*;
use token_endpoint::Credential;

fn version(resource_version: &str) -> Version {
    Version { uid: "u".into(), resource_version: resource_version.into() }
}

fn of_user(token: &str) -> Credentials {
    Credentials { refresh_token: Some(token.into()), ..Credentials::default() }
}

fn digest(token: &str) -> String {
    sha256(&token.into())
}

fn stored(token: &str, original: &str, rotations: u64) -> StoredSecret {
    let token = StoredToken { value: token.into(), original_sha256: digest(original), rotations };
    StoredSecret { version: Some(version("7")), token: Some(token), ..StoredSecret::default() }
}

fn announcement(sent: &str, process: &str) -> Announcement {
    Announcement { sent_sha256: digest(sent), process: process.into() }
}

impl StoredSecret {
    fn announced(self, sent: &str, process: &str) -> Self {
        StoredSecret { announced: Some(announcement(sent, process)), ..self }
    }
}

fn sent(credentials: &Credentials) -> &str {
    credentials.refresh_token.as_ref().unwrap().expose_secret()
}

fn facts(announced: Option<&Announcement>) -> Facts {
    let metadata = serde_json::json!({
        "uid": "u", "resourceVersion": "7",
        "annotations": announced.map(|it| serde_json::json!({"tokensource.dev/refresh-token-sent": it.to_string()})),
    });
    Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()
}

/// `token`, which came for `sent` and descends from `original`. The Secret held `replaces`.
pub(in crate::controller) fn unsaved(
    token: &str,
    original: &str,
    rotations: u64,
    sent: &str,
    replaces: Option<&str>,
) -> UnsavedRefreshToken {
    let source = Key::new("ns", "a");
    UnsavedRefreshToken {
        secret: source.sibling("a-refresh-token"),
        token: StoredToken { value: token.into(), original_sha256: digest(original), rotations },
        announced: announcement(sent, "me"),
        replaces: Some(version("7")),
        replaces_sha256: replaces.map(digest),
        _claim: UnsavedOriginals::default().claim(&source, &digest(original)),
        source,
    }
}

#[test]
fn original_is_sent_while_nothing_is_stored() {
    let mut read = of_user("original");
    let (lineage, known) = choose(&mut read, StoredSecret::default(), &version("1"), None).unwrap();
    assert_eq!((sent(&read), lineage.is_original, lineage.secret.version), ("original", true, None));
    assert_eq!((known.exclusive_in, known.version), (None, version("1")));
}

#[test]
fn stored_is_sent_while_it_descends_from_the_original_whatever_version_that_has() {
    let mut read = of_user("original");
    let (lineage, known) = choose(&mut read, stored("second", "original", 1), &version("2"), None).unwrap();
    assert_eq!(
        (sent(&read), lineage.is_original, lineage.secret.version),
        ("second", false, Some(version("7")))
    );
    assert_eq!(known.sha256, lineage.original_sha256);
}

#[test]
fn original_that_a_person_replaced_wins_over_the_stored_one() {
    let known = KnownOriginal { version: version("1"), sha256: digest("original"), exclusive_in: Some(3) };
    let mut read = of_user("another");
    let secret = stored("second", "original", 1);
    let (lineage, after) = choose(&mut read, secret, &version("2"), Some(&known)).unwrap();
    assert_eq!(
        (sent(&read), lineage.is_original, lineage.secret.version),
        ("another", true, Some(version("7")))
    );
    assert_eq!(after.exclusive_in, None, "it is to be checked anew");
    let mut read = of_user("original");
    let (_, same) = choose(&mut read, StoredSecret::default(), &version("2"), Some(&known)).unwrap();
    assert_eq!(same.exclusive_in, Some(3));
    assert!(choose(&mut Credentials::default(), StoredSecret::default(), &version("1"), None).is_none());
}

#[test]
fn original_that_a_person_only_cleaned_up_is_the_same_one() {
    let mut marked = of_user("original");
    marked.stored.insert(Credential::RefreshToken, "\u{feff}original".into());
    let (lineage, _) = choose(&mut marked, StoredSecret::default(), &version("1"), None).unwrap();
    assert_eq!(lineage.original_sha256, digest("original"));
}

/// Whose wins when the Secret was written between the announcement and the save.
#[test]
fn winner_of_a_conflict_is_the_newer_token_of_the_newer_original() {
    let third = || unsaved("third", "original", 2, "second", Some("second"));
    // A person has written another original, which was sent; the Secret still held a descendant of the first one.
    let of_new = || unsaved("new-1", "new", 1, "new", Some("second"));
    let chain = |token, rotations| stored(token, "original", rotations);
    for (unsaved, held, winner, why) in [
        (third(), chain("third", 2), Winner::Same, "the response to the write was lost"),
        (third(), chain("second", 1).announced("second", "me"), Winner::Ours, "labelled"),
        (third(), chain("second", 1), Winner::Ours, "the announcement was removed"),
        (third(), chain("first", 0), Winner::Ours, "an ancestor, from a backup"),
        (third(), chain("second", 1).announced("second", "successor"), Winner::Ours, "a successor sends it"),
        (third(), chain("sibling", 2), Winner::Theirs, "a successor got another one"),
        (third(), chain("fourth", 3), Winner::Theirs, "another process had it, and went on"),
        (third(), chain("second", 1).announced("new", "successor"), Winner::Theirs, "a newer original"),
        (third(), stored("new-1", "new", 1), Winner::Theirs, "a newer original was rotated"),
        (third(), chain("edited", 1).announced("second", "me"), Winner::Ours, "edited by a person"),
        (of_new(), chain("second", 1).announced("new", "me"), Winner::Ours, "labelled"),
        (of_new(), chain("second", 1), Winner::Ours, "labelled, and the announcement was removed"),
        (of_new(), stored("newest-1", "newest", 1), Winner::Theirs, "the original was replaced again"),
        (unsaved("first", "original", 1, "original", None), StoredSecret::default(), Winner::Ours, "emptied"),
        (third(), StoredSecret::default().announced("original", "old"), Winner::Ours, "restored from before"),
    ] {
        assert_eq!(unsaved.winner(&held), winner, "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn announcement_of_another_process_holds_a_successor_up_for_lease_and_saver() {
    let tokens = RefreshTokens::new("me".into(), Duration::from_secs(15));
    let source = Key::new("ns", "a");
    let wait = |announced: Option<&Announcement>| tokens.wait_for_predecessor(&source, &facts(announced));
    let (mine, theirs) = (announcement("token", "me"), announcement("token", "predecessor"));
    assert_eq!((wait(None), wait(Some(&mine))), (None, None));
    assert_eq!(wait(Some(&theirs)), Some(Duration::from_secs(75)));
    tokio::time::advance(Duration::from_secs(70)).await;
    assert_eq!(wait(Some(&theirs)), Some(Duration::from_secs(5)));
    let another = announcement("token", "another predecessor");
    assert_eq!(wait(Some(&another)), Some(Duration::from_secs(75)), "it has its own time");
    tokio::time::advance(Duration::from_secs(75)).await;
    assert_eq!(wait(Some(&another)), None);
    // Another term: the time before it does not count, because this process did not lead.
    tokens.end_term();
    assert_eq!(wait(Some(&another)), Some(Duration::from_secs(75)));
    assert_eq!(wait(None), None, "saved");
    assert_eq!(wait(Some(&another)), Some(Duration::from_secs(75)));
    tokio::time::advance(Duration::from_secs(75)).await;
    assert_eq!(wait(Some(&another)), None);
    tokens.forget(&source);
    assert_eq!(wait(Some(&another)), Some(Duration::from_secs(75)), "a new object of this name");
}

#[test]
fn announcement_that_cannot_be_read_is_another_process() {
    assert!(is_by(&announcement("token", "a b").to_string(), "a b"));
    assert!(!is_by("", "me") && !is_by("me", "me") && !is_by("digest me2", "me"));
}

#[test]
fn refresh_token_is_sent_by_one_request_at_a_time() {
    let tokens = RefreshTokens::new("me".into(), Duration::ZERO);
    let sending = tokens.begin_sending(&"token".into()).unwrap();
    assert!(tokens.begin_sending(&"token".into()).is_none());
    assert!(tokens.begin_sending(&"another".into()).is_some());
    drop(sending);
    assert!(tokens.begin_sending(&"token".into()).is_some());
}

#[test]
fn unsaved_original_is_claimed_by_its_holder_until_it_is_dropped() {
    let (originals, source) = (UnsavedOriginals::default(), Key::new("ns", "a"));
    let claim = originals.claim(&source, "sha");
    assert_eq!(originals.holder(&source.sibling("b"), "sha"), Some(source.clone()));
    assert_eq!(originals.holder(&Key::new("other", "b"), "sha"), None, "in its namespace");
    drop(claim);
    assert_eq!(originals.holder(&source, "sha"), None);
}
