use super::*;
use crate::refresh::DEFAULT_MAX_INTERVAL;
use crate::secret::{Inputs, Minted, Owner, Version};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn record(lifetime: i64) -> Record {
    let minted = Minted {
        issued_at: at(0),
        expires_at: at(lifetime),
        token_id: "3f9a1c0d42be".into(),
        token_type: "Bearer".into(),
        scope: None,
        remarks: vec![],
    };
    let credentials = Version { uid: "c".into(), resource_version: "1".into() };
    let owner = Owner { name: "n".into(), uid: "u".into() };
    Record::new(owner, Inputs { provider: "p".into(), credentials }, None, minted, None)
}

fn situation<'a>(
    now: i64,
    token: Option<&'a Record>,
    problem: Option<Reason>,
    before: &'a Reported,
) -> Situation<'a> {
    Situation {
        now: at(now),
        generation: 3,
        provider: Some("vgs"),
        target: "vgs-token",
        token: token.map(|record| (record, at(150))),
        fits_spec: true,
        suspended: false,
        problem: problem.map(|reason| Problem { reason, message: "what is wrong".into(), passes: false }),
        remark: None,
        last_failure: None,
        policy: Policy { before: None, max_interval: DEFAULT_MAX_INTERVAL, propagation_delay: 90 },
        prompt: false,
        told: None,
        before,
    }
}

fn words(status: &TokenSourceStatus) -> Vec<String> {
    status.conditions.iter().map(|it| format!("{}={} {}", it.type_, it.status, it.reason)).collect()
}

#[test]
fn the_table_of_conditions() {
    let token = record(300);
    let none = Reported::default();
    let safe = "PropagationSafe=True LifetimeSufficient";
    for (now, token, problem, expected) in [
        (10, Some(&token), None, &["Ready=True TokenValid", safe][..]),
        (10, Some(&token), Some(Reason::ClientRejected), &["Ready=True RefreshFailing", safe]),
        (10, Some(&token), Some(Reason::CredentialsNotFound), &["Ready=True RefreshFailing", safe]),
        (300, Some(&token), None, &["Ready=False Expired", "Reconciling=True Expired", safe]),
        (
            300,
            Some(&token),
            Some(Reason::EndpointUnavailable),
            &["Ready=False EndpointUnavailable", "Reconciling=True EndpointUnavailable", safe],
        ),
        (
            300,
            Some(&token),
            Some(Reason::ClientRejected),
            &["Ready=False ClientRejected", "Stalled=True ClientRejected", safe],
        ),
        (10, None, None, &["Ready=False Requesting", "Reconciling=True Requesting"]),
        (
            10,
            None,
            Some(Reason::CredentialsNotFound),
            &["Ready=False CredentialsNotFound", "Reconciling=True CredentialsNotFound"],
        ),
        (10, None, Some(Reason::TargetRefused), &["Ready=False TargetRefused", "Stalled=True TargetRefused"]),
        (
            10,
            None,
            Some(Reason::TargetConflict),
            &["Ready=False TargetConflict", "Stalled=True TargetConflict"],
        ),
        (
            10,
            None,
            Some(Reason::EndpointRefusedByPolicy),
            &["Ready=False EndpointRefusedByPolicy", "Stalled=True EndpointRefusedByPolicy"],
        ),
    ] {
        assert_eq!(words(&status(&situation(now, token, problem, &none))), expected);
    }
}

#[test]
fn a_token_for_another_spec_is_not_ready() {
    let (token, none) = (record(300), Reported::default());
    let changed =
        Situation { fits_spec: false, ..situation(10, Some(&token), Some(Reason::ScopeRejected), &none) };
    let told = words(&status(&changed));
    assert_eq!(told.first().map(String::as_str), Some("Ready=False ScopeRejected"));
}

#[test]
fn what_passes_by_itself_is_not_stalled() {
    let none = Reported::default();
    for reason in [Reason::TargetConflict, Reason::TargetRefused] {
        let mut waits = situation(10, None, Some(reason), &none);
        if let Some(problem) = &mut waits.problem {
            problem.passes = true;
        }
        assert_eq!(
            words(&status(&waits)),
            [format!("Ready=False {reason}"), format!("Reconciling=True {reason}")]
        );
    }
}

#[test]
fn a_failure_stays_while_it_is_suspended_and_no_attempt_is_due() {
    let failed = || LastFailure {
        at: at(5),
        reason: Reason::ClientRejected.to_string(),
        message: "m".into(),
        count: 2,
        next_attempt_at: Some(at(20)),
        inputs: Some("s/r/c".into()),
    };
    let (token, none) = (record(300), Reported::default());
    let before =
        status(&Situation { last_failure: Some(failed()), ..situation(10, Some(&token), None, &none) });
    let before = Reported::of(&before);
    let told = |suspended, last_failure| {
        let situation = situation(10, Some(&token), None, &before);
        let last = status(&Situation { suspended, last_failure, ..situation }).last_failure;
        last.map(|last| (last.count, last.next_attempt_at, last.inputs.is_some()))
    };
    assert_eq!(told(false, Some(failed())), Some((2, Some(at(20)), true)));
    assert_eq!(told(false, None), Some((0, None, false)), "it has recovered");
    assert_eq!(told(true, None), Some((2, None, false)));
    assert_eq!(told(true, Some(failed())), Some((2, Some(at(20)), true)), "the issuer's wish holds");
}

#[test]
fn suspended_is_as_the_token_is() {
    let (token, none) = (record(300), Reported::default());
    let suspended = |now| status(&Situation { suspended: true, ..situation(now, Some(&token), None, &none) });
    assert_eq!(words(&suspended(10))[0], "Ready=True TokenValid");
    assert!(suspended(10).conditions[0].message.contains("suspended"));
    assert_eq!(words(&suspended(300))[0], "Ready=False Suspended");
}

#[test]
fn transition_times_move_with_the_status_alone() {
    let token = record(300);
    let first = status(&situation(10, Some(&token), None, &Reported::default()));
    let failing = status(&situation(20, Some(&token), Some(Reason::RateLimited), &Reported::of(&first)));
    assert_eq!(failing.conditions[0].last_transition_time, Time(at(10)));
    let expired = status(&situation(300, Some(&token), Some(Reason::RateLimited), &Reported::of(&failing)));
    assert_eq!(expired.conditions[0].last_transition_time, Time(at(300)));
}

#[test]
fn propagation_by_lifetime_with_numbers_and_remedies() {
    let none = Reported::default();
    for (lifetime, expected, part) in [
        (60, "PropagationSafe=False LifetimeTooShort", "accessTokenLifespan"),
        (150, "PropagationSafe=False NoRetryRoom", "tokens live 150 s, are refreshed after 30 s"),
        (300, "PropagationSafe=True LifetimeSufficient", "an outage of the endpoint of 50 s goes unnoticed"),
    ] {
        let token = record(lifetime);
        let told = status(&situation(10, Some(&token), None, &none));
        assert_eq!(words(&told)[1], expected);
        assert!(told.conditions[1].message.contains(part), "{}", told.conditions[1].message);
        assert!(told.conditions[1].message.contains("subPath"));
    }
    let mut cached = record(300);
    cached.cached = true;
    assert_eq!(
        words(&status(&situation(10, Some(&cached), None, &none)))[1],
        "PropagationSafe=False IssuerReturnsCachedTokens"
    );
}

#[test]
fn what_is_wrong_with_pods_is_said_the_worst_first() {
    let none = Reported::default();
    let told = |failed: bool, fixed: bool| Told {
        failed: failed.then(|| "no rights".into()),
        fixed: fixed.then(|| "pod web-1 (container app: subPath)".into()),
    };
    for (lifetime, told, expected, parts) in [
        (300, told(false, false), "True LifetimeSufficient", &["goes unnoticed"][..]),
        (300, told(false, true), "False StaticMount", &["web-1", "tokens live 300 s"]),
        (300, told(true, true), "False PromptFailed", &["no rights", "promptPropagation.enabled", "web-1"]),
        (60, told(true, false), "False PromptFailed", &["no rights", "may find an expired token"]),
        (60, told(false, true), "False LifetimeTooShort", &["may find an expired token", "web-1"]),
        (150, told(false, true), "False StaticMount", &["web-1", "one failed attempt"]),
    ] {
        let token = record(lifetime);
        let situation =
            Situation { prompt: true, told: Some(&told), ..situation(10, Some(&token), None, &none) };
        let status = status(&situation);
        assert_eq!(words(&status)[1], format!("PropagationSafe={expected}"));
        for part in parts {
            assert!(status.conditions[1].message.contains(part), "{}", status.conditions[1].message);
        }
        assert!(!status.conditions[1].message.contains("propagation to Prompt"));
    }
}

#[test]
fn what_another_process_found_about_pods_stands_until_this_one_has_looked() {
    let (token, none) = (record(300), Reported::default());
    let failed = Told { failed: Some("no rights".into()), fixed: None };
    let prompt = |told, before| {
        let situation = situation(10, Some(&token), None, before);
        status(&Situation { prompt: true, told, generation: 4, ..situation })
    };
    let said = prompt(Some(&failed), &none);
    let before = Reported::of(&said);
    assert_eq!(prompt(None, &before).conditions[1], said.conditions[1]);
    let looked = prompt(Some(&Told::default()), &before);
    assert_eq!(words(&looked)[1], "PropagationSafe=True LifetimeSufficient");
    let periodic = status(&situation(10, Some(&token), None, &before));
    assert_eq!(words(&periodic)[1], "PropagationSafe=True LifetimeSufficient");
}

#[test]
fn a_margin_that_cannot_hold_is_said() {
    let (token, none) = (record(300), Reported::default());
    let mut large = situation(10, Some(&token), None, &none);
    large.policy.before = Some(300);
    assert!(
        status(&large).conditions[0]
            .message
            .contains("spec.refresh.before is not less than the token's lifetime of 300 s")
    );
}

#[test]
fn the_last_failure_stays_with_count_zero() {
    let failed = LastFailure {
        at: at(5),
        reason: "RateLimited".into(),
        message: "m".into(),
        count: 4,
        next_attempt_at: Some(at(9)),
        inputs: Some("a/b".into()),
    };
    let before = TokenSourceStatus { last_failure: Some(failed), ..TokenSourceStatus::default() };
    let before = Reported::of(&before);
    let token = record(300);
    let last = status(&situation(10, Some(&token), None, &before)).last_failure.unwrap();
    assert_eq!((last.count, last.next_attempt_at, last.inputs), (0, None, None));
    assert_eq!(last.message, "m");
}
