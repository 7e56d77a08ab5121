//! The corrected clock: the one owner of what time it is. Whatever is decided by the time asks it; the wall clock only dates
//! events and annotations for people.
//!
//! It runs evenly, whatever is done to the wall clock: by the monotonic clock plus what the machine slept. `correction`
//! says when it follows the wall clock; it is pure, and this file reads the clocks.

mod correction;
mod moment;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::time::{in_whole_seconds, minus};
use correction::Correction;
pub use correction::{Changes, NOTABLE_DIFFERENCE, Standing};
pub use moment::Moment;

/// See the module.
pub struct Clock {
    read: Box<dyn Fn() -> Moment + Send + Sync>,
    correction: Mutex<Correction>,
    changed: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("correction", &self.correction).finish_non_exhaustive()
    }
}

impl Clock {
    /// The clock of this process. Until the API server is heard, it starts from the wall clock.
    #[must_use]
    pub fn new() -> Self {
        let (start, slept) = (Instant::now(), total_sleep());
        Self::reading(move || Moment {
            awake: start.elapsed(),
            // Whole seconds: two clocks cannot be read at the same instant.
            slept: Duration::from_secs(total_sleep().saturating_sub(slept).as_secs()),
            wall: Timestamp::now(),
        })
    }

    /// The same, with clocks that `read` reads.
    pub(crate) fn reading(read: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        let correction = Mutex::new(Correction::new(read()));
        Clock { read: Box::new(read), correction, changed: Notify::new() }
    }

    /// The corrected time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let now = self.moment();
        self.lock().at(now)
    }

    /// The corrected time in whole seconds: a finer clock would make refreshes depend on what status cannot hold.
    #[must_use]
    pub fn second(&self) -> Timestamp {
        in_whole_seconds(self.now())
    }

    /// This moment by the clocks of this machine, for durations that must count suspension.
    #[must_use]
    pub fn moment(&self) -> Moment {
        (self.read)()
    }

    /// By how many seconds the corrected time was set back since the process started. What was dated before is as old as it
    /// was, so its dates move by as much.
    #[must_use]
    pub fn rewound(&self) -> u64 {
        self.lock().rewound()
    }

    /// A time that was determined when the corrected time had been set back by `rewound` seconds, by the clock of now.
    #[must_use]
    pub fn since(&self, at: Timestamp, rewound: u64) -> Timestamp {
        minus(at, self.rewound().saturating_sub(rewound))
    }

    /// By how many seconds the corrected time was set since the process started, forwards or back. Waits go on for as long as
    /// they were meant to, so their ends move by as much. Corrections of more than 68 years are not told.
    #[must_use]
    pub fn corrected(&self) -> i32 {
        i32::try_from(self.lock().corrected()).unwrap_or_default()
    }

    /// Takes in the `Date` of a response of the API server to a request that was sent at `sent`.
    pub fn server_said(&self, date: Timestamp, sent: Moment) {
        let now = self.moment();
        let mut correction = self.lock();
        correction.server_said(date, sent, now);
        if correction.changes().any() {
            self.changed.notify_one();
        }
    }

    /// By how many seconds the API server's clock is ahead of this machine's wall clock.
    #[must_use]
    pub fn difference(&self) -> Option<i64> {
        self.lock().difference()
    }

    /// Whether the API server's clock agrees with the corrected time.
    #[must_use]
    pub fn server_agrees(&self) -> bool {
        self.lock().server_agrees()
    }

    /// What the wall clock is good for.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let now = self.moment();
        self.lock().standing(now)
    }

    /// Waits until something may have happened to the clocks.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Compares the clocks. Returns what has happened since the last call, and whether the API server, which was not heard
    /// for `age`, must be asked to decide between wall clock and corrected time.
    pub fn check(&self, age: Duration) -> (Changes, bool) {
        let now = self.moment();
        let mut correction = self.lock();
        correction.compare(now);
        (correction.take_changes(), correction.is_open(now, age))
    }

    fn lock(&self) -> MutexGuard<'_, Correction> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.correction.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long this machine was suspended since it started.
#[cfg(target_os = "linux")]
fn total_sleep() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let [monotonic, boot] = [ClockId::Monotonic, ClockId::Boottime]
        .map(|clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default());
    boot.saturating_sub(monotonic)
}

/// Other systems than Linux run the operator for development only.
#[cfg(not(target_os = "linux"))]
fn total_sleep() -> Duration {
    Duration::ZERO
}
