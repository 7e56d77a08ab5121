//! The watches of the busiest namespaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};

/// At most so many watches, each of one namespace. Each step costs the logarithm of their number.
pub(super) struct Watches<'a> {
    limit: usize,
    running: FuturesUnordered<Abortable<BoxFuture<'a, Arc<str>>>>,
    watched: HashMap<Arc<str>, Watched>,
    /// By load: the first is to make room.
    by_load: BTreeSet<(usize, Arc<str>)>,
}

struct Watched {
    handle: AbortHandle,
    /// The number of TokenSources when the namespace was last read.
    load: usize,
}

impl<'a> Watches<'a> {
    pub(super) fn new(limit: usize) -> Self {
        Watches { limit, running: FuturesUnordered::new(), watched: HashMap::new(), by_load: BTreeSet::new() }
    }

    pub(super) fn has(&self, namespace: &str) -> bool {
        self.watched.contains_key(namespace)
    }

    /// Makes room for the watch of a namespace with this `load`, where it is busier than another that has one. Returns whether
    /// there is room.
    pub(super) fn admits(&mut self, namespace: &Arc<str>, load: usize) -> bool {
        if let Some(watched) = self.watched.get_mut(namespace) {
            self.by_load.remove(&(watched.load, Arc::clone(namespace)));
            watched.load = load;
            self.by_load.insert((load, Arc::clone(namespace)));
            return false;
        }
        if self.watched.len() < self.limit {
            return true;
        }
        let least = self.by_load.first().filter(|(least, _)| *least < load).cloned();
        least.is_some_and(|(_, least)| {
            self.end(&least);
            true
        })
    }

    /// Follows a namespace with this `load` by `watch`, which ends with its name.
    pub(super) fn begin(&mut self, namespace: &Arc<str>, load: usize, watch: BoxFuture<'a, Arc<str>>) {
        let (handle, registration) = AbortHandle::new_pair();
        self.running.push(Abortable::new(watch, registration));
        self.by_load.insert((load, Arc::clone(namespace)));
        self.watched.insert(Arc::clone(namespace), Watched { handle, load });
    }

    /// Ends the watch of a namespace, if it has one.
    pub(super) fn end(&mut self, namespace: &Arc<str>) {
        if let Some(watched) = self.watched.remove(namespace) {
            self.by_load.remove(&(watched.load, Arc::clone(namespace)));
            watched.handle.abort();
        }
    }

    /// Runs the watches until one of them ends by itself; never returns without one. Returns its namespace.
    pub(super) async fn ended(&mut self) -> Arc<str> {
        loop {
            match self.running.next().await {
                Some(Ok(namespace)) => {
                    self.end(&namespace);
                    return namespace;
                }
                Some(Err(_aborted)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn watches_go_to_the_busiest_namespaces() {
        let mut watches = Watches::new(2);
        let name = |name: &str| Arc::<str>::from(name);
        let never = || std::future::pending().boxed();
        for (of, load, is_admitted) in
            [("a", 2, true), ("b", 3, true), ("c", 1, false), ("d", 2, false), ("e", 4, true)]
        {
            assert_eq!(watches.admits(&name(of), load), is_admitted, "{of}");
            if is_admitted {
                watches.begin(&name(of), load, never());
            }
        }
        assert_eq!(["a", "b", "e"].map(|name| watches.has(name)), [false, true, true]);
        assert!(!watches.admits(&name("e"), 1), "it has one, and fewer TokenSources now");
        assert!(watches.ended().now_or_never().is_none(), "one that was ended says nothing");
        assert!(watches.admits(&name("f"), 2));
        assert_eq!(["b", "e"].map(|name| watches.has(name)), [true, false]);
        watches.begin(&name("f"), 2, std::future::ready(name("f")).boxed());
        assert_eq!(&*watches.ended().await, "f");
        assert!(!watches.has("f") && watches.admits(&name("g"), 1));
        assert_eq!(watches.by_load.len(), watches.watched.len());
    }
}
