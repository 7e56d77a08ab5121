//! A pod of the operator: when its process ends, another starts, as the kubelet does it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;

use super::journal::Journal;
use super::proxy::Proxy;
use crate::support::operator::Operator;

/// Ends with its process when it is dropped.
pub struct Replica {
    process: Arc<Mutex<Option<Operator>>>,
    /// Of processes that have ended.
    logs: Arc<Mutex<String>>,
    stopped: Arc<AtomicBool>,
    _proxy: Proxy,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(self.process.lock().unwrap().take());
    }
}

impl Replica {
    /// Replica `number` behind a proxy of its own. `elects`: with leader election.
    pub async fn start(
        client: Client,
        namespace: &str,
        journal: &Arc<Journal>,
        number: usize,
        elects: bool,
    ) -> Self {
        let proxy = Proxy::start(client, Arc::clone(journal), number).await;
        let process = Arc::<Mutex<Option<Operator>>>::default();
        let logs = Arc::<Mutex<String>>::default();
        let stopped = Arc::<AtomicBool>::default();
        let (shared, ended, stop) = (Arc::clone(&process), Arc::clone(&logs), Arc::clone(&stopped));
        let (kubeconfig, namespace, journal) =
            (proxy.kubeconfig_path(), namespace.to_owned(), Arc::clone(journal));
        let supervise = async move {
            let election = if elects { "--leader-elect=true" } else { "--leader-elect=false" };
            let flags =
                ["run", "--admin-address", "127.0.0.1:0", "--allow-http", "--egress-allow", "127.0.0.0/8"];
            let scope = ["--namespace", &namespace, "--leader-election-namespace", &namespace, election];
            while !stop.load(Ordering::SeqCst) {
                let pod = format!("replica-{number}");
                let operator = Operator::spawn(&kubeconfig, &pod, &[&flags[..], &scope].concat());
                journal.runs(number, operator.pid());
                *shared.lock().unwrap() = Some(operator);
                while shared.lock().unwrap().as_mut().is_some_and(|it| it.exit_status().is_none()) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                if let Some(operator) = shared.lock().unwrap().take() {
                    ended.lock().unwrap().push_str(&format!("{}--- the process has ended\n", operator.log()));
                }
            }
        };
        tokio::spawn(supervise);
        Self { process, logs, stopped, _proxy: proxy }
    }

    /// The logs of all its processes.
    pub fn log(&self) -> String {
        let now = self.process.lock().unwrap().as_ref().map(Operator::log).unwrap_or_default();
        self.logs.lock().unwrap().clone() + &now
    }
}
