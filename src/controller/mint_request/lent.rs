//! What holds for a token request where a ClusterTokenIssuer lends the credentials.

use token_endpoint::{Answer, RequestDescription};
use tokensource_api::Reason;
use tracing::warn;

use super::TokenRequest;
use crate::controller::cache::issuers::Answered;
use crate::controller::outcome::Outcome;
use crate::text::shown;

impl TokenRequest<'_> {
    /// Whether the endpoint may be asked that was discovered.
    pub(super) fn allows_endpoint(&self, description: &RequestDescription) -> bool {
        self.spec.issuer.as_ref().is_none_or(|issuer| issuer.allows_endpoint(&description.token_url))
    }

    /// The endpoint that was discovered is at another host than the platform has named.
    pub(super) fn other_host(&self, description: &RequestDescription) -> Outcome {
        let host = description.token_url.host_str().unwrap_or_default();
        let port = description.token_url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Outcome::passing(
            Reason::EndpointRefusedByPolicy,
            format!(
                "the metadata of the issuer name a token endpoint at {}{port}: list that host in spec.endpoint.hosts of the ClusterTokenIssuer",
                shown(host)
            ),
        )
    }

    /// Whether the token may be written.
    ///
    /// # Errors
    /// It may do more than the issuer allows.
    pub(super) fn check_granted(&self, answer: &Answer) -> Result<(), Outcome> {
        let Some(issuer) = &self.spec.issuer else { return Ok(()) };
        self.context.issuers.note(issuer, Answered::Succeeded);
        if !answer.scope_is_withheld && issuer.allows_granted(answer.scope.as_deref()) {
            return Ok(());
        }
        let scope = answer.scope.as_deref().map_or("one that cannot be told".into(), shown);
        warn!(source = %self.identity.key, issuer = %issuer.name, %scope, "the endpoint granted a scope that the issuer does not allow");
        Err(Outcome::wider_than_allowed(&issuer.name))
    }
}
