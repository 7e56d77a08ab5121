//! The node of `hack/node.sh`, on which components and processes of pods can be ended.

use std::{env, fs, path::PathBuf, time::Duration};

use crate::command::{Result, eventually, output};

pub struct Node {
    folder: PathBuf,
}

impl Node {
    pub fn of_environment() -> Option<Self> {
        env::var("NODE_DIR").ok().map(|folder| Self { folder: folder.into() })
    }

    /// Ends a component like a crash; `node-inside.sh` starts it again.
    pub fn kill(&self, component: &str) -> Result<()> {
        let file = self.folder.join("pids").join(component);
        let before = fs::read_to_string(&file)?;
        signal("KILL", before.trim())?;
        eventually(component, Duration::from_secs(30), || match fs::read_to_string(&file)? {
            now if now == before => Err("it was not started again".into()),
            _ => Ok(()),
        })
    }

    /// The process of a container.
    pub fn process(container: &str) -> Result<String> {
        let tasks = output("ctr", &["-n", "k8s.io", "tasks", "list"], "")?;
        let line = tasks.lines().find(|line| line.starts_with(container));
        let process = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(process.ok_or_else(|| format!("there is no process of container {container}"))?.to_owned())
    }

    /// Drops every packet of a pod, or no longer.
    pub fn drop_packets(address: &str, begin: bool) -> Result<()> {
        let mode = if begin { "-I" } else { "-D" };
        for rule in [["INPUT", "-s"], ["FORWARD", "-s"], ["FORWARD", "-d"], ["OUTPUT", "-d"]] {
            output("iptables", &["-w", mode, rule[0], rule[1], address, "-j", "DROP"], "")?;
        }
        Ok(())
    }

    /// The effective user of a process.
    pub fn user(process: &str) -> Result<u32> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        Ok(users.split_whitespace().nth(1).ok_or("the process has no user")?.parse()?)
    }
}

pub fn signal(signal: &str, process: &str) -> Result<()> {
    output("kill", &[&format!("-{signal}"), process], "").map(drop)
}
