use serde_json::{Value, json};

use super::*;
use crate::digest::provider_digest;

fn issuer(change: Value) -> Issuer {
    let mut spec = json!({
        "provider": {"oauth2": {"issuer": "https://idp.example.com/realms/a"}},
        "credentials": {"secretRef": {"name": "client"}},
        "namespaces": {"names": ["payments"]},
        "allow": {"scopes": ["read", "write"]},
    });
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let spec = serde_json::from_value(spec).unwrap();
    Issuer { name: "idp".into(), uid: "u".into(), generation: 1, spec: Some(spec) }
}

fn source(request: Value) -> TokenSource {
    serde_json::from_value(json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "a"},
        "spec": {"issuerRef": {"name": "idp"}, "request": request},
    }))
    .unwrap()
}

fn lent(issuer: &Issuer, request: Value) -> Result<Value, String> {
    let mut source = source(request);
    issuer.lend(&mut source).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(&source.spec).unwrap())
}

#[test]
fn issuer_lends_provider_credentials_and_tls_with_what_is_asked_for() {
    let tls = json!({"caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}}});
    let issuer = issuer(json!({
        "tls": tls,
        "allow": {"scopes": ["read", "write"], "audiences": ["api"], "resources": ["https://api.example.com"]},
    }));
    let asked = json!({"scopes": ["write"], "audience": "api", "resources": ["https://api.example.com"]});
    assert_eq!(
        lent(&issuer, asked.clone()).unwrap(),
        json!({
            "issuerRef": {"name": "idp"}, "request": asked, "tls": tls,
            "credentials": {"secretRef": {"name": "client"}},
            "provider": {"oauth2": {
                "issuer": "https://idp.example.com/realms/a", "scopes": ["write"], "audience": "api",
                "resources": ["https://api.example.com"],
            }},
        })
    );
}

#[test]
fn issuer_allows_scopes_audiences_and_resources_exactly_and_nothing_that_is_absent() {
    let scopes = |scopes: &[&str]| json!({"scopes": scopes});
    let no = |what: &str| Err(format!("ClusterTokenIssuer idp does not allow {what}: ask the platform"));
    let write = |field: &str| Err(format!("ClusterTokenIssuer idp requires it: write {field}"));
    let allow = |allow: Value| issuer(json!({"allow": allow}));
    let both = json!({"scopes": ["read"], "audiences": ["api"], "resources": ["https://api.example.com"]});
    for (allowed, request, expected) in [
        (json!({"scopes": ["read", "write"]}), scopes(&["read", "write"]), Ok(())),
        (json!({"scopes": ["read"], "defaultScopes": ["read"]}), json!({}), Ok(())),
        (json!({"withoutScopes": true}), json!({}), Ok(())),
        (json!({"scopes": ["read"]}), scopes(&["Read"]), no("the scope Read (spec.request.scopes)")),
        (json!({"scopes": ["read"]}), scopes(&["read", "rea"]), no("the scope rea (spec.request.scopes)")),
        (
            json!({"scopes": ["read"]}),
            scopes(&["read write"]),
            no("the scope read write (spec.request.scopes)"),
        ),
        (json!({}), scopes(&["read"]), no("the scope read (spec.request.scopes)")),
        (json!({"withoutScopes": true}), scopes(&["read"]), no("the scope read (spec.request.scopes)")),
        (json!({"scopes": ["read"]}), json!({}), write("spec.request.scopes")),
        (json!({"scopes": ["read"]}), scopes(&[]), write("spec.request.scopes")),
        (json!({"scopes": ["read"], "defaultScopes": ["read"]}), scopes(&[]), write("spec.request.scopes")),
        (json!({"withoutScopes": true}), scopes(&[]), Ok(())),
        (json!({}), json!({}), write("spec.request.scopes")),
        // A default that was allowed before the issuer narrowed.
        (
            json!({"scopes": ["read"], "defaultScopes": ["write"]}),
            json!({}),
            no("the scope write (spec.request.scopes)"),
        ),
        (
            json!({"scopes": ["read"]}),
            json!({"scopes": ["read"], "audience": "api"}),
            no("the audience api (spec.request.audience)"),
        ),
        (both.clone(), json!({"scopes": ["read"]}), write("spec.request.audience")),
        (
            both.clone(),
            json!({"scopes": ["read"], "audience": "API"}),
            no("the audience API (spec.request.audience)"),
        ),
        (both.clone(), json!({"scopes": ["read"], "audience": "api"}), write("spec.request.resources")),
        (
            both,
            json!({"scopes": ["read"], "audience": "api", "resources": ["https://api.example.com/"]}),
            no("the resource https://api.example.com/ (spec.request.resources)"),
        ),
    ] {
        assert_eq!(lent(&allow(allowed.clone()), request.clone()).map(drop), expected, "{allowed} {request}");
    }
}

#[test]
fn issuer_serves_the_namespaces_that_it_names_and_no_other() {
    let serves = |namespaces: Value, labels: Option<&str>, names_only: bool| {
        let issuer = issuer(json!({"namespaces": namespaces}));
        let labels = labels.map(labels_of);
        issuer.serves("payments", labels.as_ref(), names_only)
    };
    let selector = |labels: Value| json!({"selector": {"matchLabels": labels}});
    assert!(serves(json!({"names": ["billing", "payments"]}), None, true));
    for name in ["Payments", "payment", "payments-2", "*"] {
        assert!(!serves(json!({"names": [name]}), None, false), "{name}");
    }
    assert!(serves(selector(json!({"a": "b"})), Some("a=b c=d"), false));
    assert!(serves(selector(json!({"a": "b", "c": "d"})), Some("a=b c=d"), false));
    for found in [None, Some(""), Some("a=c"), Some("a=B")] {
        assert!(!serves(selector(json!({"a": "b"})), found, false), "{found:?}");
    }
    assert!(!serves(selector(json!({})), Some("a=b"), false), "an empty selector selects nothing");
    assert!(serves(json!({"all": true}), None, false));
    for (namespaces, names_only) in [
        (json!({"all": false}), false),
        (json!({}), false),
        (json!({"names": ["payments"], "all": true}), false),
        (json!({"names": ["payments"], "selector": {"matchLabels": {"a": "b"}}}), false),
        (json!({"all": true}), true),
        (selector(json!({"a": "b"})), true),
    ] {
        assert!(!serves(namespaces.clone(), Some("a=b"), names_only), "{namespaces}");
    }
}

/// As a change of a TokenSource's own provider, one of the issuer's invalidates tokens; what it allows does not.
#[test]
fn provider_digest_changes_with_the_provider_and_the_credentials_of_the_issuer_alone() {
    let digest = |change: Value| {
        let mut source = source(json!({"scopes": ["read"]}));
        issuer(change).lend(&mut source).unwrap();
        provider_digest(&source.spec)
    };
    let before = digest(json!({}));
    for same in [
        json!({"allow": {"scopes": ["read"], "defaultScopes": ["read"]}}),
        json!({"limits": {"maxInFlight": 1}}),
        json!({"namespaces": {"all": true}}),
    ] {
        assert_eq!(digest(same.clone()), before, "{same}");
    }
    for other in [
        json!({"provider": {"oauth2": {"issuer": "https://idp.example.com/realms/b"}}}),
        json!({"credentials": {"secretRef": {"name": "other"}}}),
        json!({"credentials": {"secretRef": {"name": "client"}, "clientID": "other"}}),
    ] {
        assert_ne!(digest(other.clone()), before, "{other}");
    }
}

#[test]
fn issuer_bounds_how_often_a_source_may_refresh() {
    let asked = |max_interval: &str, refresh: Value| {
        let issuer = issuer(json!({"refresh": refresh}));
        let mut source = source(json!({"scopes": ["read"]}));
        source.spec.refresh =
            Some(tokensource_api::Refresh { max_interval: Some(max_interval.into()), ..Default::default() });
        issuer.lend(&mut source).map_err(|error| error.to_string())
    };
    assert_eq!(asked("30s", json!({})), Ok(()));
    assert_eq!(asked("10m", json!({"minInterval": "10m"})), Ok(()));
    let said = asked("9m59s", json!({"minInterval": "10m"})).unwrap_err();
    assert!(said.contains("does not allow a refresh every 9m59s (spec.refresh.maxInterval)"), "{said}");
    assert_eq!(issuer(json!({"refresh": {"minInterval": "1h30m"}})).min_refresh_interval(), 5400);
}

fn labels_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split_whitespace().filter_map(|it| it.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn issuer_token_of_a_service_account_names_it_once() {
    let issuer = |name: Value| {
        let mut token = json!({"from": "TokenSourceNamespace", "audience": "idp"});
        token.as_object_mut().unwrap().extend(name.as_object().unwrap().clone());
        issuer(json!({
            "provider": {"oauth2": {
                "tokenURL": "https://idp.example.com/t", "clientAuthentication": {"serviceAccountToken": {}},
            }},
            "credentials": {"serviceAccountToken": token},
        }))
    };
    let asked = |name: Value| {
        let mut request = json!({"scopes": ["read"]});
        request.as_object_mut().unwrap().extend(name.as_object().unwrap().clone());
        request
    };
    let token = |name: &str| Ok(json!({"serviceAccountToken": {"name": name, "audience": "idp"}}));
    let credentials =
        |issuer: &Issuer, request| lent(issuer, request).map(|spec| spec["credentials"].clone());
    let named = json!({"serviceAccountName": "own"});
    assert_eq!(credentials(&issuer(json!({"name": "all"})), asked(json!({}))), token("all"));
    assert_eq!(credentials(&issuer(json!({})), asked(named.clone())), token("own"));
    let field = "spec.request.serviceAccountName";
    let unused = Err(format!("ClusterTokenIssuer idp does not use it: remove {field}"));
    let missing = Err(format!("ClusterTokenIssuer idp requires it: write {field}"));
    assert_eq!(credentials(&issuer(json!({"name": "all"})), asked(named.clone())), unused);
    assert_eq!(credentials(&issuer(json!({})), asked(json!({}))), missing);
    assert_eq!(credentials(&super::tests::issuer(json!({})), asked(named)), unused, "with a Secret");
}

#[test]
fn issuer_that_breaks_the_rules_of_the_schema_is_unusable_and_says_nothing_more() {
    let oauth2 = |more: Value| {
        let mut oauth2 = json!({"tokenURL": "https://idp.example.com/t"});
        oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"oauth2": oauth2})
    };
    for provider in [
        json!({}),
        json!({"gitHubApp": {"installationID": 1}}),
        json!({"vmwareCloudDirector": {"host": "vcd.example.com", "system": true}}),
        oauth2(json!({"grant": {"refreshToken": {}}})),
        oauth2(json!({"scopes": ["admin"]})),
        oauth2(json!({"audience": "a"})),
        oauth2(json!({"resources": ["https://a.example.com"]})),
        json!({"oauth2": {"tokenURL": "not a URL"}}),
        json!({"vgs": {"scopes": ["admin"]}}),
    ] {
        let said = lent(&issuer(json!({"provider": provider.clone()})), json!({"scopes": ["read"]}));
        let said = said.expect_err(&provider.to_string());
        assert!(said.starts_with("ClusterTokenIssuer idp cannot be used at present"), "{provider}: {said}");
        // The status of the issuer says what is wrong.
        let fault = issuer(json!({"provider": provider.clone()})).fault().unwrap_or_default();
        assert!(fault.contains("spec.provider"), "{provider}: {fault}");
    }
    let unreadable = Issuer { name: "idp".into(), uid: "u".into(), generation: 1, spec: None };
    assert!(lent(&unreadable, json!({"scopes": ["read"]})).is_err() && unreadable.fault().is_some());
    let of_accounts = json!({"oauth2": {
        "tokenURL": "https://idp.example.com/t", "clientAuthentication": {"serviceAccountToken": {}},
    }});
    let token = json!({"serviceAccountToken": {"from": "TokenSourceNamespace", "audience": "idp"}});
    for usable in [
        json!({}),
        json!({"provider": {"vngCloud": {}}}),
        json!({"provider": {"vgs": {}}}),
        json!({"provider": of_accounts, "credentials": token}),
    ] {
        assert_eq!(issuer(usable.clone()).fault(), None, "{usable}");
    }
    let mut both = source(json!({"scopes": ["read"]}));
    both.spec.tls = Some(Default::default());
    assert_eq!(issuer(json!({})).lend(&mut both), Err(IssuerError::Both));
}

#[test]
fn issuer_of_vng_cloud_asks_for_no_scope_by_itself() {
    let issuer =
        issuer(json!({"provider": {"vngCloud": {}}, "allow": {"withoutScopes": true, "scopes": ["email"]}}));
    assert!(lent(&issuer, json!({})).is_err());
    assert!(lent(&issuer, json!({"scopes": ["email"]})).is_ok());
}

#[test]
fn granted_scope_must_be_allowed_whatever_was_asked_for() {
    let issuer = issuer(json!({"allow": {"scopes": ["read", "write"]}}));
    for scope in [None, Some(""), Some("read"), Some("write read"), Some(" read  write ")] {
        assert!(issuer.allows_granted(scope), "{scope:?}");
    }
    for scope in ["admin", "read admin", "read,write", "READ"] {
        assert!(!issuer.allows_granted(Some(scope)), "{scope}");
    }
}

#[test]
fn failure_is_the_issuers_unless_a_tenant_may_cause_it() {
    use Reason::{
        ClientRejected, CredentialsInvalid, EndpointUnavailable, GrantRejected, KubernetesApiError,
        ScopeRejected,
    };
    for (reason, of_issuer, with_own_subject) in [
        (EndpointUnavailable, true, true),
        (ClientRejected, true, false),
        (GrantRejected, true, false),
        // An audience that the cluster itself accepts is the issuer's.
        (CredentialsInvalid, true, true),
        (ScopeRejected, false, false),
        (KubernetesApiError, false, false),
    ] {
        assert_eq!(is_of_issuer(reason, false), of_issuer, "{reason}");
        assert_eq!(is_of_issuer(reason, true), with_own_subject, "{reason}");
    }
}

#[test]
fn discovered_endpoint_is_at_the_issuers_host_or_at_a_listed_one() {
    let allows = |hosts: Value, url: &str| {
        issuer(json!({"endpoint": {"hosts": hosts}})).allows_endpoint(&url.parse().unwrap())
    };
    assert!(allows(json!([]), "https://idp.example.com/token"));
    assert!(allows(json!([]), "https://IDP.example.com:443/token"));
    for url in
        ["https://idp.example.com:8443/t", "https://idp.example.com.evil.example/t", "https://evil.example/t"]
    {
        assert!(!allows(json!(["mtls.example.com"]), url), "{url}");
    }
    assert!(allows(json!(["evil.example", "mtls.example.com:8443"]), "https://mtls.example.com:8443/t"));
    assert!(!allows(json!(["mtls.example.com:8443"]), "https://mtls.example.com/t"));
    assert!(!allows(json!(["mtls.example.com"]), "http://mtls.example.com/t"), "another port");
    for url in ["http://idp.example.com:443/t", "http://mtls.example.com:8443/t"] {
        assert!(
            !allows(json!(["mtls.example.com:8443"]), url),
            "{url}: no cleartext where the issuer has TLS"
        );
    }
}

#[test]
fn requests_wait_by_the_limits_of_the_issuer_and_where_it_has_none_by_the_operators() {
    let url = "https://idp.example.com/t".parse().unwrap();
    let operators = Limits { in_flight: 64, per_second: 100 };
    for (limits, in_flight, per_second) in [
        (json!({}), 64, 100),
        (json!({"maxInFlight": 8}), 8, 100),
        (json!({"maxPerSecond": 5}), 64, 5),
        (json!({"maxInFlight": 1, "maxPerSecond": 1000}), 1, 1000),
    ] {
        let expected = Destination::of_group("idp", Limits { in_flight, per_second }, &url);
        let destination = issuer(json!({"limits": limits.clone()})).destination(&url, operators);
        assert_eq!(destination, expected, "{limits}");
    }
}
