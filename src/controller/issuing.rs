//! TokenSources that name a ClusterTokenIssuer: from here on they are as if they had provider, credentials and TLS themselves.

use std::sync::Arc;

use token_endpoint::Destination;
use tokensource_api::{Reason, TokenSource};

use super::cache::issuers::IssuerWatch;
use super::context::Context;
use super::endpoints::Endpoints;
use crate::spec::{Identity, Issuer, IssuerError, Resolved, SpecError, is_of_endpoint};
use crate::status::Problem;
use crate::text::shown;

/// Why a spec cannot be used.
pub(super) enum Unusable {
    Issuer(IssuerError),
    Spec(SpecError),
}

impl From<Unusable> for Problem {
    fn from(unusable: Unusable) -> Self {
        let (reason, message) = match &unusable {
            Unusable::Issuer(error) => (error.reason(), error.to_string()),
            Unusable::Spec(error) => (error.reason(), error.to_string()),
        };
        // An issuer, or its consent, may come later than its TokenSources.
        let passes =
            matches!(unusable, Unusable::Issuer(IssuerError::NotForNamespace(_) | IssuerError::Outdated));
        Problem { reason, message, passes }
    }
}

impl Context {
    /// What a TokenSource asks for. What its issuer has is put into `source` and `identity`.
    ///
    /// # Errors
    /// The spec cannot be used, or the issuer does not allow it.
    pub(super) fn resolve(
        &self,
        source: &mut TokenSource,
        identity: &mut Identity,
    ) -> Result<Resolved, Unusable> {
        let issuer = self.lend(source, identity).map_err(Unusable::Issuer)?;
        let mut spec = Resolved::of(source, self.propagation_delay).map_err(Unusable::Spec)?;
        issuer.into_iter().for_each(|issuer| spec.set_issuer(issuer));
        Ok(spec)
    }

    fn lend(
        &self,
        source: &mut TokenSource,
        identity: &mut Identity,
    ) -> Result<Option<Arc<Issuer>>, IssuerError> {
        let settings = self.issuers.settings();
        let Some(reference) = &source.spec.issuer_ref else {
            let is_required = settings.is_some_and(|settings| settings.required);
            return if is_required { Err(IssuerError::Required) } else { Ok(None) };
        };
        let settings = settings.ok_or(IssuerError::Off)?;
        if self.issuers.is_outdated(IssuerWatch::Issuers) {
            return Err(IssuerError::Outdated);
        }
        let issuer = self.issuers.serving(&reference.name, &identity.key.namespace);
        let not_found = || IssuerError::NotForNamespace(shown(&reference.name).into_owned());
        let issuer = issuer.ok_or_else(not_found)?;
        issuer.lend(source)?;
        identity.lender = Some(Arc::clone(&settings.namespace));
        identity.credentials = self.issuers.credentials(&issuer);
        Ok(Some(issuer))
    }

    /// The way to the endpoint of a spec: that of an issuer shares nothing with those that tenants choose.
    pub(super) fn endpoints(&self, spec: &Resolved) -> &Endpoints {
        match &spec.issuer {
            None => &self.endpoints.sources,
            Some(issuer) if issuer.is_private() => &self.endpoints.private,
            Some(_) => &self.endpoints.issuers,
        }
    }

    /// Where the token requests of a spec wait.
    pub(super) fn destination(&self, spec: &Resolved) -> Destination {
        let endpoint = &spec.description.request.token_url;
        match &spec.issuer {
            None => endpoint.into(),
            Some(issuer) => issuer.destination(endpoint, self.limits),
        }
    }
}

/// The issuer that a TokenSource names and that cannot be used at present: alerts about the TokenSource are silent while one about
/// the issuer fires.
pub(super) fn unusable_issuer(source: &TokenSource, reason: Reason) -> Option<Arc<str>> {
    let issuer = source.spec.issuer_ref.as_ref().filter(|_| reason == Reason::IssuerNotReady);
    issuer.map(|issuer| issuer.name.as_str().into())
}

/// The problem that a TokenSource reports. Where an issuer lends, its message leaves out endpoint and client, which the log has.
pub(super) fn told(spec: &Resolved, problem: Problem) -> Problem {
    match &spec.issuer {
        Some(issuer) if is_of_endpoint(problem.reason) => {
            Problem { message: issuer.failure(problem.reason), ..problem }
        }
        _ => problem,
    }
}
