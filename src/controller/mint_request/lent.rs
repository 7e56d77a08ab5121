//! What holds for a token request where a ClusterTokenIssuer lends the credentials.

use std::sync::Arc;

use token_endpoint::{Answer, GroupClient, RequestDescription};
use tokensource_api::Reason;
use tokio::time::Instant;
use tracing::warn;

use super::TokenRequest;
use crate::controller::cache::issuer_answers::Failure;
use crate::controller::cache::issuers::user;
use crate::controller::mint_queue::MintResult;
use crate::controller::outcome::Outcome;
use crate::spec::{Issuer, is_of_issuer};
use crate::text::shown;

impl TokenRequest<'_> {
    /// The issuer, where its client is the same for all namespaces.
    pub(super) fn lent_client(&self) -> Option<&Issuer> {
        self.spec.issuer.as_deref().filter(|_| self.spec.description.service_account.is_none())
    }

    pub(super) fn payer(&self) -> Arc<str> {
        payer(self.spec.issuer.as_deref(), &self.identity.key.namespace)
    }

    /// The client that the issuer lends, where an earlier request with the same credentials has shown it.
    pub(super) fn known_lent_client(&self) -> Option<GroupClient> {
        let issuer = self.lent_client().filter(|_| self.knows_by_version())?;
        self.context.issuers.client(issuer, &self.cached_credentials()?)
    }

    /// Whether the version of the credentials says who asks. A certificate may have been renewed since. And the version of a Secret
    /// with nothing but assertions does not change, though another subject may be in it.
    pub(super) fn knows_by_version(&self) -> bool {
        let may_change = self.spec.needs_only_assertions && self.spec.description.service_account.is_none();
        self.spec.tls.is_none() && !may_change
    }

    /// Whether the endpoint may be asked that was discovered.
    pub(super) fn allows_endpoint(&self, description: &RequestDescription) -> bool {
        self.spec.issuer.as_ref().is_none_or(|issuer| issuer.allows_endpoint(&description.token_url))
    }

    /// What a request that was not before `begun` says of the issuer.
    pub(super) fn note_answer(&self, result: &MintResult, begun: Instant) {
        let Some(issuer) = &self.spec.issuer else { return };
        let has_own_subject = self.spec.description.service_account.is_some();
        let failure = match &result.outcome {
            Ok(_) => None,
            Err(Outcome::Failed(attempt)) if attempt.reason == Reason::NotAllowedByIssuer => None,
            // What is known is no answer.
            Err(Outcome::Failed(attempt))
                if !attempt.is_known && !attempt.is_own && is_of_issuer(attempt.reason, has_own_subject) =>
            {
                Some(Failure {
                    reason: attempt.reason,
                    message: format!("{}: {}", self.spec.host(), attempt.message),
                    blame: attempt.blame,
                    namespace: Arc::clone(&self.identity.key.namespace),
                })
            }
            Err(_) => return,
        };
        let sent = result.sent_at.map_or(begun, |(_, at)| at);
        self.context.issuers.note(issuer, sent, failure, Instant::now());
    }

    /// Whether the token may be written.
    ///
    /// # Errors
    /// It may do more than the issuer allows.
    pub(super) fn check_granted(&self, answer: &Answer) -> Result<(), Outcome> {
        let Some(issuer) = &self.spec.issuer else { return Ok(()) };
        if issuer.allows_answer(answer) {
            return Ok(());
        }
        let scope = answer.scope.as_deref().map_or("one that cannot be told".into(), shown);
        warn!(source = %self.identity.key, issuer = %issuer.name, %scope, "the endpoint granted a scope that the issuer does not allow");
        Err(Outcome::wider_than_allowed(&issuer.name))
    }
}

/// Whose share of the memory for requests one takes. What an issuer lends is its own: else a tenant whose own requests hold all
/// of its share would hold the issuer's permits while it waits.
fn payer(issuer: Option<&Issuer>, namespace: &Arc<str>) -> Arc<str> {
    issuer.map_or_else(|| Arc::clone(namespace), |issuer| user(&issuer.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_lent_request_is_of_no_namespaces_share() {
        let issuer = Issuer { name: "payments".into(), uid: "u".into(), generation: 1, spec: None };
        let namespace = "payments".into();
        assert_ne!(payer(Some(&issuer), &namespace), namespace);
        assert_eq!(payer(None, &namespace), namespace);
    }
}
