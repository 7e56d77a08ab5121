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
        lifetime_is_assumed: false,
        is_jwt: false,
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
        policy: Policy {
            before: None,
            max_interval: DEFAULT_MAX_INTERVAL,
            propagation_delay: 90,
            min_interval: 0,
        },
        prompt: false,
        propagation: None,
        before,
    }
}

fn conditions(status: &TokenSourceStatus) -> Vec<String> {
    status.conditions.iter().map(|it| format!("{}={} {}", it.type_, it.status, it.reason)).collect()
}

#[test]
fn conditions_by_token_and_problem() {
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
        assert_eq!(conditions(&status(&situation(now, token, problem, &none))), expected);
    }
}

#[test]
fn ready_is_false_with_a_token_for_another_spec() {
    let (token, none) = (record(300), Reported::default());
    let changed =
        Situation { fits_spec: false, ..situation(10, Some(&token), Some(Reason::ScopeRejected), &none) };
    let conditions = conditions(&status(&changed));
    assert_eq!(conditions.first().map(String::as_str), Some("Ready=False ScopeRejected"));
}

#[test]
fn problem_that_passes_is_reconciling_not_stalled() {
    let none = Reported::default();
    for reason in [Reason::TargetConflict, Reason::TargetRefused] {
        let mut waits = situation(10, None, Some(reason), &none);
        if let Some(problem) = &mut waits.problem {
            problem.passes = true;
        }
        assert_eq!(
            conditions(&status(&waits)),
            [format!("Ready=False {reason}"), format!("Reconciling=True {reason}")]
        );
    }
}

#[test]
fn last_failure_while_suspended_keeps_count_without_next_attempt() {
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
    let reported = |suspended, last_failure| {
        let situation = situation(10, Some(&token), None, &before);
        let last = status(&Situation { suspended, last_failure, ..situation }).last_failure;
        last.map(|last| (last.count, last.next_attempt_at, last.inputs.is_some()))
    };
    assert_eq!(reported(false, Some(failed())), Some((2, Some(at(20)), true)));
    assert_eq!(reported(false, None), Some((0, None, false)), "it has recovered");
    assert_eq!(reported(true, None), Some((2, None, false)));
    assert_eq!(
        reported(true, Some(failed())),
        Some((2, Some(at(20)), true)),
        "a present failure is reported unchanged"
    );
}

#[test]
fn ready_while_suspended_follows_the_token() {
    let (token, none) = (record(300), Reported::default());
    let suspended = |now| status(&Situation { suspended: true, ..situation(now, Some(&token), None, &none) });
    assert_eq!(conditions(&suspended(10))[0], "Ready=True TokenValid");
    assert!(suspended(10).conditions[0].message.contains("suspended"));
    assert_eq!(conditions(&suspended(300))[0], "Ready=False Suspended");
}

#[test]
fn last_transition_time_changes_only_with_the_condition_status() {
    let token = record(300);
    let first = status(&situation(10, Some(&token), None, &Reported::default()));
    let failing = status(&situation(20, Some(&token), Some(Reason::RateLimited), &Reported::of(&first)));
    assert_eq!(failing.conditions[0].last_transition_time, Time(at(10)));
    let expired = status(&situation(300, Some(&token), Some(Reason::RateLimited), &Reported::of(&failing)));
    assert_eq!(expired.conditions[0].last_transition_time, Time(at(300)));
}

#[test]
fn propagation_safe_by_lifetime_has_numbers_and_remedies() {
    let none = Reported::default();
    for (lifetime, expected, part) in [
        (60, "PropagationSafe=False LifetimeTooShort", "accessTokenLifespan"),
        (150, "PropagationSafe=False NoRetryRoom", "tokens live 150 s, are refreshed after 30 s"),
        (300, "PropagationSafe=True LifetimeSufficient", "an outage of the endpoint of 50 s goes unnoticed"),
    ] {
        let token = record(lifetime);
        let status = status(&situation(10, Some(&token), None, &none));
        assert_eq!(conditions(&status)[1], expected);
        assert!(status.conditions[1].message.contains(part), "{}", status.conditions[1].message);
        assert!(status.conditions[1].message.contains("subPath"));
    }
    let mut cached = record(300);
    cached.cached = true;
    assert_eq!(
        conditions(&status(&situation(10, Some(&cached), None, &none)))[1],
        "PropagationSafe=False IssuerReturnsCachedTokens"
    );
}

#[test]
fn propagation_safe_with_several_problems_has_the_most_severe_reason() {
    let none = Reported::default();
    let outcome = |failed: bool, has_static_mount: bool| PropagationResult {
        failed: failed.then(|| "no rights".into()),
        static_mounts: has_static_mount.then(|| "pod web-1 (container app: subPath)".into()),
    };
    for (lifetime, result, expected, parts) in [
        (300, outcome(false, false), "True LifetimeSufficient", &["goes unnoticed"][..]),
        (300, outcome(false, true), "False StaticMount", &["web-1", "tokens live 300 s"]),
        (
            300,
            outcome(true, true),
            "False PromptFailed",
            &["no rights", "promptPropagation.enabled", "web-1"],
        ),
        (60, outcome(true, false), "False PromptFailed", &["no rights", "may find an expired token"]),
        (60, outcome(false, true), "False LifetimeTooShort", &["may find an expired token", "web-1"]),
        (150, outcome(false, true), "False StaticMount", &["web-1", "one failed attempt"]),
    ] {
        let token = record(lifetime);
        let situation = Situation {
            prompt: true,
            propagation: Some(&result),
            ..situation(10, Some(&token), None, &none)
        };
        let status = status(&situation);
        assert_eq!(conditions(&status)[1], format!("PropagationSafe={expected}"));
        for part in parts {
            assert!(status.conditions[1].message.contains(part), "{}", status.conditions[1].message);
        }
        assert!(!status.conditions[1].message.contains("propagation to Prompt"));
    }
}

#[test]
fn propagation_safe_of_another_process_stays_until_pods_are_checked() {
    let (token, none) = (record(300), Reported::default());
    let failed = PropagationResult { failed: Some("no rights".into()), static_mounts: None };
    let prompt = |propagation, before| {
        let situation = situation(10, Some(&token), None, before);
        status(&Situation { prompt: true, propagation, generation: 4, ..situation })
    };
    let reported = prompt(Some(&failed), &none);
    let before = Reported::of(&reported);
    assert_eq!(prompt(None, &before).conditions[1], reported.conditions[1]);
    let checked = prompt(Some(&PropagationResult::default()), &before);
    assert_eq!(conditions(&checked)[1], "PropagationSafe=True LifetimeSufficient");
    let periodic = status(&situation(10, Some(&token), None, &before));
    assert_eq!(conditions(&periodic)[1], "PropagationSafe=True LifetimeSufficient");
}

#[test]
fn ready_message_remarks_a_refresh_before_that_is_too_long() {
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
fn last_failure_after_recovery_has_count_zero() {
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

#[test]
fn status_shows_texts_of_others_on_one_line_and_cut() {
    let foreign = format!("x\n\u{1b}[31m\u{202e}{}", "y".repeat(240_000));
    let none = Reported::default();
    let mut forged = record(300);
    forged.remarks = [foreign.clone()].into();
    forged.token_id = foreign.as_str().into();
    forged.token_type = foreign.as_str().into();
    forged.scope = Some(foreign.as_str().into());
    let problem = Problem { reason: Reason::TargetRefused, message: foreign.clone(), passes: false };
    let last_failure = LastFailure {
        at: at(1),
        reason: foreign.clone(),
        message: foreign.clone(),
        count: 1,
        next_attempt_at: None,
        inputs: None,
    };
    for problem in [None, Some(problem)] {
        let situation = Situation {
            problem,
            last_failure: Some(last_failure.clone()),
            ..situation(10, Some(&forged), None, &none)
        };
        let written = serde_json::to_string(&status(&situation)).unwrap();
        assert!(written.len() < 20_000, "{}", written.len());
        for message in status(&situation).conditions.iter().map(|it| &it.message) {
            assert!(!message.contains(crate::text::is_active) && message.len() < 5000, "{message}");
        }
    }
}
