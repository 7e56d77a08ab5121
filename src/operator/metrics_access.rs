//! Who may scrape, where metrics are served over TLS. The API server decides; what it said is kept for a short time, and it is
//! asked about unknown tokens at a bounded rate, of which each peer has a share: scrapes with wrong tokens neither load it nor
//! keep out a scraper whose token was renewed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::SecretString;
use tokio::time::Instant;
use tracing::debug;

use super::review_rate::ReviewRate;
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

#[derive(Default)]
struct Known {
    allowed: HashMap<TokenDigest, Instant>,
    refused: HashMap<TokenDigest, (Verdict, Instant)>,
    rate: ReviewRate,
}

impl MetricsAccess {
    pub(super) fn new(
        review: impl Fn(SecretString) -> BoxFuture<'static, Result<Verdict, CallError>> + Send + Sync + 'static,
    ) -> Self {
        MetricsAccess { review: Box::new(review), known: Mutex::default() }
    }

    /// Whether the bearer token of a request from `peer` may scrape.
    pub(super) async fn check(&self, headers: &HeaderMap, peer: IpAddr) -> Access {
        let Some(token) = bearer(headers) else { return Access::Reviewed(Verdict::Unauthenticated) };
        let token = SecretString::from(token);
        let key = sha256(&token);
        let was_allowed = match self.recall(&key, peer) {
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

    /// What is known of a token, or whether it was allowed a while ago. An unknown one is reviewed within its peer's rate.
    fn recall(&self, key: &TokenDigest, peer: IpAddr) -> Result<Access, bool> {
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
        if known.rate.admits(peer, now) { Err(false) } else { Ok(Access::Busy) }
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
    use std::net::Ipv4Addr;
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

    /// The scraper's.
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

    fn with(token: &str) -> HeaderMap {
        [(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn access_is_reviewed_once_a_minute_for_each_token() {
        let (access, reviews, _) = access();
        let empty = Access::Reviewed(Verdict::Unauthenticated);
        assert_eq!(access.check(&HeaderMap::new(), PEER).await, empty);
        for header in ["Bearer", "Bearer ", "Basic good", "good"] {
            let headers = [(AUTHORIZATION, header.parse().unwrap())].into_iter().collect();
            assert_eq!(access.check(&headers, PEER).await, empty, "{header}");
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 0);
        for (token, verdict) in
            [("good", Verdict::Allowed), ("poor", Verdict::Forbidden), ("wrong", Verdict::Unauthenticated)]
        {
            for _ in 0..20 {
                assert_eq!(access.check(&with(token), PEER).await, Access::Reviewed(verdict), "{token}");
            }
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 3);
        tokio::time::advance(ALLOWED_FOR).await;
        for token in ["good", "poor", "wrong"] {
            access.check(&with(token), PEER).await;
        }
        assert_eq!(reviews.load(Ordering::Relaxed), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn access_of_a_renewed_scraper_outlasts_anothers_random_tokens() {
        let (access, reviews, _) = access();
        let other = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        for number in 0..10_000 {
            access.check(&with(&format!("wrong-{number}")), other).await;
        }
        assert_eq!(access.check(&with("another"), other).await, Access::Busy);
        assert!(reviews.load(Ordering::Relaxed) < 20, "{reviews:?}");
        // Its first token, and one that replaces it.
        assert_eq!(access.check(&with("good"), PEER).await, Access::Reviewed(Verdict::Allowed));
        tokio::time::advance(ALLOWED_FOR).await;
        for number in 0..1_000 {
            access.check(&with(&format!("wrong-{number}")), other).await;
        }
        assert_eq!(access.check(&with("good"), PEER).await, Access::Reviewed(Verdict::Allowed));
        let known = access.known.lock().unwrap();
        assert!(known.refused.len() <= MAX_TOKENS && known.allowed.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn access_by_a_token_that_may_scrape_goes_on_though_its_peer_sends_wrong_ones() {
        let (access, ..) = access();
        access.check(&with("good"), PEER).await;
        tokio::time::advance(ALLOWED_FOR).await;
        for number in 0..1_000 {
            access.check(&with(&format!("wrong-{number}")), PEER).await;
        }
        assert_eq!(access.check(&with("another"), PEER).await, Access::Busy);
        assert_eq!(access.check(&with("good"), PEER).await, Access::Reviewed(Verdict::Allowed));
    }

    #[tokio::test(start_paused = true)]
    async fn access_outlasts_an_outage_of_ten_minutes() {
        let (access, _, outage) = access();
        let allowed = Access::Reviewed(Verdict::Allowed);
        assert_eq!(access.check(&with("good"), PEER).await, allowed);
        outage.store(1, Ordering::Relaxed);
        assert_eq!(access.check(&with("unknown"), PEER).await, Access::Unknown);
        tokio::time::advance(ALLOWED_IN_OUTAGE_FOR - Duration::from_secs(1)).await;
        assert_eq!(access.check(&with("good"), PEER).await, allowed);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(access.check(&with("good"), PEER).await, Access::Unknown);
    }
}
