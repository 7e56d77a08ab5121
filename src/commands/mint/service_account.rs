//! The token of a ServiceAccount, which is asked for with the user's rights, for one request.

use token_endpoint::{Credentials, RequestDescription};

use super::fault::Fault;
use super::report::{MintReport, ServiceAccountTokenReport};
use crate::cluster::{Kubernetes, TokenCheck};
use crate::providers::{ServiceAccountUse, add_token};
use crate::token_request::{AllowedToken, Claims, ServiceAccountTokens};

/// Adds the token to the credentials, if the request sends one. `allowed` are the pairs of the operator's flags, where they are
/// known.
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
    let allowed = allowed.unwrap_or_else(|| {
        let unknown =
            "whether the operator may send this token to this host is not known: its flags could not be read";
        report.remarks.push(unknown.to_owned());
        vec![AllowedToken::to(&wanted.audience, url)]
    });
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
