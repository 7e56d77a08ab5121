//! What users do in a simulation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use super::run::{Simulation, State};
use crate::key::Key;

/// Something that a user does, for one source; sets the flag where that triggers it.
type Event = Box<dyn Fn(&mut State, &Key, &mut bool) + Send>;

/// Does what the plan says, at its times.
pub(super) async fn act(simulation: Arc<Simulation>) {
    let plan = &simulation.plan;
    let mut due: Vec<(Duration, Event)> = Vec::new();
    for (n, source) in plan.sources.iter().enumerate() {
        let created = move |state: &mut State, key: &Key, triggers: &mut bool| {
            *triggers = state.sources[key].n == n;
        };
        due.push((source.created, Box::new(created)));
    }
    for (client, wrong) in plan.wrong.iter().enumerate() {
        let Some((_, to)) = wrong else { continue };
        let clients: Vec<usize> = plan.sources.iter().map(|source| source.client).collect();
        let corrected = move |state: &mut State, key: &Key, triggers: &mut bool| {
            state.secrets[client] = 1;
            if let Some(source) = state.sources.get_mut(key)
                && clients[source.n] == client
            {
                source.credentials.resource_version = "2".into();
                *triggers = true;
            }
        };
        due.push((*to, Box::new(corrected)));
    }
    for (n, crowd) in plan.crowds.iter().enumerate() {
        let requested = move |state: &mut State, key: &Key, triggers: &mut bool| {
            if let Some(source) = state.sources.get_mut(key) {
                source.wanted.refresh_request = Some(n.to_string().into());
                *triggers = true;
            }
        };
        due.push((*crowd, Box::new(requested)));
    }
    due.sort_by_key(|(at, _)| *at);
    for (at, event) in due {
        sleep_until(simulation.started + at).await;
        for key in simulation.keys() {
            let mut triggers = false;
            event(&mut simulation.state(), &key, &mut triggers);
            let n = simulation.state().sources[&key].n;
            if triggers && plan.sources[n].created <= at {
                simulation.trigger(key);
            }
        }
    }
    std::future::pending::<()>().await;
}
