use serde_json::json;

use super::*;

fn facts(revision: u64) -> Facts {
    let metadata = json!({"uid": "u", "resourceVersion": revision.to_string()});
    Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()
}

fn key(name: &str) -> Key {
    Key::new("ns", name)
}

/// A call that is answered at once.
fn observe(secrets: &Secrets, name: &str, facts: Option<Facts>) -> bool {
    secrets.observe(&key(name), secrets.sending(&key(name)), facts)
}

fn names<const N: usize>(names: [&str; N]) -> [Arc<str>; N] {
    names.map(Into::into)
}

/// A TokenSource `source` with target `t`, listed at revision 10.
fn secrets() -> Secrets {
    let secrets = Secrets::new(1, Arc::default());
    secrets.reference(&key("source"), &[], &names(["t", "c"]));
    let epoch = secrets.list_begins();
    assert_eq!(secrets.listed(&key("t"), facts(10), epoch), [key("source")]);
    secrets.list_ends(epoch, None);
    secrets
}

#[test]
fn secrets_unreferenced_secret_is_not_cached() {
    let secrets = secrets();
    assert!(secrets.changed(&key("other"), facts(11)).is_empty());
    observe(&secrets, "other", Some(facts(11)));
    assert_eq!(secrets.known(&key("other")), CachedSecret::Unknown);
    secrets.reference(&key("source"), &names(["t", "c"]), &[]);
    assert!(secrets.lock().entries.is_empty());
}

#[test]
fn secrets_shared_names_are_those_that_are_cached() {
    let secrets = secrets();
    let own: Arc<[Arc<str>]> = names(["token", "c"]).into();
    let shared = secrets.shared("ns", &own);
    assert_eq!(shared, own);
    assert!(Arc::ptr_eq(&shared[0], &own[0]) && !Arc::ptr_eq(&shared[1], &own[1]));
    assert!(
        Arc::ptr_eq(&secrets.shared("ns", &shared), &shared),
        "nothing is allocated for the next version"
    );
    assert!(Arc::ptr_eq(&secrets.shared("other", &own), &own));
}

#[test]
fn secrets_missing_from_the_list_are_absent_and_later_references_unknown() {
    let secrets = secrets();
    assert_eq!(secrets.known(&key("c")), CachedSecret::Absent);
    secrets.reference(&key("later"), &[], &names(["l", "t"]));
    assert_eq!(secrets.known(&key("l")), CachedSecret::Unknown);
    assert_eq!(secrets.changed(&key("t"), facts(12)).len(), 2);
}

#[test]
fn secrets_that_may_not_be_read_are_unknown_until_they_are_listed_again() {
    let secrets = secrets();
    secrets.forget("other");
    assert_ne!(secrets.known(&key("t")), CachedSecret::Unknown);
    secrets.forget("ns");
    assert_eq!([secrets.known(&key("t")), secrets.known(&key("c"))], [const { CachedSecret::Unknown }; 2]);
    let epoch = secrets.list_begins();
    assert_eq!(secrets.listed(&key("c"), facts(5), epoch), [key("source")], "whatever it was before");
    assert_eq!(secrets.list_ends(epoch, None), [key("source")]);
    assert_eq!(secrets.known(&key("t")), CachedSecret::Absent);
}

#[test]
fn secrets_events_older_than_our_own_write_are_ignored() {
    let secrets = secrets();
    observe(&secrets, "t", Some(facts(20)));
    assert!(secrets.changed(&key("t"), facts(15)).is_empty());
    assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "our own write is no change");
    assert!(secrets.deleted(&key("t"), &facts(15)).is_empty());
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(20))));
    assert_eq!(secrets.deleted(&key("t"), &facts(21)), [key("source")]);
    assert_eq!(secrets.known(&key("t")), CachedSecret::Absent);
    assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "an event from before the deletion");
}

#[test]
fn secrets_second_list_finds_deletions_during_a_watch_outage() {
    let secrets = secrets();
    let epoch = secrets.list_begins();
    assert_eq!(secrets.list_ends(epoch, Some("other")), []);
    assert_eq!(secrets.list_ends(epoch, None), [key("source")]);
    assert_eq!(secrets.known(&key("t")), CachedSecret::Absent);
    let sent = secrets.sending(&key("t"));
    let epoch = secrets.list_begins();
    observe(&secrets, "t", Some(facts(30)));
    assert_eq!(secrets.list_ends(epoch, None), [], "written by us during the list");
    assert!(secrets.observe(&key("c"), sent, Some(facts(29))));
    let epoch = secrets.list_begins();
    let sent = secrets.sending(&key("c"));
    let next = secrets.list_begins();
    assert!(secrets.observe(&key("c"), sent, Some(facts(31))));
    assert_eq!(secrets.list_ends(epoch, None), [key("source")]);
    assert_eq!(secrets.list_ends(next, None), [key("source")]);
    assert_eq!(secrets.known(&key("c")), CachedSecret::Unknown, "written perhaps after it was listed");
}

#[test]
fn secrets_writers_are_the_sources_whose_target_it_is() {
    let secrets = secrets();
    secrets.reference(&key("other"), &[], &names(["c", "t"]));
    secrets.reference(&key("third"), &[], &names(["x", "c"]));
    assert_eq!(
        (secrets.writers(&key("t")), secrets.writers(&key("c"))),
        (vec![key("source")], vec![key("other")])
    );
    secrets.reference(&key("third"), &names(["x", "c"]), &names(["c", "x"]));
    assert_eq!(secrets.writers(&key("c")), [key("third"), key("other")]);
    secrets.reference(&key("other"), &names(["c", "t"]), &[]);
    let users = secrets.users(&key("c"));
    assert_eq!(
        (secrets.writers(&key("c")), users.writers.len() + users.readers.len()),
        (vec![key("third")], 2)
    );
    assert!(secrets.writers(&key("x")).is_empty());
}

/// Another operator completes a Secret step by step, while this one reads it.
#[test]
fn secrets_answers_older_than_what_was_shown_after_the_call_was_sent_are_not_stored() {
    let secrets = secrets();
    let sent = secrets.sending(&key("c"));
    assert_eq!(secrets.changed(&key("c"), facts(11)), [key("source")]);
    assert!(!secrets.observe(&key("c"), sent, None), "it was created after the call was answered");
    let sent = secrets.sending(&key("c"));
    let _ = secrets.changed(&key("c"), facts(13));
    assert!(!secrets.observe(&key("c"), sent, Some(facts(12))), "older");
    assert_eq!(secrets.known(&key("c")), CachedSecret::Present(Arc::new(facts(13))));
    assert!(secrets.observe(&key("c"), sent, Some(facts(14))), "newer");
    let sent = secrets.sending(&key("c"));
    let _ = secrets.deleted(&key("c"), &facts(15));
    assert!(!secrets.observe(&key("c"), sent, Some(facts(14))), "it was deleted since");
    assert_eq!(secrets.known(&key("c")), CachedSecret::Absent);
    assert!(observe(&secrets, "c", None) && secrets.restorations.count() == 0);
}

#[tokio::test]
async fn secrets_read_that_the_watch_overtakes_is_repeated_twice_at_most() {
    let secrets = secrets();
    let reads = std::cell::Cell::new(0);
    let read_until = async |overtaken: u64| {
        reads.set(0);
        let (secrets, reads) = (&secrets, &reads);
        let call = || async move {
            reads.set(reads.get() + 1);
            if reads.get() <= overtaken {
                let _ = secrets.changed(&key("c"), facts(20 * overtaken + reads.get()));
                return Ok(None);
            }
            Ok(Some(facts(100)))
        };
        secrets.read(&key("c"), call, Clone::clone).await
    };
    assert_eq!(read_until(1).await, Ok(Some(facts(100))));
    assert_eq!((reads.get(), secrets.known(&key("c"))), (2, CachedSecret::Present(Arc::new(facts(100)))));
    assert_eq!(read_until(9).await, Ok(None));
    assert_eq!((reads.get(), secrets.known(&key("c"))), (3, CachedSecret::Present(Arc::new(facts(183)))));
}

#[test]
fn secrets_list_replaces_what_was_known_before_it_began_and_nothing_that_was_sent_since() {
    let secrets = secrets();
    observe(&secrets, "t", Some(facts(900)));
    observe(&secrets, "c", Some(facts(950)));
    let epoch = secrets.list_begins();
    assert_eq!(secrets.listed(&key("t"), facts(500), epoch), [key("source")]);
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(500))), "etcd was restored");
    assert_eq!(secrets.restorations.count(), 1);
    assert_eq!(secrets.list_ends(epoch, None), [key("source")]);
    assert_eq!(secrets.changed(&key("c"), facts(510)), [key("source")], "it is created again");

    let epoch = secrets.list_begins();
    observe(&secrets, "t", Some(facts(520)));
    assert_eq!(secrets.listed(&key("t"), facts(515), epoch), [], "an earlier page of the list");
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(520))));
    assert_eq!(
        secrets.listed(&key("t"), facts(900), epoch),
        [key("source")],
        "by a server with an old cache"
    );
    assert_eq!(secrets.known(&key("t")), CachedSecret::Unknown, "it is read anew");
    observe(&secrets, "t", Some(facts(520)));
    assert_eq!(secrets.list_ends(epoch, None), [key("source")], "c is gone");
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(520))));

    let sent = secrets.sending(&key("t"));
    let epoch = secrets.list_begins();
    assert!(secrets.observe(&key("t"), sent, Some(facts(530))));
    assert_eq!(secrets.listed(&key("t"), facts(525), epoch), [key("source")]);
    assert_eq!(
        secrets.known(&key("t")),
        CachedSecret::Unknown,
        "the write may have come after it was listed"
    );
}

#[test]
fn secrets_answer_below_what_was_known_before_it_was_sent_is_a_restoration() {
    let secrets = secrets();
    observe(&secrets, "t", Some(facts(900)));
    assert_eq!(secrets.restorations.count(), 0);
    assert!(observe(&secrets, "t", Some(facts(500))));
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(500))));
    assert_eq!(secrets.restorations.count(), 1);
}

#[test]
fn secrets_lists_of_several_namespaces_are_independent() {
    let secrets = Secrets::new(2, Arc::default());
    secrets.reference(&key("source"), &[], &names(["t"]));
    let ours = secrets.list_begins();
    let _ = secrets.listed(&key("t"), facts(10), ours);
    let theirs = secrets.list_begins();
    assert_eq!(secrets.list_ends(ours, Some("ns")), []);
    assert_eq!(secrets.list_ends(theirs, Some("other")), []);
    assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(10))));
}

#[test]
fn secrets_list_of_a_namespace_costs_the_same_beside_thousands_of_others() {
    let secrets = Secrets::new(1, Arc::default());
    for number in 0..2_000 {
        for name in ["a", "b", "c", "d", "e"] {
            let namespace = format!("ns-{number}");
            secrets.reference(&Key::new(&namespace, name), &[], &names([name]));
        }
    }
    let begun = std::time::Instant::now();
    for number in 0..2_000 {
        let epoch = secrets.list_begins();
        assert_eq!(secrets.list_ends(epoch, Some(&format!("ns-{number}"))).len(), 5);
    }
    // A walk through all of them each time took minutes in a debug build.
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// The answer to a call may overtake the watch event of the same change, which is no change then.
#[tokio::test(start_paused = true)]
async fn secrets_change_that_a_call_shows_first_is_told_to_all_its_users() {
    let secrets = secrets();
    secrets.reference(&key("other"), &[], &names(["o", "c"]));
    let told = async || {
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), secrets.next_of_crowds()).await;
        let mut told = next.unwrap_or_default();
        told.sort();
        told
    };
    let both = [key("other"), key("source")];
    observe(&secrets, "c", Some(facts(11)));
    assert!(secrets.changed(&key("c"), facts(11)).is_empty(), "known since the call");
    assert_eq!(told().await, both, "created");
    observe(&secrets, "c", Some(facts(11)));
    assert_eq!(told().await, [], "no change");
    observe(&secrets, "c", Some(facts(12)));
    assert_eq!(told().await, both, "changed");
    observe(&secrets, "c", None);
    assert_eq!(told().await, both, "deleted");
    observe(&secrets, "o", Some(facts(13)));
    observe(&secrets, "t", Some(facts(14)));
    assert_eq!(told().await, [], "first seen, and its one user is the caller");
}

#[tokio::test(start_paused = true)]
async fn secrets_that_change_fifty_times_a_second_and_that_ten_thousand_use_are_told_in_portions() {
    let secrets = Secrets::new(1, Arc::default());
    let of = |namespace: &str, name: &str| Key::new(namespace, name);
    for number in 0..10_000 {
        secrets.reference(&of("crowd", &format!("source-{number}")), &[], &names(["shared"]));
    }
    for number in 0..150 {
        secrets.reference(&of("honest", &format!("source-{number}")), &[], &names(["shared"]));
    }
    let (mut told, mut honest, mut took) = (std::collections::HashMap::new(), 0, vec![]);
    for revision in 1..=500 {
        let begun = std::time::Instant::now();
        assert!(secrets.changed(&of("crowd", "shared"), facts(revision)).is_empty());
        took.push(begun.elapsed());
        if revision == 250 {
            assert!(secrets.changed(&of("honest", "shared"), facts(1)).is_empty());
        }
        // Ten portions a second, and fifty changes.
        if revision % 5 == 0 {
            for source in secrets.next_of_crowds().await {
                honest += usize::from(&*source.namespace == "honest");
                *told.entry(source).or_insert(0) += 1;
            }
        }
        assert_eq!(
            honest,
            if revision < 250 {
                0
            } else if revision < 255 {
                100
            } else {
                150
            },
            "{revision}"
        );
    }
    assert_eq!(told.values().sum::<usize>(), 100 * 100 + 150);
    assert_eq!(told.len(), 10_150, "each once in ten seconds");
    took.sort();
    assert!(
        took[250] < std::time::Duration::from_millis(1),
        "{:?}: the watch does not wait for them",
        took[250]
    );
    // After the last change every user is returned once more.
    for _ in 0..100 {
        assert_eq!(secrets.next_of_crowds().await.len(), 100);
    }
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), secrets.next_of_crowds()).await.is_err());
}
