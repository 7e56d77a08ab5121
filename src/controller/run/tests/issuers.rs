//! TokenSources of ClusterTokenIssuers.

use tokensource_api::{Reason, TokenSource};

use super::super::super::cache::issuers::{IssuerSettings, Issuers};
use super::super::super::issuing::unusable_issuer;
use super::*;
use crate::cluster::IssuerObject;
use crate::spec::Identity;

/// The issuer `idp` for the namespace `ns`.
fn issuer(endpoint: Value) -> IssuerObject {
    let spec = json!({
        "provider": {"oauth2": {"tokenURL": "https://idp.example.com/t"}},
        "credentials": {"secretRef": {"name": "client"}},
        "namespaces": {"names": ["ns"]}, "allow": {"scopes": ["read"]}, "endpoint": endpoint,
    });
    serde_json::from_value(json!({"metadata": {"name": "idp", "uid": "i", "generation": 1}, "spec": spec}))
        .unwrap()
}

fn serving_issuers() -> (watch::Sender<bool>, Arc<Context>) {
    let (stop, mut context) = context();
    let settings = IssuerSettings {
        namespace: "operator".into(),
        controller: tokensource_api::DEFAULT_CONTROLLER.into(),
        required: false,
        names_only: true,
        follows_secrets: false,
    };
    Arc::get_mut(&mut context).unwrap().issuers = Issuers::new(Some(settings));
    (stop, context)
}

fn resolved(context: &Context, spec: Value) -> Option<(Resolved, Identity)> {
    let metadata = json!({"namespace": "ns", "name": "a", "uid": "u"});
    let object = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": metadata, "spec": spec,
    });
    let mut source: TokenSource = serde_json::from_value(object).unwrap();
    let mut identity = Identity::of(&source, &Key::new("ns", "a")).unwrap();
    let spec = context.resolve(&mut source, &mut identity).ok()?;
    Some((spec, identity))
}

#[tokio::test]
async fn issuer_has_its_own_way_to_its_endpoint_and_to_private_addresses_where_it_says_so() {
    let (_stop, context) = serving_issuers();
    let all = &context.endpoints;
    let lent = json!({"issuerRef": {"name": "idp"}, "request": {"scopes": ["read"]}});
    for (endpoint, expected) in [
        (json!({}), &all.issuers),
        (json!({"addresses": "Public"}), &all.issuers),
        (json!({"addresses": "Private"}), &all.private),
    ] {
        context.issuers.put(issuer(endpoint.clone()));
        let (spec, identity) = resolved(&context, lent.clone()).unwrap();
        assert!(std::ptr::eq(context.endpoints(&spec), expected), "{endpoint}");
        assert_eq!(identity.credentials, Some(Key::new("operator", "client")));
        assert_eq!(&**identity.material_namespace(), "operator");
    }
    let own = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
    let (spec, identity) = resolved(&context, own).unwrap();
    assert!(std::ptr::eq(context.endpoints(&spec), &all.sources));
    assert_eq!(identity.credentials, Some(Key::new("ns", "c")));
    context.issuers.remove("idp");
    assert!(resolved(&context, lent).is_none());
}

#[test]
fn series_of_a_source_name_its_issuer_also_while_that_cannot_be_used() {
    let source = |spec: Value| -> TokenSource {
        let (metadata, api_version) = (json!({"name": "a"}), "tokensource.dev/v1alpha1");
        serde_json::from_value(
            json!({"apiVersion": api_version, "kind": "TokenSource", "metadata": metadata, "spec": spec}),
        )
        .unwrap()
    };
    let lent = source(json!({"issuerRef": {"name": "idp"}}));
    let named = |source: &TokenSource, reason| unusable_issuer(source, reason).map(|name| name.to_string());
    assert_eq!(named(&lent, Reason::IssuerNotReady), Some("idp".to_owned()));
    // That is for the owners of its namespace to mend.
    assert_eq!(named(&lent, Reason::NotAllowedByIssuer), None);
    assert_eq!(named(&source(json!({"provider": {"vgs": {}}})), Reason::SpecInvalid), None);
}
