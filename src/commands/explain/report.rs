//! The report of `explain`, as text and as JSON.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Write as _};

use jiff::Timestamp;
use serde::Serialize;

use crate::commands::output::ConditionReport;
use crate::secret::UseKind;
use crate::text::shown_message;
use crate::time::seconds_between;

/// The severity of a finding. In the order of severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Level {
    #[default]
    Well,
    Attention,
    NotValid,
}

/// A finding, with its severity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) message: String,
}

impl Finding {
    pub(super) fn new(level: Level, message: impl Into<String>) -> Self {
        Finding { level, message: shown_message(&message.into()).into_owned() }
    }
}

/// The result of `explain`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExplainReport {
    /// `NAMESPACE/NAME`.
    pub(super) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) provider: Option<&'static str>,
    /// The most severe level of all findings.
    pub(super) verdict: Level,
    pub(super) token: Finding,
    /// The target Secret.
    pub(super) target: Finding,
    /// What the operator does next.
    pub(super) next: Finding,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credentials: Option<Finding>,
    /// Which refresh token is sent next, for the grant of that name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<LastFailureReport>,
    pub(super) conditions: Vec<ConditionReport>,
    /// The containers that use the Secret; `None` where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) readers: Option<Vec<SecretReader>>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) not_known: Vec<String>,
}

/// The last attempt that failed, with its remedy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastFailureReport {
    pub(super) at: Timestamp,
    pub(super) ago: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// 0 after recovery.
    pub(super) count: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<&'static str>,
}

/// A container that uses the Secret.
#[derive(Debug, Serialize)]
pub(super) struct SecretReader {
    pub(super) pod: String,
    pub(super) container: String,
    #[serde(serialize_with = "serialize_way")]
    pub(super) way: UseKind,
    #[serde(flatten)]
    pub(super) reads: Finding,
}

fn serialize_way<S: serde::Serializer>(way: &UseKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(way)
}

/// A time, with its distance from `now`.
pub(super) fn when(now: Timestamp, at: Timestamp) -> String {
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    if at > now {
        format!("{at} (in {})", span(seconds_between(now, at)))
    } else {
        format!("{at} ({} ago)", span(seconds_between(at, now)))
    }
}

/// A duration in at most two units.
pub(super) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |large: u64, name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large} {name}"),
        _ => format!("{large} {name} {small} {small_name}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => two(minutes, "min", seconds % 60, "s"),
        7200..172_800 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "days", hours % 24, "h"),
    }
}

impl fmt::Display for ExplainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Level::Well => "the token is valid, and nothing is wrong",
            Level::Attention => "the token is valid, but something needs attention (marked !)",
            Level::NotValid => "there is no valid token for the present spec (marked !)",
        };
        let provider = self.provider.map(|provider| format!(", provider {provider}")).unwrap_or_default();
        writeln!(f, "TokenSource {}{provider}: {verdict}\n", self.source)?;
        let mut lines =
            vec![("Token", Some(&self.token)), ("Secret", Some(&self.target)), ("Next", Some(&self.next))];
        lines.push(("Credentials", self.credentials.as_ref()));
        lines.push(("Sent next", self.refresh_token.as_ref()));
        for (name, finding) in lines {
            let Some(finding) = finding else { continue };
            writeln!(f, "{} {name:<12} {}", mark(finding.level), finding.message)?;
        }
        if let Some(failure) = &self.last_failure {
            write!(f, "{failure}")?;
        }
        self.conditions(f)?;
        self.readers(f)?;
        if !self.not_known.is_empty() {
            writeln!(f, "\nNot known")?;
            for unknown in &self.not_known {
                writeln!(f, "  - {unknown}")?;
            }
        }
        Ok(())
    }
}

fn mark(level: Level) -> char {
    if level == Level::Well { ' ' } else { '!' }
}

impl fmt::Display for LastFailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LastFailureReport { at, ago, reason, message, count, remedy } = self;
        if *count == 0 {
            return writeln!(
                f,
                "  {:<12} {reason} at {at} ({ago} ago), and it has recovered since",
                "Last failure"
            );
        }
        let count = if *count == 1 { "once".to_owned() } else { format!("{count} times in a row") };
        writeln!(f, "! {:<12} {reason}, {count}, at {at} ({ago} ago): {message}", "Last failure")?;
        if let Some(remedy) = remedy {
            writeln!(f, "  {:<12} {remedy}", "  what to do")?;
        }
        Ok(())
    }
}

impl ExplainReport {
    fn conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nConditions")?;
        for condition in &self.conditions {
            let ConditionReport { kind, status, reason, message, remedy } = condition;
            let mark = if remedy.is_some() { '!' } else { ' ' };
            write!(f, "{mark} {kind:<15} {status}, {reason}")?;
            // The last failure above has the same message already.
            let repeats =
                self.last_failure.as_ref().is_some_and(|it| it.count > 0 && message.contains(&it.message));
            match remedy {
                Some(_) if repeats => writeln!(f)?,
                Some(remedy) => writeln!(f, ": {message}\n  {:<15} {remedy}", "  what to do")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }

    fn readers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(readers) = &self.readers else { return Ok(()) };
        if readers.is_empty() {
            return writeln!(f, "\nNo pod uses the Secret");
        }
        writeln!(f, "\nWho uses the Secret")?;
        let width = |of: fn(&SecretReader) -> String| {
            readers.iter().map(of).map(|it| it.len()).max().unwrap_or_default()
        };
        let pod = width(|it| it.pod.clone());
        let container = width(|it| it.container.clone());
        let way = width(|it| it.way.to_string());
        for reader in readers {
            let mut line = String::new();
            let _ = write!(
                line,
                "{} {:<pod$}  {:<container$}  {:<way$}  {}",
                mark(reader.reads.level),
                reader.pod,
                reader.container,
                reader.way.to_string(),
                reader.reads.message
            );
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn span_has_at_most_two_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (150, "2 min 30 s"),
            (7199, "119 min 59 s"),
            (11_100, "3 h 5 min"),
            (172_800, "2 days"),
            (180_000, "2 days 2 h"),
        ] {
            assert_eq!(span(seconds), expected);
        }
    }
}
