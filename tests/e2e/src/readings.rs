//! What the readers saw, from the logs of their pods.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cluster::Cluster,
    command::{Result, now},
    phases::Window,
    sources::{self, Kind},
};

/// A token says when it expires in whole seconds, so that up to a second of its life is not seen, in milliseconds.
const WHOLE_SECONDS: i64 = 1000;

/// All readings.
pub struct Readings {
    pub windows: Vec<Window>,
    pub kinds: Vec<KindReadings>,
    /// When the logs were read, in milliseconds since 1970.
    ended: i64,
    /// The duration of `helm install --wait`.
    pub install: Duration,
}

/// Those of one row.
pub struct KindReadings {
    pub kind: Kind,
    /// Status and reason of `PropagationSafe`, before the first disturbance.
    pub condition: String,
    readers: Vec<Reader>,
}

/// The lines of one pod.
struct Reader {
    lines: Vec<Value>,
    restarted: bool,
}

/// Of a time, in milliseconds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// From a token's issue to its first read, of each token and reader; ascending.
    pub ages: Vec<i64>,
    /// The least life left at any read; `None`: no token was replaced.
    pub least_left: Option<i64>,
    /// How long a token was read after its end, in all readers together.
    pub expired: i64,
    pub requests: i64,
    pub retried: i64,
    pub refused: i64,
    /// Requests without a response.
    pub failed: i64,
}

impl Readings {
    pub fn collect(
        cluster: &Cluster,
        kinds: Vec<Kind>,
        conditions: Vec<String>,
        windows: Vec<Window>,
        install: Duration,
    ) -> Result<Self> {
        let mut readings = Vec::new();
        for (kind, condition) in kinds.into_iter().zip(conditions) {
            let selector = format!("source in ({})", kind.names().join(","));
            let mut readers = Vec::new();
            for pod in cluster.list(&["-n", sources::NAMESPACE, "pods", "-l", &selector])? {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let log = cluster.kubectl(&["-n", sources::NAMESPACE, "logs", name])?;
                readers.push(Reader {
                    lines: log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
                    restarted: pod["status"]["containerStatuses"][0]["restartCount"] != 0,
                });
            }
            readings.push(KindReadings { kind, condition, readers });
        }
        Ok(Self { windows, kinds: readings, ended: now(), install })
    }

    /// All phases.
    pub fn whole(&self) -> (i64, i64) {
        (self.windows.first().map_or(0, |window| window.began), self.ended)
    }

    /// What was promised and did not hold.
    pub fn broken_promises(&self) -> Vec<String> {
        let (began, ended) = self.whole();
        let failed = self.windows.iter().filter(|window| window.failed);
        let mut broken: Vec<String> =
            failed.map(|window| format!("{}: {}", window.phase.name(), window.note)).collect();
        for readings in &self.kinds {
            let kind = readings.kind;
            if readings.readers.len() != kind.readers()
                || readings.readers.iter().any(|reader| reader.restarted)
            {
                broken.push(format!("{kind}: a reader is missing or was restarted"));
            }
            let figures = readings.between(began, ended);
            if figures.ages.is_empty() || figures.requests == 0 {
                broken.push(format!("{kind}: no token was replaced, or no request was sent"));
            }
            if kind.least_life() > 0 {
                if let Some(left) = readings.least_left(&self.windows, false)
                    && left + WHOLE_SECONDS < kind.least_life() * 1000
                {
                    broken.push(format!(
                        "{kind}: {left} ms of life were left, {} s are promised while no refresh is late",
                        kind.least_life()
                    ));
                }
                if figures.expired > 0 {
                    broken.push(format!("{kind}: an expired token was read for {} ms", figures.expired));
                }
                if figures.refused > 0 {
                    broken.push(format!("{kind}: {} requests were refused", figures.refused));
                }
            } else if !readings.condition.starts_with("False") {
                broken.push(format!("{kind}: PropagationSafe is {}", readings.condition));
            }
        }
        broken
    }
}

impl KindReadings {
    /// Of all readers, in a time: milliseconds since 1970.
    pub fn between(&self, began: i64, ended: i64) -> Figures {
        let mut figures = Figures::default();
        for reader in &self.readers {
            add(&mut figures, &reader.lines, began, ended);
        }
        figures.ages.sort_unstable();
        figures
    }

    /// The least life left at any read, in milliseconds, through the phases that delay refreshes or through the others.
    pub fn least_left(&self, windows: &[Window], delayed: bool) -> Option<i64> {
        let windows = windows.iter().filter(|window| window.phase.delays_refreshes() == delayed);
        windows.filter_map(|window| self.between(window.began, window.ended).least_left).min()
    }
}

fn add(figures: &mut Figures, lines: &[Value], began: i64, ended: i64) {
    let number = |line: &Value, name: &str| line[name].as_i64().unwrap_or_default();
    let within = |line: &&Value| (began..ended).contains(&number(line, "at"));
    for line in lines.iter().filter(within) {
        match line["event"].as_str() {
            // The first token of a reader was issued before it started.
            Some("token") if line["previous"].is_object() => {
                figures.ages.push(number(line, "age"));
                let left = number(&line["previous"], "left");
                figures.least_left = Some(figures.least_left.map_or(left, |least| least.min(left)));
                figures.expired += number(&line["previous"], "expired");
            }
            Some("refused") => figures.refused += 1,
            Some("failed") => figures.failed += 1,
            _ => {}
        }
    }
    // Summaries count from the reader's start.
    let summaries: Vec<&Value> = lines.iter().filter(|line| line["event"] == "summary").collect();
    let at = |time: i64, name: &str| {
        summaries.iter().rev().find(|line| number(line, "at") < time).map_or(0, |line| number(line, name))
    };
    figures.requests += at(ended, "requests") - at(began, "requests");
    figures.retried += at(ended, "retried") - at(began, "retried");
    // The token that is still in the file.
    if let Some(last) = summaries.iter().rev().find(|line| within(line)) {
        let replaced =
            lines.iter().any(|line| line["event"] == "token" && number(line, "at") > number(last, "at"));
        if !replaced {
            figures.expired += number(last, "expired");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_of_a_time_contain_what_was_replaced_in_it() {
        let lines = [
            json!({"event": "token", "at": 500, "age": 90_000, "lifetime": 60_000, "previous": null}),
            json!({"event": "summary", "at": 900, "requests": 4, "retried": 0, "expired": 0}),
            json!({"event": "token", "at": 2000, "age": 700, "previous": {"left": -300, "expired": 300}}),
            json!({"event": "refused", "at": 2100, "status": 401}),
            json!({"event": "summary", "at": 2500, "requests": 9, "retried": 1, "expired": 0}),
            json!({"event": "token", "at": 3000, "age": 500, "previous": {"left": 4000, "expired": 0}}),
            json!({"event": "summary", "at": 3500, "requests": 12, "retried": 1, "expired": 20}),
        ];
        let figures = |began, ended| {
            let mut figures = Figures::default();
            add(&mut figures, &lines, began, ended);
            figures
        };
        let middle = figures(1000, 3000);
        assert_eq!((middle.ages, middle.least_left, middle.expired), (vec![700], Some(-300), 300));
        assert_eq!((middle.requests, middle.retried, middle.refused, middle.failed), (5, 1, 1, 0));
        let end = figures(3000, 4000);
        assert_eq!((end.ages, end.least_left, end.expired, end.requests), (vec![500], Some(4000), 20, 3));
    }

    #[test]
    fn less_life_than_promised_is_broken_only_while_no_refresh_is_late() {
        use crate::{phases::Phase, sources::Propagation};
        let broken = |phase: Phase, left: i64| {
            let kind = Kind { lifetime: 150, propagation: Propagation::Periodic };
            let reader = || {
                let lines = vec![
                    json!({"event": "token", "at": 200, "age": 90_000, "previous": {"left": left, "expired": 0}}),
                    json!({"event": "summary", "at": 300, "requests": 9, "retried": 0, "expired": 0}),
                ];
                Reader { lines, restarted: false }
            };
            let readers = (0..kind.readers()).map(|_| reader()).collect();
            let window =
                Window { phase, began: 100, ended: 400, note: String::new(), failed: false, load: 0.0 };
            let condition = "False, `NoRetryRoom`".to_owned();
            Readings {
                windows: vec![window],
                kinds: vec![KindReadings { kind, condition, readers }],
                ended: 500,
                install: Duration::ZERO,
            }
            .broken_promises()
        };
        // 30 s are promised; an outage takes its time from them.
        assert_eq!(broken(Phase::Steady, 29_100), Vec::<String>::new());
        assert_eq!(broken(Phase::IssuerOutage, 11_000), Vec::<String>::new());
        let said = broken(Phase::Steady, 27_000);
        assert!(
            said.len() == 1 && said[0].contains("27000 ms of life were left, 30 s are promised"),
            "{said:?}"
        );
    }
}
