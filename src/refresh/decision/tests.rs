mod world;

use proptest::prelude::*;

use super::super::damping::Cause;
use super::*;
use crate::secret::RareFacts;
use world::{World, at, version, world};

fn waits_for_the_refresh(decision: &Decision) -> bool {
    matches!(decision, Decision::Fresh(Some(until)) if (at(135)..=at(150)).contains(until))
}

#[test]
fn decide_fresh_token_waits_for_the_refresh() {
    assert!(waits_for_the_refresh(&world().decide(1)));
    assert!(waits_for_the_refresh(&world().decide(134)));
    assert_eq!(world().decide(150), Decision::Mint(MintReason::Due));
    assert_eq!(world().decide(100_000), Decision::Mint(MintReason::Due));
}

#[test]
fn decide_every_mint_reason_requests_a_token() {
    let requests = |reason, change: fn(&mut World)| {
        assert_eq!(world().with(change).decide(10), Decision::Mint(reason), "{reason}");
    };
    requests(MintReason::TargetMissing, |w| w.target = None);
    requests(MintReason::RecordMissing, |w| w.target().record = None);
    requests(MintReason::TargetChanged, |w| w.target().owned_keys = KeySet::default());
    requests(MintReason::TemplateChanged, |w| {
        w.wanted.template = Some("t".into());
        w.wanted.keys = KeySet::from_iter(["authorization"]);
    });
    requests(MintReason::TemplateChanged, |w| w.record().template = Some("t".into()));
    requests(MintReason::SpecChanged, |w| w.wanted.provider = "q".into());
    requests(MintReason::CredentialsChanged, |w| w.credentials = Some(version("cred", "8")));
    requests(MintReason::CredentialsChanged, |w| w.credentials = Some(version("new", "7")));
    requests(MintReason::Requested, |w| w.wanted.refresh_request = Some("1".into()));
}

#[test]
fn decide_changes_that_need_no_token_wait_for_the_refresh() {
    let waits = |change: fn(&mut World)| assert!(waits_for_the_refresh(&world().with(change).decide(10)));
    waits(|w| w.target().version.resource_version = "13".into());
    waits(|w| w.credentials = None);
    waits(|w| w.suspended = true);
    waits(|w| {
        w.wanted.refresh_request = Some("1".into());
        w.record().refresh_request = Some("1".into());
    });
    // A refresh request that was fulfilled and is removed.
    waits(|w| w.record().refresh_request = Some("1".into()));
    // The record of another format version: its inputs are not comparable, its times are valid.
    waits(|w| {
        let annotation = w.record().to_annotation().replace(r#""version":1"#, r#""version":9"#);
        *w.record() = Record::parse(&annotation).unwrap();
        w.wanted.provider = "q".into();
        w.credentials = Some(version("cred", "8"));
        w.target().labelled = false;
    });
}

#[test]
fn decide_changed_metadata_is_updated_without_a_token_request() {
    for change in [
        (|w: &mut World| w.target().labelled = false) as fn(&mut World),
        |w| w.wanted.owner_reference = false,
        |w| w.target().controlled_by = None,
        |w| {
            w.target().controlled_by = None;
            w.record().owner.uid = "predecessor".into();
        },
    ] {
        assert_eq!(world().with(change).decide(10), Decision::UpdateMetadata);
    }
}

#[test]
fn decide_metadata_update_waits_after_a_refused_write_but_not_after_other_failures() {
    let unlabelled = world().with(|w| w.target().labelled = false);
    let rejected = unlabelled.clone().with(|w| {
        let _ = w.failed(Some(400));
    });
    assert_eq!(rejected.decide(10), Decision::UpdateMetadata);
    let refused = unlabelled.with(|w| {
        let target = w.target().version.clone();
        w.failed(Some(40)).refused_target = Some(Some(target));
    });
    assert_eq!(refused.decide(10), Decision::Wait(Some(at(40))));
    assert_eq!(refused.decide(40), Decision::UpdateMetadata);
}

/// Else the Secret would be deleted with the TokenSource.
#[test]
fn decide_retain_removes_the_owner_reference_although_no_token_can_be_had() {
    let retained = world().with(|w| w.wanted.owner_reference = false);
    for change in [
        (|w: &mut World| w.suspended = true) as fn(&mut World),
        |w| w.credentials = None,
        |w| w.wanted.provider = "changed".into(),
        |w| {
            let _ = w.failed(None);
        },
        |w| {
            let _ = w.failed(Some(9000));
        },
    ] {
        assert_eq!(retained.clone().with(change).decide(1000), Decision::UpdateMetadata);
    }
    let refused = retained.with(|w| {
        let target = w.target().version.clone();
        w.failed(Some(9000)).refused_target = Some(Some(target));
    });
    assert_eq!(refused.decide(1000), Decision::Wait(Some(at(9000))));
}

#[test]
fn decide_credentials_with_another_version_are_compared_where_their_values_were_read() {
    let moved = world().with(|w| w.credentials = Some(version("cred", "8")));
    let seen = moved.clone().with(|w| w.seen_credentials = Some(version("cred", "7")));
    assert_eq!(seen.decide(10), Decision::Compare);
    let compared = seen.with(|w| w.seen_credentials = Some(version("cred", "8")));
    assert_eq!(compared.decide(10), Decision::Mint(MintReason::CredentialsChanged));
    let same = compared.with(|w| w.seen_as_minted = true);
    assert_eq!(
        same.decide(10),
        Decision::UpdateMetadata,
        "until the write succeeds, even if another writer interferes"
    );
    let moved_again = same.clone().with(|w| w.credentials = Some(version("cred", "9")));
    assert_eq!(moved_again.decide(10), Decision::Compare);
    let updated = same.with(|w| w.record().inputs.credentials = version("cred", "8"));
    assert!(waits_for_the_refresh(&updated.decide(10)));
    assert_eq!(
        moved.decide(10),
        Decision::Mint(MintReason::CredentialsChanged),
        "after a restart the values are unknown"
    );
}

#[test]
fn decide_target_of_another_owner_or_being_deleted_is_blocked() {
    let blocked = |blocked, change: fn(&mut World)| {
        assert_eq!(world().with(change).decide(1000), Decision::Blocked(blocked));
    };
    let conflict = Blocked::Conflict { whose: "this operator did not create it".into(), adoptable: true };
    blocked(conflict, |w| {
        w.target().controlled_by = None;
        w.target().record = None;
    });
    blocked(Blocked::AwaitingDeletion, |w| w.target().terminating = true);
    blocked(Blocked::AwaitingDeletion, |w| w.controlled_by("TokenSource", "old"));
    blocked(Blocked::CredentialsMissing, |w| w.credentials = None);
    blocked(Blocked::ForeignRefreshToken, |w| w.foreign_refresh_token = true);
    assert_eq!(world().with(|w| w.deleting = true).decide(1000), Decision::Nothing);
    assert_eq!(world().with(|w| w.suspended = true).decide(1000), Decision::Suspended);
}

#[test]
fn caused_names_what_others_changed_unless_the_refresh_or_an_attempt_is_due() {
    let gone = world().with(|w| w.target = None);
    assert_eq!(gone.caused(10), Some((Cause::Target, None)));
    let edited = world().with(|w| w.target().owned_keys = KeySet::default());
    let Some((Cause::Target, Some(due))) = edited.caused(10) else { panic!("the target was changed") };
    assert!((135..=150).contains(&due));
    assert_eq!(edited.caused(150), None, "the refresh is due, though the target was changed, too");
    assert_eq!(world().caused(150), None);
    let cause = |change: fn(&mut World)| world().with(change).caused(10).unwrap().0;
    assert_eq!(cause(|w| w.wanted.provider = "q".into()), Cause::Spec);
    assert_eq!(cause(|w| w.wanted.template = Some("t".into())), Cause::Spec);
    assert_eq!(cause(|w| w.wanted.refresh_request = Some("now".into())), Cause::Request);
    assert_eq!(cause(|w| w.credentials = Some(version("cred", "8"))), Cause::Credentials);

    // What ends the wait after a failure.
    let failing = gone.with(|w| {
        w.failed(Some(60));
    });
    assert_eq!(failing.caused(60), None, "another attempt is due");
    let tried = |change: fn(&mut Tried)| failing.clone().with(|w| change(&mut w.tried)).caused(10);
    assert_eq!(tried(|it| it.credentials = "d".into()), Some((Cause::Credentials, Some(60))));
    assert_eq!(tried(|it| it.spec = "t".into()), Some((Cause::Spec, Some(60))));
    assert_eq!(tried(|it| it.request = "again".into()), Some((Cause::Request, Some(60))));
}

#[test]
fn decide_metadata_is_restored_every_30_s_and_the_refresh_is_not_delayed() {
    let again = world().with(|w| {
        w.target().labelled = false;
        w.metadata_restored_at = Some(at(10));
    });
    assert_eq!(again.decide(12), Decision::Fresh(Some(at(40))));
    assert_eq!(again.decide(40), Decision::UpdateMetadata);
    let due = again.clone().with(|w| w.metadata_restored_at = Some(at(125)));
    assert!(matches!(due.decide(126), Decision::Fresh(Some(until)) if until < at(155)));
    assert_eq!(due.decide(150), Decision::Mint(MintReason::Due));
    let other_version = again.with(|w| {
        w.credentials = Some(version("cred", "8"));
        w.seen_credentials = Some(version("cred", "8"));
        w.seen_as_minted = true;
    });
    assert_eq!(
        other_version.decide(12),
        Decision::UpdateMetadata,
        "a changed version of the credentials is no conflict"
    );
}

#[test]
fn decide_secret_that_is_handed_over_gets_a_token() {
    for record in [true, false] {
        let offered = world().with(|w| {
            let target = w.target();
            target.controlled_by = None;
            let rare = RareFacts { offered_to: Some("vault-api".into()), ..RareFacts::default() };
            target.rare = Some(Box::new(rare));
            if record {
                w.record().owner.name = "other".into();
            } else {
                w.target().record = None;
            }
        });
        assert_eq!(offered.decide(10), Decision::Mint(MintReason::Adopted));
        let gone = offered.with(|w| w.target().terminating = true);
        assert_eq!(gone.decide(10), Decision::Blocked(Blocked::AwaitingDeletion));
    }
}

#[test]
fn decide_failed_attempt_waits_until_its_inputs_change() {
    let failed = world().with(|w| {
        let _ = w.failed(Some(400));
    });
    assert_eq!(failed.decide(200), Decision::Wait(Some(at(400))));
    assert_eq!(failed.decide(400), Decision::Mint(MintReason::Due));
    let forever = world().with(|w| {
        let _ = w.failed(None);
    });
    assert_eq!(forever.decide(200), Decision::Wait(None));

    let spec = failed.clone().with(|w| w.tried.spec = "changed".into());
    assert_eq!(spec.decide(200), Decision::Mint(MintReason::Due));
    let requested = failed.clone().with(|w| w.tried.request = "again".into());
    assert_eq!(requested.decide(200), Decision::Mint(MintReason::Due));
    let locked = spec.with(|w| w.failure.as_mut().unwrap().issuer_asks_to_wait = true);
    assert_eq!(locked.decide(200), Decision::Wait(Some(at(400))), "only changed values end a lock-out");
    let values = locked.with(|w| w.tried.credentials = "changed".into());
    assert_eq!(values.decide(200), Decision::Mint(MintReason::Due));
    let labelled = values.with(|w| w.seen_credentials = Some(version("cred", "6")));
    assert_eq!(labelled.decide(200), Decision::Compare);
}

#[test]
fn decide_refused_write_is_retried_with_the_same_token_until_the_next_is_better() {
    let inputs = Inputs { provider: "p".into(), credentials: version("cred", "7") };
    let pending = world().with(|w| {
        w.pending = Some((inputs, at(500), at(600)));
        let target = w.target().version.clone();
        w.failed(Some(300)).refused_target = Some(Some(target));
    });
    assert_eq!(pending.decide(200), Decision::Wait(Some(at(300))));
    assert_eq!(pending.decide(300), Decision::Write);
    assert_eq!(
        pending.decide(599),
        Decision::Write,
        "the target's expired at 300, and the endpoint may be slow"
    );
    assert_eq!(pending.decide(600), Decision::Mint(MintReason::Due));
    let longer = pending.clone().with(|w| w.record().expires_at = at(700));
    assert_eq!(longer.decide(499), Decision::Write);
    assert_eq!(longer.decide(500), Decision::Mint(MintReason::Due), "the target's lives longer");
    let replaced = pending.clone().with(|w| w.target().version.resource_version = "13".into());
    assert_eq!(replaced.decide(200), Decision::Write, "the target has changed");
    let other = pending.with(|w| w.wanted.provider = "q".into());
    assert_eq!(other.decide(300), Decision::Mint(MintReason::SpecChanged));
}

#[test]
fn decide_rotated_refresh_token_is_saved_before_anything_else() {
    let unsaved = world().with(|w| {
        w.unsaved_refresh_token = true;
        w.failed(Some(3000));
    });
    assert_eq!(unsaved.decide(1000), Decision::Saving, "whatever failed before");
    assert_eq!(unsaved.clone().with(|w| w.suspended = true).decide(1), Decision::Saving);
    let foreign = unsaved.with(|w| w.controlled_by("Deployment", "uid"));
    assert_eq!(foreign.decide(1), Decision::Saving, "it is saved in another Secret than the target");
}

#[test]
fn decide_refresh_token_that_another_process_announced_is_sent_after_a_wait() {
    let waits = world().with(|w| w.predecessor_until = Some(at(1075)));
    assert!(matches!(waits.decide(100), Decision::Fresh(_)), "no token is needed");
    assert_eq!(waits.decide(1000), Decision::HandingOver(at(1075)));
    assert_eq!(waits.decide(1075), Decision::Mint(MintReason::Due));
    let inputs = Inputs { provider: "p".into(), credentials: version("cred", "7") };
    let received = waits.with(|w| w.pending = Some((inputs, at(2000), at(4000))));
    assert_eq!(received.decide(1000), Decision::Write, "it sends nothing");
}

#[test]
fn decide_token_of_doubtful_age_is_replaced_when_its_time_has_come() {
    let doubtful = world().with(|w| w.replace_at = Some(at(20)));
    assert_eq!(doubtful.decide(19), Decision::Fresh(Some(at(20))));
    assert_eq!(doubtful.decide(20), Decision::Mint(MintReason::Due));
    let late = world().with(|w| w.replace_at = Some(at(1000)));
    assert!(waits_for_the_refresh(&late.decide(0)), "it is not refreshed later than without");
    // The machine was suspended until after the expiry.
    assert_eq!(world().decide(i64::from(i32::MAX)), Decision::Mint(MintReason::Due));
}

#[test]
fn decide_wait_after_a_failure_that_another_clock_dated_is_over() {
    let failed = |at_second: i64| world().with(move |w| w.failed(Some(100_300)).failed_at = at(at_second));
    assert_eq!(failed(10_000).decide(9_980), Decision::Wait(Some(at(100_300))), "a little ahead");
    assert_eq!(failed(100_000).decide(9_980), Decision::Mint(MintReason::Due));
}

#[test]
fn decide_cached_token_is_refreshed_in_time_and_not_in_a_loop() {
    let cached = world().with(|w| {
        w.record().issued_at = at(200);
        w.record().cached = true;
    });
    assert_eq!(cached.decide(201), Decision::Fresh(Some(at(250))));
    assert_eq!(cached.decide(250), Decision::Mint(MintReason::Due));
}

proptest! {
    #[test]
    fn decide_never_panics(now in any::<i32>(), issued in any::<i32>(), expires in any::<i32>(), cached in any::<bool>(), next in any::<i32>()) {
        let world = world().with(|w| {
            w.record().issued_at = at(i64::from(issued));
            w.record().expires_at = at(i64::from(expires));
            w.record().cached = cached;
            w.failed(Some(i64::from(next)));
        });
        let _ = world.decide(i64::from(now));
    }
}

/// The Secret may be labelled while a token request waits or is in flight.
#[test]
fn pending_token_whose_credentials_secret_moved_is_compared_before_another_is_requested() {
    let inputs = Inputs { provider: "p".into(), credentials: version("cred", "7") };
    let moved = world().with(|world| {
        world.pending = Some((inputs.clone(), at(400), at(600)));
        world.seen_credentials = Some(version("cred", "7"));
        world.credentials = Some(version("cred", "8"));
        world.target = None;
    });
    assert_eq!(moved.decide(10), Decision::Compare);
    let other_values = moved.with(|world| world.seen_credentials = Some(version("cred", "8")));
    assert_eq!(other_values.decide(10), Decision::Mint(MintReason::TargetMissing));
    let same_values = other_values.with(|world| {
        world.pending.as_mut().unwrap().0.credentials = version("cred", "8");
    });
    assert_eq!(same_values.decide(10), Decision::Write);
}
