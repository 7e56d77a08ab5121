//! TokenSources that request tokens with what they write: each token would lead to the next one, without end.

use std::sync::Arc;

use tokensource_api::Reason;

use crate::controller::cache::source::CachedSource;
use crate::controller::context::Context;
use crate::key::Key;
use crate::secret::{Owner, Ownership, ownership};
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
    context.secrets.writers(secret).into_iter().find_map(|user| {
        let cached = context.sources.get(&user)?;
        let [_, credentials, ..] = &*cached.secrets else { return None };
        may_write(context, &cached, secret)
            .then(|| (Arc::clone(&user.name), secret.sibling(Arc::clone(credentials))))
    })
}

/// Whether the TokenSource may write the Secret: one of another owner blocks it.
fn may_write(context: &Context, source: &CachedSource, secret: &Key) -> bool {
    let Some(facts) = context.secrets.known(secret).present() else { return true };
    let owner = Owner { name: (*source.key.name).into(), uid: source.uid().cloned().unwrap_or_default() };
    !matches!(ownership(&facts, &owner), Ownership::Foreign { .. })
}
