//! Who may scrape, where metrics are served over TLS. The API server decides; what it said is kept for a short time, and it is
//! asked about unknown tokens at a bounded rate, so that scrapes with wrong ones do not load it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::debug;

use crate::cluster::{CallError, Verdict};
use crate::digest::sha256;

/// How long a token that may scrape is believed.
const ALLOWED_FOR: Duration = Duration::from_secs(60);
/// Likewise while the API server does not answer: then metrics are needed most.
const ALLOWED_IN_OUTAGE_FOR: Duration = Duration::from_secs(600);
/// How long a token that may not is refused.
const REFUSED_FOR: Duration = Duration::from_secs(30);
/// Bounds the tokens of each sort that are remembered.
const MAX_TOKENS: usize = 128;
/// Bounds the unknown tokens that the API server is asked about at once, and then one for each [`REFILL`].
const MAX_BURST: u32 = 10;
const REFILL: Duration = Duration::from_millis(500);

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// By this verdict.
    Reviewed(Verdict),
    /// Too many unknown tokens.
    Busy,
    /// The API server does not answer.
    Unknown,
}

/// SHA-256, in hex.
type TokenDigest = String;
type Review = dyn Fn(SecretString) -> BoxFuture<'static, Result<Verdict, CallError>> + Send + Sync;

/// Decides who may scrape.
pub(super) struct MetricsAccess {
    review: Box<Review>,
    known: Mutex<Known>,
}

struct Known {
    allowed: HashMap<TokenDigest, Instant>,
    refused: HashMap<TokenDigest, (Verdict, Instant)>,
    /// What is left of the burst, and since when.
    burst: (u32, Instant),
}

impl MetricsAccess {
    pub(super) fn new(
        review: impl Fn(SecretString) -> BoxFuture<'static, Result<Verdict, CallError>> + Send + Sync + 'static,
    ) -> Self {
        let burst = (MAX_BURST, Instant::now());
        let known = Known { allowed: HashMap::new(), refused: HashMap::new(), burst };
        MetricsAccess { review: Box::new(review), known: Mutex::new(known) }
    }

    /// Whether the bearer token of a request may scrape.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Access {
        let Some(token) = bearer(headers) else { return Access::Reviewed(Verdict::Unauthenticated) };
        let token = SecretString::from(token);
        let key = sha256(&token);
        let was_allowed = match self.recall(&key) {
            Ok(access) => return access,
            Err(was_allowed) => was_allowed,
        };
        let reviewed = (self.review)(token).await;
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match reviewed {
            Ok(Verdict::Allowed) => {
                make_room(&mut known.allowed, |at| *at);
                known.allowed.insert(key, now);
                Access::Reviewed(Verdict::Allowed)
            }
            Ok(verdict) => {
                known.allowed.remove(&key);
                make_room(&mut known.refused, |(_, at)| *at);
                known.refused.insert(key, (verdict, now));
                Access::Reviewed(verdict)
            }
            Err(error) => {
                debug!(%error, "a scraper's token could not be reviewed");
                if was_allowed { Access::Reviewed(Verdict::Allowed) } else { Access::Unknown }
            }
        }
    }

    /// What is known of a token, or whether it was allowed a while ago. An unknown one takes a part of the burst.
    fn recall(&self, key: &TokenDigest) -> Result<Access, bool> {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = known.allowed.get(key) {
            let age = now.duration_since(*at);
            if age < ALLOWED_FOR {
                return Ok(Access::Reviewed(Verdict::Allowed));
            }
            if age < ALLOWED_IN_OUTAGE_FOR {
                return Err(true);
            }
        }
        if let Some((verdict, at)) = known.refused.get(key)
            && now.duration_since(*at) < REFUSED_FOR
        {
            return Ok(Access::Reviewed(*verdict));
        }
        if known.take(now) { Err(false) } else { Ok(Access::Busy) }
    }
}

impl Known {
    fn take(&mut self, now: Instant) -> bool {
        let (left, since) = self.burst;
        let refilled =
            u32::try_from(now.duration_since(since).as_millis() / REFILL.as_millis()).unwrap_or(u32::MAX);
        let left = left.saturating_add(refilled).min(MAX_BURST);
        let since = if left == MAX_BURST { now } else { since + REFILL * refilled };
        self.burst = (left.saturating_sub(1), since);
        left > 0
    }
}

/// Removes the oldest entry if there are too many.
fn make_room<V>(known: &mut HashMap<TokenDigest, V>, at: impl Fn(&V) -> Instant) {
    if known.len() >= MAX_TOKENS
        && let Some(oldest) = known.iter().min_by_key(|(_, entry)| at(entry)).map(|(key, _)| key.clone())
    {
        known.remove(&oldest);
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use secrecy::ExposeSecret;

    use super::*;

    /// Allows the token `good`; fails while `outage` is not 0. Counts the reviews.
    fn access() -> (MetricsAccess, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let (reviews, outage) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counted, fails) = (Arc::clone(&reviews), Arc::clone(&outage));
        let access = MetricsAccess::new(move |token| {
            counted.fetch_add(1, Ordering::Relaxed);
            let verdict = match token.expose_secret() {
                _ if fails.load(Ordering::Relaxed) > 0 => {
                    Err(CallError::Unavailable("down".to_owned().into()))
                }
                "good" => Ok(Verdict::Allowed),
                "poor" => Ok(Verdict::Forbidden),
                _ => Ok(Verdict::Unauthenticated),
            };
            async move { verdict }.boxed()
        });
        (access, reviews, outage)
    }

    fn with(token: &str) -> HeaderMap {
        [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn access_is_reviewed_once_a_minute_for_each_token() {
        let (access, reviews, _) = access();
        let empty = Access::Reviewed(Verdict::Unauthenticated);
        assert_eq!(access.check(&HeaderMap::new()).await, empty);
        for header in ["Bearer", "Bearer ", "Basic good", "good"] {
            let headers = [(AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
            assert_eq!(access.check(&headers).await, empty, "{header}");
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 0);
        for (token, verdict) in
            [("good", Verdict::Allowed), ("poor", Verdict::Forbidden), ("wrong", Verdict::Unauthenticated)]
        {
            for _ in 0..20 {
                assert_eq!(access.check(&with(token)).await, Access::Reviewed(verdict), "{token}");
            }
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 3);
        tokio::time::advance(ALLOWED_FOR).await;
        for token in ["good", "poor", "wrong"] {
            access.check(&with(token)).await;
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn access_with_many_wrong_tokens_is_reviewed_at_a_bounded_rate() {
        let (access, reviews, _) = access();
        access.check(&with("good")).await;
        for number in 0..10_000 {
            access.check(&with(&format!("wrong-{number}"))).await;
        }
        assert_eq!(reviews.load(Ordering::Relaxed), MAX_BURST as usize);
        assert_eq!(access.check(&with("another")).await, Access::Busy);
        // The scraper goes on, also when its token is to be reviewed again.
        tokio::time::advance(ALLOWED_FOR).await;
        for number in 0..1_000 {
            access.check(&with(&format!("wrong-{number}"))).await;
        }
        assert_eq!(access.check(&with("another")).await, Access::Busy);
        let before = reviews.load(Ordering::Relaxed);
        assert_eq!(access.check(&with("good")).await, Access::Reviewed(Verdict::Allowed));
        assert_eq!(reviews.load(Ordering::Relaxed), before + 1);
        // A minute later: 10 at once, and two a second.
        tokio::time::advance(Duration::from_secs(60)).await;
        let before = reviews.load(Ordering::Relaxed);
        for second in 0..10 {
            for number in 0..100 {
                access.check(&with(&format!("{second}-{number}"))).await;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(reviews.load(Ordering::Relaxed), before + 10 + 9 * 2);
        let known = access.known.lock().unwrap();
        assert!(known.refused.len() <= MAX_TOKENS && known.allowed.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn access_outlasts_an_outage_of_ten_minutes() {
        let (access, _, outage) = access();
        let allowed = Access::Reviewed(Verdict::Allowed);
        assert_eq!(access.check(&with("good")).await, allowed);
        outage.store(1, Ordering::Relaxed);
        assert_eq!(access.check(&with("unknown")).await, Access::Unknown);
        tokio::time::advance(ALLOWED_IN_OUTAGE_FOR - Duration::from_secs(1)).await;
        assert_eq!(access.check(&with("good")).await, allowed);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(access.check(&with("good")).await, Access::Unknown);
    }
}
