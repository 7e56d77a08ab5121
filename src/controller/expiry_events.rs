//! Which events about an expired token are published.

use std::time::Duration;

use tokensource_api::Reason;
use tokio::time::Instant;

use crate::status::Reported;

/// The events about an expired token. At an endpoint that is too slow for its TokenSources, each token would be followed by
/// two of them; like client-go's filter, only the first pair in [`EXPIRY_EVENTS_INTERVAL`] is published.
#[derive(Debug, Default)]
pub struct ExpiryEvents {
    published_at: Option<Instant>,
    /// The last expiry was published by no event, so that its end is not either.
    is_silent: bool,
}

/// The shortest time between two events about an expired token.
const EXPIRY_EVENTS_INTERVAL: Duration = Duration::from_secs(10 * 60);

impl ExpiryEvents {
    /// Whether an event with this reason repeats one that was published a short time ago.
    pub fn is_repeated(&self, before: &Reported, reason: &str, now: Instant) -> bool {
        if reason == Reason::Expired.as_str() {
            let is_recent = |at: Instant| now.saturating_duration_since(at) < EXPIRY_EVENTS_INTERVAL;
            return self.published_at.is_some_and(is_recent);
        }
        let ends_expiry = before.ready() == Some((false, Some(Reason::Expired)));
        ends_expiry && self.is_silent && reason == Reason::TokenValid.as_str()
    }

    /// An event with this reason was published, or not: as a repetition, or because of the rate.
    pub fn ended(events: &mut Option<Box<Self>>, reason: &str, is_published: bool, now: Instant) {
        if reason == Reason::Expired.as_str() {
            let events = events.get_or_insert_default();
            events.is_silent = !is_published;
            if is_published {
                events.published_at = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_events_are_published_in_pairs_and_not_again_for_ten_minutes() {
        let reported = |reason: &str| {
            let ready = serde_json::json!({
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-24T20:00:00Z",
            });
            let status = serde_json::json!({"conditions": [ready]});
            Reported::of(&serde_json::from_value(status).unwrap())
        };
        let start = Instant::now();
        let mut events: Option<Box<ExpiryEvents>> = None;
        let mut publish = |before: &str, reason: &str, seconds: u64, admits: bool| {
            let now = start + Duration::from_secs(seconds);
            let repeats = |events: &ExpiryEvents| events.is_repeated(&reported(before), reason, now);
            let is_published = !events.as_deref().is_some_and(repeats) && admits;
            ExpiryEvents::ended(&mut events, reason, is_published, now);
            is_published
        };
        // What the rate left out was not published: the next one is no repetition, and its end has an event only if it has.
        assert!(!publish("TokenValid", "Expired", 0, false) && !publish("Expired", "TokenValid", 1, true));
        let mut is_repeated = |before: &str, reason: &str, seconds: u64| {
            let seconds = seconds + 10;
            !publish(before, reason, seconds, true)
        };
        assert!(!is_repeated("TokenValid", "Expired", 0) && !is_repeated("Expired", "TokenValid", 5));
        assert!(is_repeated("TokenValid", "Expired", 20) && is_repeated("Expired", "TokenValid", 25));
        assert!(!is_repeated("TokenValid", "EndpointUnavailable", 30), "another reason");
        assert!(!is_repeated("ClientRejected", "TokenValid", 40), "the end of something else");
        assert!(!is_repeated("TokenValid", "Expired", 601) && !is_repeated("Expired", "TokenValid", 605));
    }
}
