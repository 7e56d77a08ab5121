//! What the ClusterTokenIssuer lends that a TokenSource names, as the operator judges it and with the user's rights.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use token_endpoint::{Answer, RequestDescription};
use tokensource_api::{ClusterTokenIssuer, Reason, TokenSource};

use super::fault::{Exit, Fault};
use crate::cluster::{CallError, UserCluster};
use crate::commands::operator::{ServedIssuers, flag};
use crate::secret::{CREDENTIALS_LABEL, Facts};
use crate::spec::{Issuer, IssuerError, other_host};
use crate::text::shown;

/// Stands behind what may not be read.
const RIGHTS: &str = "through a ClusterTokenIssuer `mint` is the platform's: it needs `get` of clustertokenissuers, and of the issuer's Secrets in the operator's namespace";

/// How the operator serves issuers.
pub(super) struct Lender {
    /// The namespace with their Secrets.
    pub(super) namespace: String,
    /// The `spec.controller` of its issuers; `None`: not known.
    controller: Option<String>,
    /// Issuers must name namespaces.
    names_only: bool,
}

impl Lender {
    /// As the flags of its Deployment say; where that may not be read, `namespace` is the user's word for where it is.
    pub(super) fn of(deployment: Option<&Deployment>, namespace: Option<&str>) -> Result<Self, Fault> {
        let Some(deployment) = deployment else {
            let namespace = namespace.map(str::to_owned).ok_or_else(|| {
                Fault::usage(format!(
                    "where the operator is, with the Secrets of ClusterTokenIssuers, is not known: say it with --operator-namespace; {RIGHTS}"
                ))
            })?;
            return Ok(Lender { namespace, controller: None, names_only: false });
        };
        let ServedIssuers { namespace, controller } =
            ServedIssuers::of(deployment).ok_or_else(|| told(&IssuerError::Off))?;
        let names_only = !flag(deployment, "namespace").is_empty();
        Ok(Lender { namespace, controller: Some(controller), names_only })
    }

    /// Puts what its issuer has into a TokenSource that names one.
    pub(super) async fn lend(
        &self,
        cluster: &UserCluster,
        source: &mut TokenSource,
    ) -> Result<Issuer, Fault> {
        let name = source.spec.issuer_ref.as_ref().map(|issuer| issuer.name.clone()).unwrap_or_default();
        let what = format!("ClusterTokenIssuer {}", shown(&name));
        let object = cluster.object::<ClusterTokenIssuer>(None, &name).await;
        let object = object.map_err(|error| Fault::usage(unread(&what, &error)))?;
        let is_its = |object: &ClusterTokenIssuer| {
            self.controller.as_ref().is_none_or(|controller| *controller == object.spec.controller)
        };
        let not_served = || told(&IssuerError::NotForNamespace(shown(&name).into_owned()));
        let object = object.filter(is_its).ok_or_else(not_served)?;
        let labels = match &object.spec.namespaces.selector {
            Some(_) => {
                let namespace = cluster.object::<Namespace>(None, &cluster.namespace).await;
                let of = format!("which labels {} has, by which {what} selects it,", cluster.namespace);
                let namespace = namespace.map_err(|error| Fault::usage(unread(&of, &error)))?;
                namespace.and_then(|namespace| namespace.metadata.labels)
            }
            None => None,
        };
        let issuer = Issuer::from(object);
        if !issuer.serves(&cluster.namespace, labels.as_ref(), self.names_only) {
            return Err(not_served());
        }
        issuer.lend(source).map_err(|error| told(&error))?;
        Ok(issuer)
    }

    /// The operator uses no other Secrets of its namespace.
    pub(super) fn check_released(&self, secret: &Secret) -> Result<(), Fault> {
        if Facts::of(&secret.metadata).is_none_or(|facts| facts.released) {
            return Ok(());
        }
        let (name, namespace) = (secret.metadata.name.as_deref().unwrap_or_default(), &self.namespace);
        let (label, value) = CREDENTIALS_LABEL;
        Err(Fault::credentials(format!(
            "Secret {name} is not labelled {label}={value}, and an issuer uses no other Secrets: kubectl label secret {name} -n {namespace} {label}={value}"
        )))
    }
}

/// What could not be read, and who may.
pub(super) fn unread(what: &str, error: &CallError) -> String {
    format!("{what} cannot be read: {error}; {RIGHTS}")
}

fn told(error: &IssuerError) -> Fault {
    Fault::told(error.reason(), error.to_string())
}

/// The metadata of an issuer may not lead to a host that the platform has not named.
pub(super) fn check_endpoint(issuer: Option<&Issuer>, located: &RequestDescription) -> Result<(), Fault> {
    let url = &located.token_url;
    if issuer.is_none_or(|issuer| issuer.allows_endpoint(url)) {
        return Ok(());
    }
    Err(Fault::told(Reason::EndpointRefusedByPolicy, other_host(url)))
}

/// The token may do no more than the issuer allows.
pub(super) fn check_granted(issuer: Option<&Issuer>, answer: &Answer) -> Result<(), Fault> {
    let Some(issuer) = issuer.filter(|issuer| !issuer.allows_answer(answer)) else { return Ok(()) };
    let (name, scope) =
        (&issuer.name, answer.scope.as_deref().map_or("one that cannot be told".into(), shown));
    let message = format!(
        "the endpoint granted the scope {scope}, of which ClusterTokenIssuer {name} does not allow all (spec.allow.scopes): the operator does not write such a token"
    );
    Err(Fault { exit: Exit::Refused, ..Fault::told(Reason::NotAllowedByIssuer, message) })
}
