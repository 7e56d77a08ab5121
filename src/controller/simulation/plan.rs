//! What happens in one simulation, from its seed.

use std::time::Duration;

use token_endpoint::Limits;

/// Token lifetimes, in seconds.
const LIFETIMES: [u64; 8] = [60, 120, 300, 600, 600, 900, 1800, 7200];
/// When all trouble is over.
pub(super) const CALM: Duration = Duration::from_secs(50 * 60);
/// How long it then takes at most until every source has a valid token: the longest wait after throttling, 10 min with
/// jitter, and a queue.
pub(super) const RECOVERY: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) limits: Limits,
    pub(super) sources: Vec<SourcePlan>,
    pub(super) endpoints: usize,
    pub(super) troubles: Vec<Trouble>,
    /// By client: while its secret is wrong. Then it gets another one.
    pub(super) wrong: Vec<Option<(Duration, Duration)>>,
    /// When a refresh is requested for every source.
    pub(super) crowds: Vec<Duration>,
    pub(super) latency: Duration,
    pub(super) api_latency: Duration,
    /// One write of so many fails.
    pub(super) failed_writes: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct SourcePlan {
    pub(super) client: usize,
    pub(super) endpoint: usize,
    pub(super) lifetime: u64,
    pub(super) created: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TroubleKind {
    /// 503 at once.
    Unavailable,
    /// No answer.
    Hanging,
    /// 429 beyond so many requests in a second, with or without `Retry-After`.
    Throttled { per_second: usize, retry_after: Option<u64> },
}

/// What is wrong with an endpoint for a time.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) endpoint: usize,
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) kind: TroubleKind,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let endpoints = 1 + random.below(3);
        let clients = 1 + random.below(12);
        let seconds =
            |random: &mut Random, most: usize| Duration::from_millis(random.next() % (most as u64 * 1000));
        let window = |random: &mut Random| {
            let from = seconds(random, 2400);
            (from, (from + seconds(random, 900)).min(CALM))
        };
        let at_once = random.below(2) == 0;
        let sources = (0..2 + random.below(40))
            .map(|_| SourcePlan {
                client: random.below(clients),
                endpoint: random.below(endpoints),
                lifetime: LIFETIMES[random.below(LIFETIMES.len())],
                created: if at_once { Duration::ZERO } else { seconds(&mut random, 600) },
            })
            .collect();
        let troubles = (0..random.below(5))
            .map(|_| {
                let (from, to) = window(&mut random);
                let kind = match random.below(3) {
                    0 => TroubleKind::Unavailable,
                    1 => TroubleKind::Hanging,
                    _ => TroubleKind::Throttled {
                        per_second: random.below(3),
                        retry_after: [None, Some(1), Some(20)][random.below(3)],
                    },
                };
                Trouble { endpoint: random.below(endpoints), from, to, kind }
            })
            .collect();
        let wrong = (0..clients).map(|_| (random.below(4) == 0).then(|| window(&mut random))).collect();
        let crowds = (0..random.below(3)).map(|_| seconds(&mut random, 2400)).collect();
        Plan {
            seed,
            limits: Limits {
                in_flight: 8 + random.below(56),
                per_second: 5 + u32::try_from(random.below(95)).unwrap(),
            },
            sources,
            endpoints,
            troubles,
            wrong,
            crowds,
            latency: Duration::from_millis(20 + random.next() % 800),
            api_latency: Duration::from_millis(1 + random.next() % 200),
            failed_writes: (random.below(3) == 0).then(|| 3 + random.below(20)),
        }
    }
}

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}
