//! The token of a ServiceAccount, which is asked for with the user's rights, for one request.

use token_endpoint::{Credentials, RequestDescription};

use super::fault::Fault;
use super::report::{MintReport, ServiceAccountTokenReport};
use crate::cluster::{Kubernetes, TokenCheck};
use crate::providers::{ServiceAccountUse, add_token};
use crate::token_request::{AllowedToken, Claims, ServiceAccountTokens};

/// Adds the token to the credentials, if the request sends one. `allowed` are the pairs of the operator's flags; without
/// them no token is asked for.
pub(super) async fn add(
    wanted: Option<&ServiceAccountUse>,
    cluster: Option<&(Kubernetes, TokenCheck)>,
    namespace: &str,
    allowed: Option<Vec<AllowedToken>>,
    (description, credentials): (&RequestDescription, &mut Credentials),
    report: &mut MintReport,
) -> Result<(), Fault> {
    let Some(wanted) = wanted else { return Ok(()) };
    let Some((kubernetes, check)) = cluster else {
        return Err(Fault::usage(
            "the API server alone makes tokens of a ServiceAccount: write the TokenSource's name instead of -f".to_owned(),
        ));
    };
    let url = &description.token_url;
    let Some(allowed) = allowed else {
        return Err(Fault::usage(
            "to which hosts the platform allows this token is not known, because the operator's flags could not be read: say with --operator-namespace where the operator is, or ask somebody who may read its Deployment".to_owned(),
        ));
    };
    let tokens = ServiceAccountTokens::new(allowed, check.clone());
    let issued = tokens.issue(kubernetes, namespace, wanted, url).await;
    let issued = issued.map_err(|error| Fault::told(error.reason(), error.to_string()))?;
    report.service_account_token = Claims::of(&issued.token).map(|claims| ServiceAccountTokenReport {
        subject: claims.subject,
        audience: claims.audiences.join(", "),
        issuer: claims.issuer,
        expires_at: issued.expires_at,
    });
    add_token(description, credentials, &issued.token);
    Ok(())
}
