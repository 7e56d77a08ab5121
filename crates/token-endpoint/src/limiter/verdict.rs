//! What a request may do.

use super::identity::Identity;
use super::known_rejection::KnownRejection;

pub(super) enum Verdict {
    Go,
    /// It waits for this client, grant or request. `true`: it was refused before.
    Park(Identity, bool),
    Reject(KnownRejection),
}
