//! What a list or a watch shows of Secrets, as the cache keeps it.

use super::context::Context;
use crate::cluster::{Event, SecretObject};
use crate::secret::Facts;

/// Stores what has happened to Secrets. `epoch` is that of the list, between events. Triggers the TokenSources that use a Secret
/// that has changed. The Secrets of the `namespace` (`None`: of all) that a list does not contain are gone.
pub(super) fn handle(
    context: &Context,
    event: Event<SecretObject>,
    epoch: &mut u64,
    namespace: Option<&str>,
) {
    let concerned = match event {
        Event::Init => {
            *epoch = context.secrets.list_begins();
            vec![]
        }
        Event::InitApply(secret) => {
            let key = secret.key();
            count_too_large(context, secret.facts.as_ref());
            secret.facts.map(|facts| context.secrets.listed(&key, facts, *epoch)).unwrap_or_default()
        }
        Event::Apply(secret) => {
            let key = secret.key();
            count_too_large(context, secret.facts.as_ref());
            secret.facts.map(|facts| context.secrets.changed(&key, facts)).unwrap_or_default()
        }
        Event::Delete(secret) => {
            let key = secret.key();
            secret.facts.map(|facts| context.secrets.deleted(&key, &facts)).unwrap_or_default()
        }
        Event::InitDone => context.secrets.list_ends(*epoch, namespace),
    };
    concerned.into_iter().for_each(|source| context.trigger(source));
}

fn count_too_large(context: &Context, facts: Option<&Facts>) {
    if facts.is_some_and(|facts| facts.too_large.is_some()) {
        context.metrics.object_too_large("secrets");
    }
}
