//! TokenSources that request tokens with what they write: each token would lead to the next one, without end.

use std::sync::Arc;

use tokensource_api::Reason;

use crate::controller::cache::source::CachedSource;
use crate::controller::context::Context;
use crate::key::Key;
use crate::secret::{Facts, Owner, Ownership, ownership};
use crate::spec::Identity;
use crate::status::Problem;

/// The TokenSources of the longest circle that is looked for.
const MAX_CIRCLE: usize = 16;

/// Why this TokenSource is left alone, if the writers of its credentials end at itself.
pub(super) fn feeds_itself(context: &Context, identity: &Identity) -> Option<Problem> {
    let mut circle = vec![Arc::clone(&identity.key.name)];
    let mut credentials = identity.credentials.clone()?;
    while credentials != identity.target {
        let (writer, next) = writer(context, &credentials)?;
        if circle.len() == MAX_CIRCLE || circle.contains(&writer) {
            return None; // another circle, whose tokens arrive here
        }
        circle.push(writer);
        credentials = next;
    }
    let message = if circle.len() == 1 {
        format!(
            "its credentials are in Secret {}, which it writes itself: each token would lead to the next one; name other credentials",
            identity.target.name
        )
    } else {
        format!(
            "TokenSources {} request tokens with what the next of them writes, in a circle: each token would lead to the next one; name other credentials in one of them",
            circle.join(", ")
        )
    };
    Some(Problem { reason: Reason::SpecInvalid, message, passes: false })
}

/// The TokenSource that writes a Secret, with its own credentials.
fn writer(context: &Context, secret: &Key) -> Option<(Arc<str>, Key)> {
    let facts = context.secrets.known(secret).present();
    let candidates = match &facts {
        None => context.secrets.writers(secret),
        // A Secret that exists is written by one that it names: thousands may have it as their target.
        Some(facts) => named_in(facts).map(|name| secret.sibling(name)).collect(),
    };
    candidates.into_iter().find_map(|writer| {
        let cached = context.sources.get(&writer)?;
        let [target, credentials, ..] = &*cached.secrets else { return None };
        let writes = *target == secret.name && facts.as_deref().is_none_or(|facts| may_write(&cached, facts));
        writes.then(|| (Arc::clone(&writer.name), secret.sibling(Arc::clone(credentials))))
    })
}

/// The TokenSources that may write a Secret: its controller, the one of its record, and the one that it is offered to.
fn named_in(facts: &Facts) -> impl Iterator<Item = &str> {
    let controller = facts.controller().map(|controller| controller.name);
    let record = facts.record.as_deref().map(|record| &*record.owner.name);
    [controller, record, facts.rare().offered_to.as_deref()].into_iter().flatten()
}

/// Whether the TokenSource may write the Secret: one of another owner blocks it.
fn may_write(source: &CachedSource, secret: &Facts) -> bool {
    let owner = Owner { name: (*source.key.name).into(), uid: source.uid().cloned().unwrap_or_default() };
    !matches!(ownership(secret, &owner), Ownership::Foreign { .. })
}
