//! The watches of the busiest namespaces.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};

/// At most so many watches, each of one namespace.
pub(super) struct Watches<'a> {
    limit: usize,
    running: FuturesUnordered<Abortable<BoxFuture<'a, Arc<str>>>>,
    handles: HashMap<Arc<str>, AbortHandle>,
}

impl<'a> Watches<'a> {
    pub(super) fn new(limit: usize) -> Self {
        Watches { limit, running: FuturesUnordered::new(), handles: HashMap::new() }
    }

    pub(super) fn has(&self, namespace: &str) -> bool {
        self.handles.contains_key(namespace)
    }

    /// Makes room for the watch of a namespace, where it is busier than another that has one. `load` is the number of
    /// TokenSources of a namespace. Returns whether there is room.
    pub(super) fn admits(&mut self, namespace: &str, load: impl Fn(&str) -> usize) -> bool {
        if self.has(namespace) {
            return false;
        }
        if self.handles.len() < self.limit {
            return true;
        }
        let least = self.handles.keys().min_by_key(|watched| load(watched)).cloned();
        match least {
            Some(least) if load(&least) < load(namespace) => {
                self.end(&least);
                true
            }
            _ => false,
        }
    }

    /// Follows a namespace by `watch`, which ends with its name.
    pub(super) fn begin(&mut self, namespace: &Arc<str>, watch: BoxFuture<'a, Arc<str>>) {
        let (handle, registration) = AbortHandle::new_pair();
        self.running.push(Abortable::new(watch, registration));
        self.handles.insert(Arc::clone(namespace), handle);
    }

    /// Ends the watch of a namespace, if it has one.
    pub(super) fn end(&mut self, namespace: &str) {
        if let Some(handle) = self.handles.remove(namespace) {
            handle.abort();
        }
    }

    /// Runs the watches until one of them ends by itself; never returns without one. Returns its namespace.
    pub(super) async fn ended(&mut self) -> Arc<str> {
        loop {
            match self.running.next().await {
                Some(Ok(namespace)) => {
                    self.handles.remove(&namespace);
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
        let load = |namespace: &str| namespace.len();
        for (name, is_admitted) in [("aa", true), ("bbb", true), ("c", false), ("cc", false), ("dddd", true)]
        {
            assert_eq!(watches.admits(name, load), is_admitted, "{name}");
            if is_admitted {
                watches.begin(&name.into(), std::future::pending().boxed());
            }
        }
        assert_eq!(["aa", "bbb", "dddd"].map(|name| watches.has(name)), [false, true, true]);
        assert!(!watches.admits("dddd", load), "it has one");
        assert!(watches.ended().now_or_never().is_none(), "one that was ended says nothing");
        watches.end("bbb");
        watches.begin(&"e".into(), std::future::ready("e".into()).boxed());
        assert_eq!(&*watches.ended().await, "e");
        assert!(!watches.has("e") && watches.admits("f", load));
    }
}
