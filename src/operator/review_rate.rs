//! How often the API server is asked about unknown tokens of scrapers: a rate for all, of which each peer has a share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tenant_shares::has_share;
use tokio::time::Instant;

/// Reviews of a peer at once, and then one for each [`REFILL_OF_PEER`]: a scraper needs one for each token that it is given.
const MAX_BURST_OF_PEER: usize = 10;
const REFILL_OF_PEER: Duration = Duration::from_millis(500);
/// The same for all peers together.
const MAX_BURST: usize = 50;
const REFILL: Duration = Duration::from_millis(100);
/// How long a peer is remembered after a review. Half of the reviews are for peers that are not.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// The part of an IPv6 address that tells peers apart: who has one address has a network of this length.
const IPV6_PREFIX: u32 = 64;

/// See the module. There are at most as many peers as were reviewed within a minute: 650.
pub(super) struct ReviewRate {
    all: Bucket,
    peers: HashMap<IpAddr, Peer>,
}

#[derive(Clone, Copy)]
struct Peer {
    bucket: Bucket,
    reviewed: Instant,
}

impl Default for ReviewRate {
    fn default() -> Self {
        ReviewRate { all: Bucket::new(MAX_BURST, REFILL, Instant::now()), peers: HashMap::new() }
    }
}

impl ReviewRate {
    /// Whether an unknown token of a peer is reviewed now.
    pub(super) fn admits(&mut self, peer: IpAddr, now: Instant) -> bool {
        self.all.refill(now);
        self.peers.retain(|_, peer| now.saturating_duration_since(peer.reviewed) < REMEMBERED_FOR);
        let peer = network(peer);
        let mut bucket = match self.peers.get(&peer) {
            Some(known) => known.bucket,
            None => Bucket::new(MAX_BURST_OF_PEER, REFILL_OF_PEER, now),
        };
        bucket.refill(now);
        let is_admitted = match self.peers.contains_key(&peer) {
            true => bucket.left > 0 && has_share(bucket.used(), self.all.left.saturating_sub(MAX_BURST / 2)),
            false => self.all.left > 0,
        };
        if is_admitted {
            bucket.left -= 1;
            self.all.left -= 1;
            self.peers.insert(peer, Peer { bucket, reviewed: now });
        }
        is_admitted
    }
}

#[derive(Clone, Copy)]
struct Bucket {
    max: usize,
    /// One comes back for each.
    refill: Duration,
    left: usize,
    since: Instant,
}

impl Bucket {
    fn new(max: usize, refill: Duration, now: Instant) -> Self {
        Bucket { max, refill, left: max, since: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since);
        let refilled = u32::try_from(passed.as_millis() / self.refill.as_millis().max(1)).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(usize::try_from(refilled).unwrap_or(usize::MAX)).min(self.max);
        self.since = if self.left == self.max { now } else { self.since + self.refill * refilled };
    }

    fn used(&self) -> usize {
        self.max - self.left
    }
}

/// What one peer may choose its address from.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> IPV6_PREFIX << IPV6_PREFIX).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + number).into())
    }

    #[tokio::test(start_paused = true)]
    async fn review_rate_of_a_peer_is_bounded() {
        let (mut rate, start) = (ReviewRate::default(), Instant::now());
        let mut admitted =
            |peer, after| (0..1000).filter(|_| rate.admits(peer, start + Duration::from_secs(after))).count();
        assert_eq!(admitted(peer(1), 0), 10);
        assert_eq!(admitted(peer(2), 0), 10, "its own share");
        assert_eq!(admitted(peer(1), 1), 2);
        assert_eq!(admitted(peer(1), 60), 10);
        let mapped = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(admitted(mapped, 60), 0, "the same peer");
        assert_eq!(admitted("2001:db8:1:2::1".parse().unwrap(), 70), 10);
        assert_eq!(admitted("2001:db8:1:2:ffff::7".parse().unwrap(), 70), 0, "of the same network");
        assert_eq!(admitted("2001:db8:1:3::1".parse().unwrap(), 80), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn review_rate_of_many_peers_is_bounded_and_leaves_room_for_others() {
        let (mut rate, start) = (ReviewRate::default(), Instant::now());
        let mut reviews = 0;
        for second in 0..120_u32 {
            let now = start + Duration::from_secs(second.into());
            for number in 0..5_000 {
                reviews += usize::from(rate.admits(peer(number % 20), now));
            }
            assert!(rate.admits(peer(100 + second), now), "{second}");
        }
        assert!(reviews <= 50 + 120 * 10, "{reviews}");
        for number in 0..10_000 {
            rate.admits(peer(1000 + number), start + Duration::from_millis(120_000 + u64::from(number)));
        }
        assert!(rate.peers.len() <= 650, "{}", rate.peers.len());
    }
}
