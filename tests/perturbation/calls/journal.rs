//! What the proxies of one scenario share: the calls so far, the faults to come, and the processes to kill.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::fault::{Call, Fault, Phase, Way};
use crate::support::process;

/// How long no call may come for the operator to count as idle.
const QUIET: Duration = Duration::from_millis(500);

/// What the token endpoint is called among the resources.
pub const TOKEN: &str = "token";

pub struct Journal {
    state: Mutex<JournalState>,
    /// Calls without an answer yet, except for watches and those about leases; delayed ones too.
    in_flight: AtomicUsize,
}

struct JournalState {
    phase: Phase,
    counts: HashMap<(Phase, usize, &'static str, String), usize>,
    calls: Vec<Call>,
    faults: Vec<(Fault, bool)>,
    /// The last call that keeps the operator from being idle.
    last: Instant,
    /// By replica.
    processes: [Option<u32>; 2],
    /// By replica: the process was killed, and the next one has made no call yet.
    killed: [bool; 2],
    /// `VERB RESOURCE` of each successful write.
    writes: Vec<(&'static str, String)>,
    exchanges: Vec<Exchange>,
    saves: usize,
    /// A process was killed while it had the only copy of a refresh token.
    lost_only_copy: bool,
}

/// A token request with a refresh token, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    Sent {
        refresh_token: String,
    },
    /// The authorization server has not taken it.
    Unspent,
    Received {
        spent: String,
        successor: String,
    },
}

/// Counts as in flight until it is dropped.
pub struct InFlight(Option<Arc<Journal>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(journal) = &self.0 {
            journal.state.lock().unwrap().last = Instant::now();
            journal.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Journal {
    pub fn new(faults: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(JournalState {
                phase: Phase::Start,
                counts: HashMap::new(),
                calls: Vec::new(),
                faults: faults.iter().map(|fault| (fault.clone(), false)).collect(),
                last: Instant::now(),
                processes: [None; 2],
                killed: [false; 2],
                writes: Vec::new(),
                exchanges: Vec::new(),
                saves: 0,
                lost_only_copy: false,
            }),
            in_flight: AtomicUsize::new(0),
        })
    }

    /// Later calls belong to this phase.
    pub fn begin(&self, phase: Phase) {
        self.state.lock().unwrap().phase = phase;
    }

    /// Enters a call, and returns how it is to be spoiled.
    pub fn enter(&self, replica: usize, verb: &'static str, resource: &str) -> Option<Way> {
        let mut state = self.state.lock().unwrap();
        // A lease is renewed by the clock, whatever happens to sources.
        let phase = if resource.starts_with("leases") { Phase::Start } else { state.phase };
        let number = state.counts.entry((phase, replica, verb, resource.to_owned())).or_default();
        *number += 1;
        let call = Call { phase, replica, verb, resource: resource.to_owned(), number: *number };
        if resource != TOKEN && state.processes[replica].is_some() {
            state.killed[replica] = false;
        }
        state.calls.push(call.clone());
        if !resource.starts_with("leases") {
            state.last = Instant::now();
        }
        let (fault, reached) =
            state.faults.iter_mut().find(|(fault, reached)| !reached && fault.call == call)?;
        *reached = true;
        Some(fault.way)
    }

    pub fn in_flight(self: &Arc<Self>, resource: &str) -> InFlight {
        if resource.starts_with("leases") {
            return InFlight(None);
        }
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        InFlight(Some(Arc::clone(self)))
    }

    /// Nothing is in flight or delayed, and nothing came for a moment.
    pub fn is_idle(&self) -> bool {
        let quiet = self.state.lock().unwrap().last.elapsed() > QUIET;
        quiet && self.in_flight.load(Ordering::SeqCst) == 0
    }

    pub fn wrote(&self, verb: &'static str, resource: &str) {
        let mut state = self.state.lock().unwrap();
        if resource.ends_with("-refresh-token") {
            state.saves = state.received();
        }
        state.writes.push((verb, resource.to_owned()));
    }

    pub fn exchanged(&self, exchange: Exchange) {
        let mut state = self.state.lock().unwrap();
        // What a killed process sent before its end may arrive after it.
        if matches!(exchange, Exchange::Sent { .. }) && state.killed.contains(&true) {
            state.lost_only_copy = true;
        }
        state.exchanges.push(exchange);
    }

    /// The process of this replica.
    pub fn runs(&self, replica: usize, process: u32) {
        self.state.lock().unwrap().processes[replica] = Some(process);
    }

    /// SIGKILL, as after a failure of the node.
    pub async fn kill(&self, replica: usize) {
        let process = {
            let mut state = self.state.lock().unwrap();
            if state.is_under_way() || state.received() > state.saves {
                state.lost_only_copy = true;
            }
            state.killed[replica] = true;
            state.processes[replica].take()
        };
        if let Some(process) = process {
            tokio::task::spawn_blocking(move || process::signal("KILL", &process.to_string())).await.unwrap();
        }
    }

    /// The only exception: from when a refresh token is spent until its successor is saved, the process has the only copy.
    pub fn lost_only_copy(&self) -> bool {
        self.state.lock().unwrap().lost_only_copy
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    pub fn writes(&self) -> Vec<(&'static str, String)> {
        self.state.lock().unwrap().writes.clone()
    }

    pub fn reached(&self) -> usize {
        self.state.lock().unwrap().faults.iter().filter(|(_, reached)| *reached).count()
    }

    /// The last refresh token that was received.
    pub fn last_successor(&self) -> Option<String> {
        let state = self.state.lock().unwrap();
        state.exchanges.iter().rev().find_map(|exchange| match exchange {
            Exchange::Received { successor, .. } => Some(successor.clone()),
            Exchange::Sent { .. } | Exchange::Unspent => None,
        })
    }

    /// Whether a refresh token was sent after its successor had been received.
    pub fn sent_spent_token(&self) -> bool {
        let state = self.state.lock().unwrap();
        let mut spent = Vec::new();
        state.exchanges.iter().any(|exchange| match exchange {
            Exchange::Received { spent: token, .. } => {
                spent.push(token.clone());
                false
            }
            Exchange::Sent { refresh_token } => spent.contains(refresh_token),
            Exchange::Unspent => false,
        })
    }
}

impl JournalState {
    /// Whether the last token request with a refresh token has no answer yet.
    fn is_under_way(&self) -> bool {
        matches!(self.exchanges.last(), Some(Exchange::Sent { .. }))
    }

    fn received(&self) -> usize {
        self.exchanges.iter().filter(|it| matches!(it, Exchange::Received { .. })).count()
    }
}
