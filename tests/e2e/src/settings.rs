//! What `hack/e2e.sh` says, by environment variables.

use std::{env, path::PathBuf, time::Duration};

use crate::{
    command::Result,
    phases::SYNC,
    sources::{LONG_LIFETIME, REFRESHED_EVERY},
};

pub struct Settings {
    /// What was run.
    pub command: &'static str,
    /// Where the result is written.
    pub out: PathBuf,
    /// This machine's address as pods see it.
    pub host: String,
    /// In seconds.
    pub lifetimes: Vec<u32>,
    pub phase: Duration,
    /// The first phase, in which nothing is disturbed.
    pub steady: Duration,
    /// The names of phases; empty: all.
    pub only: Vec<String>,
    /// How many TokenSources exist when memory and CPU are measured, ascending.
    pub fleets: Vec<u32>,
}

impl Settings {
    pub fn read() -> Result<Self> {
        let long = env::var("E2E_LONG").is_ok_and(|value| !value.is_empty());
        let host = env::var("NODE_ADDRESS").or_else(|_| env::var("E2E_HOST"));
        let host = host
            .map_err(|_| "E2E_HOST is missing: the address of this machine as the cluster's pods see it")?;
        // A refresh of every kind falls into each phase, and the sync of its pods.
        let seconds = list("E2E_SECONDS").first().map_or(Ok(200), |text| text.parse())?;
        let phase = Duration::from_secs(seconds);
        let every_refresh = Duration::from_secs(REFRESHED_EVERY.into()) + SYNC;
        let fleets = list("E2E_FLEETS");
        Ok(Self {
            command: if long { "make e2e-long" } else { "make e2e" },
            out: env::var("E2E_OUT")?.into(),
            host,
            lifetimes: if long { vec![60, 150, 300, LONG_LIFETIME] } else { vec![60, 150, 300] },
            phase,
            steady: if long { phase.max(every_refresh) } else { phase },
            only: list("E2E_PHASES"),
            fleets: if fleets.is_empty() {
                if long { vec![1, 100, 1000, 10_000] } else { vec![1, 100, 1000] }
            } else {
                fleets.iter().map(|text| text.parse()).collect::<std::result::Result<_, _>>()?
            },
        })
    }
}

/// The words of an environment variable.
fn list(name: &str) -> Vec<String> {
    env::var(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}
