//! Many scenarios side by side: which faults there are, by a recording, and what they found.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use futures::stream;

use super::fault::{Call, Change, Fault, Kind, Phase, Way};
use super::known::issue_of;
use super::scenario::{Outcome, Scenario, run};

/// How many scenarios run side by side. They wait most of the time.
const AT_ONCE: usize = 8;
/// The longest time of a scenario without faults.
const UNDISTURBED: Duration = Duration::from_secs(15);
/// The environment variable with a part of the names of the faults that are to be tried again.
const ONLY: &str = "FAULT";
/// Of so few scenarios, a twentieth says nothing: a call that is made now and then is among them by chance.
const SMALL: usize = 100;
/// After how many scenarios a line tells how many there were.
const PROGRESS: usize = 50;
/// How much of the operator's log is shown, without what libraries say.
const LOG_LINES: usize = 60;
/// The most calls of one kind about a lease that are spoiled: it is renewed all the time.
const MOST_OF_LEASE: usize = 2;

/// One scenario to run: with these faults, and so many token requests without any.
#[derive(Clone)]
pub struct Trial {
    pub scenario: Scenario,
    pub faults: Vec<Fault>,
    undisturbed: u64,
}

impl Trial {
    /// Not so where a process is killed that may hold the next refresh token: its successor waits for a minute and more.
    pub fn is_quick(&self) -> bool {
        let kills = |fault: &Fault| matches!(fault.way, Way::KilledBefore | Way::KilledAfter);
        !(self.scenario.kind.rotates() && self.faults.iter().any(kills))
    }

    fn name(&self) -> String {
        let faults: Vec<_> = self.faults.iter().map(ToString::to_string).collect();
        format!("{}: {}", self.scenario, faults.join(" + "))
    }
}

/// Runs the scenarios without faults, twice, and returns the single faults of each: of the calls that it makes both times.
pub async fn recorded(scenarios: &[Scenario]) -> Vec<Trial> {
    let mut trials = Vec::new();
    let twice = scenarios.iter().flat_map(|&scenario| [scenario, scenario]);
    let recordings = join_all(twice.map(async |scenario| run(scenario, &[], None).await)).await;
    for (&scenario, recordings) in scenarios.iter().zip(recordings.chunks(2)) {
        for Outcome { violation, log, elapsed, calls, .. } in recordings {
            assert!(violation.is_none(), "without faults, {scenario}: {violation:?}\n{log}");
            eprintln!("{scenario}: {} calls, {:.1} s", calls.len(), elapsed.as_secs_f64());
            assert!(*elapsed < UNDISTURBED, "{scenario} takes {elapsed:?} without faults");
        }
        let [first, second] = recordings else { continue };
        let undisturbed = first.requests.min(second.requests);
        let calls: BTreeSet<&Call> = first.calls.iter().filter(|call| second.calls.contains(call)).collect();
        for call in calls.into_iter().filter(|call| is_to_spoil(call, scenario)) {
            for way in call.ways(scenario.kind.rotates()) {
                let faults = vec![Fault { call: call.clone(), way }];
                trials.push(Trial { scenario, faults, undisturbed });
            }
        }
    }
    trials
}

/// Calls of the phases that all scenarios of a kind have in common are spoiled in one of them.
fn is_to_spoil(call: &Call, scenario: Scenario) -> bool {
    let is_own = matches!(call.phase, Phase::Change(_)) || scenario.change == Change::ALL[0];
    // With one replica, no other process writes the Lease.
    let is_new = scenario.kind != Kind::Replicas || call.replica == 1 || call.resource.starts_with("leases");
    let is_renewal = call.resource.starts_with("leases") && call.number > MOST_OF_LEASE;
    is_own && (is_new || matches!(call.phase, Phase::Change(_))) && !is_renewal
}

/// Runs the trials and fails with what they found.
pub async fn campaign(name: &str, trials: Vec<Trial>) {
    let begun = Instant::now();
    let only = std::env::var(ONLY).ok();
    let is_chosen = |trial: &Trial| only.as_ref().is_none_or(|only| trial.name().contains(only));
    let trials: Vec<_> = trials.into_iter().filter(is_chosen).collect();
    let count = trials.len();
    assert!(count > 0, "{name}: none of its scenarios has {only:?} in its name");
    let mut findings = Findings::default();
    let running = trials.into_iter().map(async |trial| {
        let outcome = run(trial.scenario, &trial.faults, Some(trial.undisturbed)).await;
        (trial, outcome)
    });
    let mut ended = stream::iter(running).buffer_unordered(AT_ONCE);
    while let Some((trial, outcome)) = ended.next().await {
        findings.add(&trial, &outcome);
        if findings.trials.is_multiple_of(PROGRESS) {
            eprintln!("{name}: {} of {count} scenarios", findings.trials);
        }
    }
    findings.report(name, begun.elapsed());
}

#[derive(Default)]
struct Findings {
    trials: usize,
    faults: usize,
    reached: usize,
    excused: usize,
    longest: (Duration, String),
    unreached: Vec<String>,
    known: Vec<String>,
    failed: Vec<String>,
}

impl Findings {
    fn add(&mut self, trial: &Trial, outcome: &Outcome) {
        self.trials += 1;
        self.faults += trial.faults.len();
        self.reached += outcome.reached;
        self.excused += usize::from(outcome.is_excused);
        let name = trial.name();
        assert!(!outcome.is_excused || !trial.is_quick(), "excused, though no process was killed: {name}");
        if outcome.elapsed > self.longest.0 {
            self.longest = (outcome.elapsed, name.clone());
        }
        if outcome.reached < trial.faults.len() {
            self.unreached.push(name.clone());
        }
        let Some(violation) = &outcome.violation else { return };
        if let Some(issue) = issue_of(&name, violation) {
            self.known.push(format!("{name}\n    {issue}: {violation}"));
            return;
        }
        eprintln!("FAILED {name}\n    {violation}");
        let log: Vec<_> = outcome.log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
        let log = log[log.len().saturating_sub(LOG_LINES)..].join("\n");
        self.failed.push(format!("{name}\n    {violation}\n{log}\n"));
    }

    fn report(&self, name: &str, elapsed: Duration) {
        eprintln!(
            "{name}: {} scenarios with {} faults, {} reached, {} excused, {} known, {} failed; {:.0} s, the longest {:.0} s: {}",
            self.trials,
            self.faults,
            self.reached,
            self.excused,
            self.known.len(),
            self.failed.len(),
            elapsed.as_secs_f64(),
            self.longest.0.as_secs_f64(),
            self.longest.1,
        );
        for (what, all) in [("not reached", &self.unreached), ("known", &self.known)] {
            for one in all {
                eprintln!("{what}: {one}");
            }
        }
        assert!(
            self.failed.is_empty(),
            "{} of {} scenarios failed; repeat one with {ONLY}='the end of its name' cargo test --test perturbation \
             'the name of this test' -- --include-ignored --nocapture:\n{}",
            self.failed.len(),
            self.trials,
            self.failed.join("\n")
        );
        assert!(
            self.unreached.len() * 20 <= self.trials.max(SMALL),
            "more than 5 % of the faults were not reached: {:#?}",
            self.unreached
        );
    }
}

/// Pairs of faults of one scenario, from a seed.
pub fn pairs(trials: &[Trial], random: &mut crate::random::Random, count: usize) -> Vec<Trial> {
    let mut pairs = Vec::new();
    while pairs.len() < count {
        let first = random.one_of(trials).clone();
        let same: Vec<_> = trials.iter().filter(|it| it.scenario == first.scenario).collect();
        let second = *random.one_of(&same);
        if second.faults[0].call != first.faults[0].call {
            let faults = [first.faults, second.faults.clone()].concat();
            pairs.push(Trial { faults, ..first });
        }
    }
    pairs
}
