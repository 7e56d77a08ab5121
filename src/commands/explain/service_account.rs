//! Reads what is known of the ServiceAccount whose tokens are sent.

use tokensource_api::{ClusterTokenIssuer, TokenSource};

use super::read_error::{ReadError, read_error};
use crate::cluster::UserCluster;
use crate::key::Key;
use crate::providers::{ServiceAccountUse, describe};
use crate::spec::Issuer;

/// What is known of a ServiceAccount.
pub(super) struct ServiceAccountFacts {
    pub(super) name: String,
    /// How its tokens are used; an error where a ClusterTokenIssuer says it and may not be read.
    pub(super) used: Result<ServiceAccountUse, ReadError>,
    /// Its annotation by which it consents; `None` inside: it has none.
    pub(super) consent: Result<Option<String>, ReadError>,
    /// The issuer of its tokens.
    pub(super) issuer: Result<String, ReadError>,
}

/// Reads them; `None`: no token of a ServiceAccount is sent, or it is not known whether one is.
pub(super) async fn read(
    cluster: &UserCluster,
    key: &Key,
    source: &TokenSource,
) -> Option<ServiceAccountFacts> {
    let (name, used) = used(cluster, source).await?;
    let (kubernetes, account) = (cluster.kubernetes(), key.sibling(name.as_str()));
    let (facts, issuer) = tokio::join!(kubernetes.account(&account), cluster.service_account_issuer());
    let read = format!("read ServiceAccount {name} in {}", key.namespace);
    Some(ServiceAccountFacts {
        consent: facts.map(|facts| facts.consent).map_err(read_error(read, ("the ServiceAccount", "read"))),
        issuer: issuer.map_err(read_error(
            "read the issuer of ServiceAccount tokens (/.well-known/openid-configuration)".to_owned(),
            ("the issuer of ServiceAccount tokens", "read"),
        )),
        name,
        used,
    })
}

/// The name of the ServiceAccount, and how its tokens are used. Few users may read a ClusterTokenIssuer.
async fn used(
    cluster: &UserCluster,
    source: &TokenSource,
) -> Option<(String, Result<ServiceAccountUse, ReadError>)> {
    let of = |source: &TokenSource| {
        let used = describe(&source.spec).ok()?.service_account?;
        Some((used.name.clone(), Ok(used)))
    };
    let Some(reference) = &source.spec.issuer_ref else { return of(source) };
    match cluster.object::<ClusterTokenIssuer>(None, &reference.name).await {
        Ok(issuer) => {
            let mut lent = source.clone();
            Issuer::from(issuer?).lend(&mut lent).ok()?;
            of(&lent)
        }
        Err(error) => {
            let read = format!("read ClusterTokenIssuer {}", reference.name);
            let name = source.spec.request.as_ref()?.service_account_name.clone()?;
            Some((name, Err(read_error(read, ("the ClusterTokenIssuer", "read"))(error))))
        }
    }
}
