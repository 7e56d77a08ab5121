//! What is known of a client, a grant or a request: whether it is accepted, and how fast it may be sent.

use super::doubt::{Doubt, DoubtTurn};
use super::entry::{Parked, ParkedTurn, Turn};
use super::hold::{Ambiguities, EXPEDITED, Hold};
use super::rate::Rate;
use super::terms::Terms;
use crate::error::{Class, Error};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

pub(super) struct IdentityState<K> {
    /// The last answer was none that holds others back, so that requests need not go one at a time. Of a client, it has
    /// succeeded too.
    pub(super) is_accepted: bool,
    /// Of a client: the endpoint has given it a token in this process.
    pub(super) has_succeeded: bool,
    pub(super) in_flight: usize,
    pub(super) hold: Option<Hold>,
    /// Changed values have shortened a wait since the last success. Once is enough: they may change all the time.
    values_were_tried: bool,
    ambiguities: Ambiguities,
    pub(super) doubt: Doubt,
    pub(super) rate: Rate,
    /// Entries that wait for this client, grant or request, and for nothing else.
    parked: BTreeMap<ParkedTurn, Parked<K>>,
    /// Those of them that go back by their deadline at the latest while the client is in doubt, for a last attempt.
    last_attempts: BTreeSet<(Turn, bool)>,
    /// When the next of them goes back into its queue by time alone.
    pub(super) timer: Option<Instant>,
}

/// What a request took when it began, which it gives back if it is not sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Taken {
    last_attempt: Option<Instant>,
    doubt: Option<DoubtTurn>,
}

/// What a request may do now.
pub(super) enum Standing<'a> {
    Free,
    /// Another request finds out whether it is accepted, or its result is about to be stored.
    Busy,
    /// Not before this time.
    Slow(Instant),
    /// The client is in doubt, and has had its turn.
    Doubted(Instant),
    Held(&'a Hold),
}

impl<K> IdentityState<K> {
    /// `is_client`: it must succeed once before its requests go side by side.
    pub(super) fn new(is_client: bool, has_succeeded: bool, limit: f64, now: Instant) -> Self {
        Self {
            is_accepted: !is_client,
            has_succeeded,
            in_flight: 0,
            hold: None,
            values_were_tried: false,
            ambiguities: Ambiguities::default(),
            doubt: Doubt::default(),
            rate: Rate::new(limit, now),
            parked: BTreeMap::new(),
            last_attempts: BTreeSet::new(),
            timer: None,
        }
    }

    pub(super) fn standing(&self, terms: Terms, now: Instant) -> Standing<'_> {
        if let Some(hold) = self.hold.as_ref().filter(|hold| hold.holds(terms, now)) {
            return if hold.is_short(now) { Standing::Slow(hold.until) } else { Standing::Held(hold) };
        }
        if self.in_flight > 0 && (terms.exclusive || !self.is_accepted) {
            return Standing::Busy;
        }
        if let Some(at) = self.doubt.next_with(terms, now) {
            return Standing::Doubted(at);
        }
        // At full speed the origin's rate is limit enough.
        if self.rate.is_slow(now) && self.rate.next > now {
            return Standing::Slow(self.rate.next);
        }
        Standing::Free
    }

    /// A request with these terms is sent.
    pub(super) fn began(&mut self, terms: Terms, now: Instant) -> Taken {
        self.in_flight += 1;
        self.rate.take(now);
        let last_attempt = self.hold.as_mut().and_then(|hold| hold.begins(terms, now));
        Taken { last_attempt, doubt: self.doubt.begins(now) }
    }

    /// A request that began was not sent.
    pub(super) fn give_back(&mut self, taken: Taken, now: Instant) {
        if let (Some(hold), Some(at)) = (&mut self.hold, taken.last_attempt) {
            hold.give_back(at);
        }
        if let Some(turn) = taken.doubt {
            self.doubt.give_back(turn, now);
        }
    }

    /// A request that `began` then has succeeded.
    pub(super) fn succeeded(&mut self, began: Instant) {
        self.hold.take_if(|hold| !hold.outlasts_success(began));
        self.is_accepted = self.hold.is_none();
        self.has_succeeded = true;
        self.values_were_tried = false;
        self.ambiguities = Ambiguities::default();
        self.doubt = Doubt::default();
    }

    /// A request that `began` then was rejected.
    pub(super) fn rejected(&mut self, error: &Error, began: Instant, now: Instant) {
        self.is_accepted = false;
        self.hold = Some(Hold::rejected(self.hold.as_ref(), error, began, now));
    }

    /// The server failed, with a code of refusal.
    pub(super) fn answered_ambiguously(&mut self, error: &Error, began: Instant, now: Instant) {
        let Some(answer) = error.ambiguous() else { return };
        let counts = self.hold.as_ref().is_none_or(|hold| !hold.concerns(began));
        let (class, wait) = self.ambiguities.pace(answer, self.has_succeeded, counts);
        self.is_accepted = false;
        self.hold = Some(Hold::new(self.hold.as_ref(), error, class, wait, began, now));
    }

    /// The endpoint asked all requests to wait until then. The first one after `hold` goes alone.
    pub(super) fn asked_to_wait(&mut self, hold: Hold, asked_until: Instant) {
        match &mut self.hold {
            Some(longer) if longer.until >= hold.until => {
                if hold.class == Class::Limited {
                    longer.limit(asked_until);
                }
            }
            shorter => {
                self.is_accepted = false;
                *shorter = Some(hold);
            }
        }
    }

    /// Of a client: credentials that are not its own have changed, which the answer that holds it back may have meant.
    pub(super) fn values_changed(&mut self) {
        if let Some(hold) =
            self.hold.as_mut().filter(|hold| hold.may_mean_values() && !self.values_were_tried)
        {
            self.values_were_tried = hold.expedite(EXPEDITED);
        }
    }

    pub(super) fn expedite(&mut self, least: Duration) {
        if let Some(hold) = &mut self.hold {
            hold.expedite(least);
        }
    }

    /// An entry waits. Where a token lives, a request is the last attempt by its deadline. One that has passed its deadline
    /// and is none would go back again and again.
    pub(super) fn park(&mut self, turn: ParkedTurn, parked: Parked<K>, terms: Terms, now: Instant) {
        let (was_tried, place) = turn;
        if terms.is_last_attempt || terms.patience.is_some() && place.0 > now {
            self.last_attempts.insert((place, was_tried));
        }
        self.parked.insert(turn, parked);
    }

    pub(super) fn parked(&self) -> &BTreeMap<ParkedTurn, Parked<K>> {
        &self.parked
    }

    /// Takes an entry out that waits.
    pub(super) fn remove_parked(&mut self, turn: ParkedTurn) -> Option<Parked<K>> {
        let (was_tried, place) = turn;
        self.last_attempts.remove(&(place, was_tried));
        self.parked.remove(&turn)
    }

    /// The entry that goes back into its queue first: while the client is in doubt, the one that may make a last attempt.
    pub(super) fn next_parked(&self, now: Instant) -> Option<ParkedTurn> {
        let first = self.parked.first_key_value().map(|(turn, _)| *turn);
        let last_attempt = self.last_attempts.first().filter(|_| {
            self.doubt.next(now).is_some() && self.next_last_attempt(now).is_some_and(|at| at <= now)
        });
        last_attempt.map(|(turn, was_tried)| (*was_tried, *turn)).or(first)
    }

    /// When the first entry may make a last attempt in spite of doubt, as far as is known.
    pub(super) fn next_last_attempt(&self, now: Instant) -> Option<Instant> {
        let ((deadline, _), _) = self.last_attempts.first()?;
        Some(self.doubt.next_last_attempt(now).max(*deadline))
    }

    /// Whether an entry waits that was never refused.
    pub(super) fn has_untried(&self) -> bool {
        self.parked.first_key_value().is_some_and(|((was_tried, _), _)| !was_tried)
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0
            && self.parked.is_empty()
            && !self.rate.is_slow(now)
            && self.doubt.next(now).is_none()
            && self.hold.as_ref().is_none_or(|hold| hold.is_over(now))
    }
}
