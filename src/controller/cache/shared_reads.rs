//! Reads of one object that many want at once: when a Secret changes, every TokenSource that names it reads it. One read is
//! under way at a time, and all who came before it began share its answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::key::Key;

/// The reads that are under way or wanted, by object.
#[derive(Debug)]
pub(super) struct SharedReads<T>(Mutex<HashMap<Key, Arc<Reads<T>>>>);

impl<T> Default for SharedReads<T> {
    fn default() -> Self {
        SharedReads(Mutex::default())
    }
}

#[derive(Debug)]
struct Reads<T> {
    /// How many have begun.
    begun: AtomicU64,
    /// The last answer, and which read it is of. Locked while a read is under way.
    last: AsyncMutex<Option<(u64, T)>>,
}

/// A caller that waits. The answer is kept until the last of them has it.
struct Waiting<'a, T> {
    all: &'a SharedReads<T>,
    key: &'a Key,
    reads: Arc<Reads<T>>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // Given up under the lock, so that the second of two that end at once sees that only the table has it.
        self.reads = Arc::default();
        if all.get(self.key).is_some_and(|reads| Arc::strong_count(reads) == 1) {
            all.remove(self.key);
        }
    }
}

impl<T: Clone> SharedReads<T> {
    /// The answer to a `call` that is made from now on, by this or by another caller.
    pub(super) async fn read<F: Future<Output = T>>(&self, key: &Key, call: impl FnOnce() -> F) -> T {
        let waiting = self.waiting(key);
        let reads = &waiting.reads;
        let begun = reads.begun.load(Ordering::Relaxed);
        let mut last = reads.last.lock().await;
        if let Some((read, answer)) = &*last
            && *read > begun
        {
            return answer.clone();
        }
        let read = reads.begun.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = call().await;
        *last = Some((read, answer.clone()));
        answer
    }
}

impl<T> Default for Reads<T> {
    fn default() -> Self {
        Reads { begun: AtomicU64::new(0), last: AsyncMutex::default() }
    }
}

impl<T> SharedReads<T> {
    fn waiting<'a>(&'a self, key: &'a Key) -> Waiting<'a, T> {
        let reads = Arc::clone(self.lock().entry(key.clone()).or_default());
        Waiting { all: self, key, reads }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Reads<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use futures::future::{join, join_all};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// A read that takes a second, and is answered with the number of reads before its end.
    async fn read(reads: &SharedReads<u32>, name: &str, calls: &Cell<u32>) -> u32 {
        let call = || async {
            calls.set(calls.get() + 1);
            sleep(Duration::from_secs(1)).await;
            calls.get()
        };
        reads.read(&Key::new("ns", name), call).await
    }

    #[tokio::test(start_paused = true)]
    async fn shared_reads_answer_all_who_came_before_a_read_began_by_one_call() {
        let (reads, calls) = (SharedReads::default(), Cell::new(0));
        let first = read(&reads, "a", &calls);
        let during = async {
            sleep(Duration::from_millis(500)).await;
            join_all((0..1000).map(|_| read(&reads, "a", &calls))).await
        };
        let (first, during) = join(first, during).await;
        assert_eq!((first, calls.get()), (1, 2));
        assert!(during.iter().all(|answer| *answer == 2), "what began before they came is not theirs");
        assert!(reads.lock().is_empty(), "no answer is kept");
        assert_eq!(read(&reads, "a", &calls).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shared_reads_of_other_objects_and_after_an_abandoned_one_go_on() {
        let (reads, calls) = (SharedReads::default(), Cell::new(0));
        let abandoned = timeout(Duration::from_millis(500), read(&reads, "a", &calls));
        let others = join(read(&reads, "b", &calls), read(&reads, "a", &calls));
        let (abandoned, (b, a)) = join(abandoned, others).await;
        assert!(abandoned.is_err());
        assert_eq!((a, b, calls.get()), (3, 3, 3));
        assert!(reads.lock().is_empty());
    }

    #[test]
    fn shared_reads_keep_no_answer_though_two_callers_end_at_once() {
        let (reads, key) = (SharedReads::<u32>::default(), Key::new("ns", "a"));
        for _ in 0..5_000 {
            let (one, other) = (reads.waiting(&key), reads.waiting(&key));
            let start = std::sync::Barrier::new(2);
            let end = |waiting: Waiting<'_, u32>| {
                start.wait();
                drop(waiting);
            };
            std::thread::scope(|scope| {
                scope.spawn(|| end(one));
                end(other);
            });
            assert!(reads.lock().is_empty());
        }
    }
}
