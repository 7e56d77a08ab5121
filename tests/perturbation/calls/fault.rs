//! Calls by verb, resource, phase and number, and the ways in which each is spoiled.

use std::fmt;

/// Which TokenSource, and by which processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Client credentials.
    Static,
    /// A refresh token that rotates.
    Rotating,
    /// The same with two replicas, so that calls about the lease are among the calls.
    Replicas,
}

impl Kind {
    pub fn rotates(self) -> bool {
        self != Kind::Static
    }
}

/// What happens to the TokenSource after its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// A refresh is requested.
    Refresh,
    /// The credentials Secret gets other values.
    Credentials,
    /// The target Secret is deleted.
    Target,
}

impl Change {
    pub const ALL: [Change; 3] = [Change::Refresh, Change::Credentials, Change::Target];
}

/// A part of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    Start,
    FirstMint,
    Change(Change),
    Deletion,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::Start => "start",
            Phase::FirstMint => "first mint",
            Phase::Change(Change::Refresh) => "refresh",
            Phase::Change(Change::Credentials) => "changed credentials",
            Phase::Change(Change::Target) => "deleted target",
            Phase::Deletion => "deletion",
        })
    }
}

/// A call, or an event of a watch, which has the verb `event`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub phase: Phase,
    /// 0 or 1.
    pub replica: usize,
    pub verb: &'static str,
    /// With the object's name where the path has it: `secrets/token`.
    pub resource: String,
    /// From 1 on, among the calls of this phase, replica, verb and resource.
    pub number: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replica = if self.replica == 0 { "" } else { " of the other replica" };
        write!(f, "{} {} #{} of {}{replica}", self.verb, self.resource, self.number, self.phase)
    }
}

/// How a call is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Way {
    /// It takes effect; the connection is closed instead of an answer.
    AnswerLost,
    /// It has no effect; the answer has this status.
    Status(u16),
    /// It has no effect; the connection is reset.
    Reset,
    /// It takes effect 12 s late, after its timeout.
    RequestLate,
    /// It takes effect at once; its answer is 12 s late.
    AnswerLate,
    /// It has no effect, since the operator is killed; another process starts.
    KilledBefore,
    /// It takes effect, and the operator is killed; another process starts.
    KilledAfter,
    /// The watch is answered with 410 Gone.
    WatchGone,
    /// The watch ends instead of this event.
    WatchCut,
    /// The same; when it is resumed, its resourceVersion has expired.
    WatchExpired,
    /// From this event on the watch is some seconds late.
    WatchStale,
    /// From this event on nothing comes for some seconds; then the watch ends.
    WatchSilent,
    /// This event comes after the next one about another object, or some seconds late.
    WatchReordered,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::AnswerLost => f.write_str("answer lost"),
            Way::Status(status) => write!(f, "{status}"),
            Way::Reset => f.write_str("reset"),
            Way::RequestLate => f.write_str("request 12 s late"),
            Way::AnswerLate => f.write_str("answer 12 s late"),
            Way::KilledBefore => f.write_str("killed before"),
            Way::KilledAfter => f.write_str("killed after"),
            Way::WatchGone => f.write_str("410"),
            Way::WatchCut => f.write_str("watch cut"),
            Way::WatchExpired => f.write_str("watch cut and expired"),
            Way::WatchStale => f.write_str("watch stale"),
            Way::WatchSilent => f.write_str("watch silent"),
            Way::WatchReordered => f.write_str("watch reordered"),
        }
    }
}

/// One perturbation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fault {
    pub call: Call,
    pub way: Way,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.way)
    }
}

impl Call {
    /// The ways in which this call can go wrong. `spends`: a token request spends a refresh token that rotates.
    pub fn ways(&self, spends: bool) -> Vec<Way> {
        use Way::{
            AnswerLate, AnswerLost, KilledAfter, KilledBefore, RequestLate, Reset, Status, WatchCut,
            WatchExpired, WatchGone, WatchReordered, WatchSilent, WatchStale,
        };
        let kills = [KilledBefore, KilledAfter];
        match self.verb {
            "event" => {
                vec![WatchCut, WatchExpired, WatchStale, WatchSilent, WatchReordered, KilledBefore]
            }
            "watch" => vec![Status(503), Status(429), Reset, WatchGone, KilledBefore],
            // For a read, a lost answer is a reset, and there is nothing that it could conflict with.
            "get" | "list" => [vec![Status(503), Status(429), Reset, AnswerLate], kills.to_vec()].concat(),
            // An answer that is lost between the endpoint and the operator loses a rotated refresh token for everyone.
            "request" if spends => [vec![Status(503), Status(429), Reset], kills.to_vec()].concat(),
            "request" => {
                [vec![AnswerLost, Status(503), Status(429), Reset, AnswerLate], kills.to_vec()].concat()
            }
            _ => [
                vec![AnswerLost, Status(503), Status(429), Status(409), Reset, RequestLate, AnswerLate],
                kills.to_vec(),
            ]
            .concat(),
        }
    }
}
