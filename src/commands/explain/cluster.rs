//! What the caller may see.

use k8s_openapi::api::core::v1::Secret;

use crate::cluster::{CallError, Kubernetes};
use crate::commands::caller::Caller;
use crate::key::Key;
use crate::secret::{Facts, Pod};
use tokensource_api::TokenSource;

/// What was seen, or why it was not.
pub(super) type Looked<T> = Result<T, String>;

/// Everything that the caller may see. No `Debug`: a Secret's would print it.
pub(super) struct Found {
    pub(super) source: TokenSource,
    /// The metadata of the target.
    pub(super) target: Looked<Option<Facts>>,
    pub(super) credentials: Looked<Option<Secret>>,
    /// The pods that use the target.
    pub(super) pods: Looked<Vec<Pod>>,
}

/// Looks at a TokenSource and at all that belongs to it; with its namespace.
pub(super) async fn read(namespace: Option<String>, name: &str) -> Result<(String, Found), String> {
    let caller = Caller::connect(namespace).await?;
    let source = caller.source(name).await?;
    let Caller { client, namespace, .. } = caller;
    let kubernetes = Kubernetes::new(client);

    let target = Key::new(&namespace, source.target_name());
    let credentials = Key::new(&namespace, &source.spec.credentials.secret_ref.name);
    let not_read =
        |key: &Key| refused(&format!("read Secret {}", key.name), &namespace, "the Secret could not be read");
    let (target_facts, credentials_secret, pods) = tokio::join!(
        kubernetes.secret_facts(&target),
        kubernetes.secret(&credentials),
        pods(&kubernetes, &namespace, &target.name),
    );
    let found = Found {
        target: target_facts.map_err(not_read(&target)),
        credentials: credentials_secret.map_err(not_read(&credentials)),
        pods: pods.map_err(refused("list pods", &namespace, "the pods could not be listed")),
        source,
    };
    Ok((namespace, found))
}

/// The pods that have not ended and use the Secret, page by page.
async fn pods(kubernetes: &Kubernetes, namespace: &str, secret: &str) -> Result<Vec<Pod>, CallError> {
    const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";
    let (mut found, mut next) = (vec![], None);
    loop {
        let mut page = kubernetes.pods(namespace, NOT_ENDED, next.as_deref()).await?;
        next = page.next_page();
        found.extend(page.items.into_iter().filter(|pod| !pod.uses(secret).is_empty()));
        if next.is_none() {
            return Ok(found);
        }
    }
}

fn refused(what: &str, namespace: &str, otherwise: &str) -> impl Fn(CallError) -> String + use<> {
    let (denied, otherwise) = (format!("you may not {what} in {namespace}"), otherwise.to_owned());
    move |error| match error {
        CallError::Refused(_) => denied.clone(),
        error => format!("{otherwise}: {error}"),
    }
}
