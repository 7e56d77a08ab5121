//! The thread in which the controller runs.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// A runtime with one thread for all that grows with the number of TokenSources, so that probes and the Lease wait for none of it. With
/// more threads, these would wake each other for each response, which costs a sixth of a refresh, and one refreshes more tokens a
/// second than the permits to call the API server admit.
pub(super) struct WorkThread(Option<Runtime>);

impl WorkThread {
    pub(super) fn start() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("controller").enable_all().build().map(Some).map(WorkThread)
    }

    /// Runs `work` to its end. It is aborted when this future is dropped.
    pub(super) async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(runtime) = &self.0 else { return };
        let mut tasks = JoinSet::new();
        tasks.spawn_on(work, runtime.handle());
        if let Some(Err(error)) = tasks.join_next().await {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for WorkThread {
    fn drop(&mut self) {
        // Not in place: a runtime must not be dropped by a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
