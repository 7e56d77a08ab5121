use crate::{Egress, EgressRefused, Hint, Proxied, Proxies};

fn proxies(variables: &[(&str, &str)]) -> Proxies {
    Proxies::from_environment(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

fn proxy<'a>(proxies: &'a Proxies, url: &str) -> Option<&'a str> {
    proxies.proxy_for(&url.parse().unwrap()).map(url::Url::as_str)
}

#[test]
fn proxy_for_each_scheme_is_read_from_its_variable() {
    let both = proxies(&[("HTTPS_PROXY", "http://secure:3128"), ("http_proxy", "plain:8080")]);
    assert_eq!(proxy(&both, "https://idp.example.com/"), Some("http://secure:3128/"));
    assert_eq!(proxy(&both, "http://idp.example.com/"), Some("http://plain:8080/"));
    let one = proxies(&[("HTTPS_PROXY", "upper"), ("https_proxy", "lower"), ("HTTP_PROXY", " ")]);
    assert_eq!(proxy(&one, "https://idp.example.com/"), Some("http://lower/"));
    assert_eq!(proxy(&one, "http://idp.example.com/"), None);
    assert_eq!(proxy(&Proxies::default(), "https://idp.example.com/"), None);
}

#[test]
fn proxy_no_proxy_accepts_common_notations() {
    for (no_proxy, direct, proxied) in [
        ("*", &["https://a.example/", "https://10.0.0.1/"][..], &[][..]),
        (
            "example.com",
            &["https://example.com/", "https://a.b.EXAMPLE.com./"],
            &["https://notexample.com/", "https://example.org/"],
        ),
        (".example.com", &["https://a.example.com/"], &["https://example.com/", "https://aexample.com/"]),
        ("*.example.com", &["https://a.example.com/"], &["https://example.com/"]),
        ("a.example:8443", &["https://a.example:8443/"], &["https://a.example/"]),
        ("a.example:443", &["https://a.example/"], &["https://a.example:8443/"]),
        (
            "10.0.0.0/8,fd00::/8",
            &["https://10.1.2.3/", "https://[fd00::1]/"],
            &["https://11.0.0.1/", "https://ten.example/"],
        ),
        ("10.0.0.1", &["https://10.0.0.1:8443/", "https://167772161/"], &["https://10.0.0.2/"]),
        ("[::1]:8443", &["https://[::1]:8443/"], &["https://[::1]/"]),
        (
            " localhost, .svc , .cluster.local ",
            &["https://idp.ns.svc/", "https://localhost/", "https://x.cluster.local/"],
            &["https://svc.example/"],
        ),
        (",,a b", &["https://a/", "https://b/"], &["https://c/"]),
        ("", &[], &["https://a.example/"]),
    ] {
        let proxies = proxies(&[("https_proxy", "http://p:1"), ("NO_PROXY", no_proxy)]);
        for url in direct {
            assert_eq!(proxy(&proxies, url), None, "{no_proxy}: {url}");
        }
        for url in proxied {
            assert!(proxy(&proxies, url).is_some(), "{no_proxy}: {url}");
        }
    }
}

#[test]
fn proxy_invalid_url_error_shows_no_password() {
    for value in ["socks5://user:hunter2@p:1", "http://", "http://user:hunter2@:80", "ftp://hunter2"] {
        let error = Proxies::from_environment(|name| (name == "HTTPS_PROXY").then(|| value.to_owned()));
        let error = error.unwrap_err();
        assert!(error.to_string().starts_with("HTTPS_PROXY is no URL"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
    let with_password = proxies(&[("HTTPS_PROXY", "http://user:hunter2@p:1")]);
    assert!(!format!("{with_password:?}").contains("hunter2"));
}

#[test]
fn egress_proxied_name_must_be_public_or_listed() {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let check = |egress: &Egress, url: &str| egress.check_proxied(&url.parse().unwrap());
    let default = Egress::new(Vec::new(), None, false, Vec::new());
    assert_eq!(check(&default, "https://idp.example.com/"), Ok(()));
    for name in [
        "localhost",
        "api",
        "com",
        "api.default.svc",
        "x.cluster.local",
        "metadata.google.internal.",
        "vault.vault",
        "kubernetes.default",
        "router.lan",
        "intranet.corp",
        "printer.home.arpa",
        "hidden.onion",
        "idp.example",
    ] {
        let refused = check(&default, &format!("https://{name}/")).unwrap_err();
        assert!(matches!(refused, EgressRefused::ProxiedName { .. }), "{refused}");
        let rule = format!("{}:443", name.trim_end_matches('.')).parse().unwrap();
        assert_eq!(refused.hint(), Some(Hint::AllowEgress(rule)));
        let allowed = Egress::new(rules(&[name]), None, false, Vec::new());
        assert_eq!(check(&allowed, &format!("https://{name}/")), Ok(()), "{name}");
    }
    for address in [
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "127.0.0.1.",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "127.0.0.1..",
        "10.0.0.1..",
        "vault.internal..",
        "idp.example.com..",
    ] {
        assert!(check(&default, &format!("https://{address}/")).is_err(), "{address}");
    }
    for name in ["idp.example.com.", "idp.example.co.uk", "xn--bcher-kva.example.de", "idp.xn--p1ai", "b.dev"]
    {
        assert_eq!(check(&default, &format!("https://{name}/")), Ok(()), "{name}");
    }
    assert_eq!(check(&default, "http://idp.example.com/"), Err(EgressRefused::PlainHttp));

    // A rule for a network does not apply: only the proxy knows the address.
    let only = Egress::new(Vec::new(), Some(rules(&["idp.example.com", "0.0.0.0/0"])), false, Vec::new());
    assert_eq!(check(&only, "https://idp.example.com/"), Ok(()));
    assert!(matches!(check(&only, "https://other.example.com/"), Err(EgressRefused::NotListed { .. })));
}

#[test]
fn egress_proxied_listed_allows_listed_hosts_alone() {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let listed = |allow: &[&str], only: Option<&[&str]>| {
        Egress::new(rules(allow), only.map(rules), false, Vec::new()).with_proxied(Proxied::Listed)
    };
    let check =
        |egress: &Egress, host: &str| egress.check_proxied(&format!("https://{host}/").parse().unwrap());
    let egress = listed(&["idp.example.com", "192.0.9.0/24"], None);
    for host in ["idp.example.com", "IDP.example.com.", "192.0.9.1"] {
        assert_eq!(check(&egress, host), Ok(()), "{host}");
    }
    for (host, rule) in [("other.example.com", "other.example.com:443"), ("8.8.8.8", "8.8.8.8:443")] {
        let refused = check(&egress, host).unwrap_err();
        assert!(matches!(refused, EgressRefused::ProxiedUnlisted { .. }), "{refused:?}");
        assert_eq!(refused.hint(), Some(Hint::AllowEgress(rule.parse().unwrap())));
    }
    let egress = listed(&["other.example.com"], Some(&["idp.example.com"]));
    assert_eq!(check(&egress, "idp.example.com"), Ok(()));
    assert!(check(&egress, "other.example.com").is_err());
}
