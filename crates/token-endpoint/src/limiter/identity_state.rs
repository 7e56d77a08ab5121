//! What is known of a client, a grant or a request: whether it is accepted, and how fast it may be sent.

use super::doubt::Doubt;
use super::entry::{Parked, ParkedTurn};
use super::hold::{Ambiguities, Hold};
use super::rate::Rate;
use super::terms::Terms;
use crate::error::Error;
use std::collections::BTreeMap;
use tokio::time::Instant;

pub(super) struct IdentityState<K> {
    /// The last answer was none that holds others back, so that requests need not go one at a time. Of a client, it has
    /// succeeded too.
    pub(super) is_accepted: bool,
    /// Of a client: the endpoint has given it a token in this process.
    pub(super) has_succeeded: bool,
    pub(super) in_flight: usize,
    pub(super) hold: Option<Hold>,
    ambiguities: Ambiguities,
    pub(super) doubt: Doubt,
    pub(super) rate: Rate,
    /// Entries that wait for this client, grant or request, and for nothing else.
    pub(super) parked: BTreeMap<ParkedTurn, Parked<K>>,
    /// When the next of them goes back into its queue by time alone.
    pub(super) timer: Option<Instant>,
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
            ambiguities: Ambiguities::default(),
            doubt: Doubt::default(),
            rate: Rate::new(limit, now),
            parked: BTreeMap::new(),
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
        if let Some(at) = self.doubt.next(now) {
            return Standing::Doubted(at);
        }
        // At full speed the origin's rate is limit enough.
        if self.rate.is_slow(now) && self.rate.next > now {
            return Standing::Slow(self.rate.next);
        }
        Standing::Free
    }

    /// A request with these terms is sent.
    pub(super) fn began(&mut self, terms: Terms, now: Instant) {
        self.in_flight += 1;
        self.rate.take(now);
        self.doubt.begins(now);
        if let Some(hold) = &mut self.hold {
            hold.begins(terms, now);
        }
    }

    /// A request that `began` then has succeeded.
    pub(super) fn succeeded(&mut self, began: Instant) {
        self.hold.take_if(|hold| !hold.outlasts_success(began));
        self.is_accepted = self.hold.is_none();
        self.has_succeeded = true;
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

    /// The endpoint asked all requests to wait. The first one after that goes alone.
    pub(super) fn asked_to_wait(&mut self, hold: Hold) {
        if self.hold.as_ref().is_none_or(|before| before.until < hold.until) {
            self.is_accepted = false;
            self.hold = Some(hold);
        }
    }

    pub(super) fn expedite(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.expedite();
        }
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
