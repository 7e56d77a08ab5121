//! One life of a TokenSource, from the start of the operator to the deletion of the source, with some of its calls spoiled.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::fault::{Call, Change, Fault, Kind, Phase};
use super::journal::Journal;
use super::life::Life;
use super::replica::Replica;
use crate::support::scene::Scene;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scenario {
    pub kind: Kind,
    pub change: Change,
}

impl Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Static => "client credentials",
            Kind::Rotating => "rotating refresh token",
            Kind::Replicas => "two replicas",
        };
        write!(f, "{kind}, {}", Phase::Change(self.change))
    }
}

/// What one scenario showed.
#[derive(Debug)]
pub struct Outcome {
    pub calls: Vec<Call>,
    /// How many of the faults happened.
    pub reached: usize,
    pub requests: u64,
    /// See [`Journal::lost_only_copy`].
    pub is_excused: bool,
    pub elapsed: Duration,
    pub violation: Option<String>,
    /// The operator's log, if there is a violation.
    pub log: String,
}

/// Runs a scenario with these faults. `undisturbed` is the number of token requests without faults, if it is known.
pub async fn run(scenario: Scenario, faults: &[Fault], undisturbed: Option<u64>) -> Outcome {
    let scene = Scene::bare("spoiled").await;
    let begun = Instant::now();
    let journal = Journal::new(faults);
    let endpoint = Endpoint::start(scene.server.vgs_token_url(), Arc::clone(&journal)).await;
    let life = Life::new(scenario.kind, scene, journal, endpoint.token_url()).await;
    let mut replicas = Vec::new();
    let result = live(&life, scenario, &mut replicas, undisturbed).await;
    let violation = result.err();
    let log = match violation {
        Some(_) => replicas.iter().map(Replica::log).collect(),
        None => String::new(),
    };
    Outcome {
        calls: life.journal.calls(),
        reached: life.journal.reached(),
        requests: life.scene.mints().await,
        is_excused: life.journal.lost_only_copy(),
        elapsed: begun.elapsed(),
        violation,
        log,
    }
}

/// Waits for such a token. False: a process had the only copy of the refresh token, which excuses that there is none.
async fn comes_to_token_other_than(before: Option<&str>, life: &Life) -> Result<bool, String> {
    match life.settled_with_token_other_than(before).await {
        Err(_) if life.journal.lost_only_copy() => Ok(false),
        settled => settled.map(|()| true),
    }
}

async fn live(
    life: &Life,
    scenario: Scenario,
    replicas: &mut Vec<Replica>,
    undisturbed: Option<u64>,
) -> Result<(), String> {
    let Scenario { kind, change } = scenario;
    life.new_credentials("first").await?;
    let foreign = life.write_secret("foreign", &[("key", "value")]).await?;
    for number in 0..if kind == Kind::Replicas { 2 } else { 1 } {
        let (client, namespace) = (life.scene.client.clone(), life.scene.namespace.as_str());
        let elects = kind == Kind::Replicas;
        replicas.push(Replica::start(client, namespace, &life.journal, number, elects).await);
        life.started(number).await?;
    }

    life.journal.begin(Phase::FirstMint);
    life.create_source().await?;
    if !comes_to_token_other_than(None, life).await? {
        return life.foreign_secrets_are_untouched(&foreign).await;
    }
    let first = life.token().await?;

    life.journal.begin(Phase::Change(change));
    match change {
        Change::Refresh => life.request_refresh().await?,
        Change::Credentials => life.new_credentials("second").await?,
        Change::Target => life.delete_target().await?,
    }
    if !comes_to_token_other_than(Some(&first), life).await? {
        return life.foreign_secrets_are_untouched(&foreign).await;
    }

    let owned = life.stored_refresh_token().await?;
    life.journal.begin(Phase::Deletion);
    life.delete_source().await?;
    life.target_is_gone().await?;
    life.idle().await?;
    if life.stored_refresh_token().await? != owned {
        return Err("the stored refresh token has changed with the deletion of its TokenSource".into());
    }

    life.foreign_secrets_are_untouched(&foreign).await?;
    if life.journal.lost_only_copy() {
        // What is stored may have been spent, and is tried.
        return Ok(());
    }
    if life.journal.sent_spent_token() {
        return Err("a refresh token was sent after its successor had been received".into());
    }
    let faults = u64::try_from(life.journal.reached()).unwrap();
    let requests = life.scene.mints().await;
    match undisturbed {
        Some(undisturbed) if requests > undisturbed + faults => {
            Err(format!("{requests} token requests, {undisturbed} without faults, {faults} faults"))
        }
        _ => Ok(()),
    }
}
