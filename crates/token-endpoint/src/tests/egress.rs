use crate::{Egress, EgressNetwork, EgressRefused, EgressRule, Hint, Tls};
use std::net::IpAddr;

fn networks(texts: &[&str]) -> Vec<EgressNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn rules(texts: &[&str]) -> Vec<EgressRule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn policy(allow: &[&str]) -> Egress {
    Egress::new(rules(allow), None, false, vec!["10.96.0.1".parse().unwrap(), "203.0.114.9".parse().unwrap()])
}

fn only(only: &[&str], allow: &[&str]) -> Egress {
    Egress::new(rules(allow), Some(rules(only)), false, Vec::new())
}

fn check(egress: &Egress, ip: &str) -> Result<(), EgressRefused> {
    egress.check_address("idp.example.com", 443, ip.parse().unwrap())
}

fn check_url(egress: &Egress, url: &str) -> Result<(), EgressRefused> {
    egress.check_url(&url.parse().unwrap())
}

const PUBLIC: &[&str] = &[
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8", // what every public name has under DNS64
    "2002:808:808::1",
];

const PRIVATE: &[&str] = &[
    "10.0.0.0",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "fc00::1",
    "fdff:ffff::1",
    "fec0::1",
    "feff::1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "2002:a00:1::1",
];

const PROTECTED: &[&str] = &[
    "0.0.0.0",
    "0.255.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.0",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", // Teredo
    "2001:2::1",
    "2001:1ff::1",
    "2001:db8::1",
    "3fff::1",
    "4000::1",
    "64:ff9b:1::1",
    "5f00::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::127.0.0.1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "10.96.0.1",   // passed as protected
    "203.0.114.9", // passed as protected, and public
    "::ffff:10.96.0.1",
];

#[test]
fn egress_default_allows_public_addresses_only() {
    for ip in PUBLIC {
        assert_eq!(check(&policy(&[]), ip), Ok(()), "{ip}");
    }
    for ip in PRIVATE.iter().chain(PROTECTED) {
        assert!(check(&policy(&[]), ip).is_err(), "{ip}");
    }
}

#[test]
fn egress_host_rule_allows_private_but_not_protected_addresses() {
    for rule in ["idp.example.com", "idp.example.com:443", "IDP.Example.COM."] {
        for ip in PRIVATE.iter().chain(PUBLIC) {
            assert_eq!(check(&policy(&[rule]), ip), Ok(()), "{ip}");
        }
        for ip in PROTECTED {
            assert!(check(&policy(&[rule]), ip).is_err(), "{ip}");
        }
    }
    for rule in ["other.example.com", "idp.example.com:8443", "example.com"] {
        assert!(check(&policy(&[rule]), "10.0.0.1").is_err(), "{rule}");
    }
}

#[test]
fn egress_network_rule_allows_every_address_in_it() {
    for ip in PRIVATE.iter().chain(PROTECTED) {
        assert_eq!(check(&policy(&["0.0.0.0/0", "::/0"]), ip), Ok(()), "{ip}");
    }
    let egress = policy(&["127.0.0.1:8443", "[::1]:8443", "10.96.0.1/32"]);
    for (ip, port, allowed) in [
        ("127.0.0.1", 8443, true),
        ("127.0.0.1", 443, false),
        ("127.0.0.2", 8443, false),
        ("::1", 8443, true),
        ("::1", 443, false),
        ("::ffff:127.0.0.1", 8443, true), // it is the same host
        ("10.96.0.1", 6443, true),
        ("10.96.0.2", 6443, false),
    ] {
        let checked = egress.check_address("localhost", port, ip.parse().unwrap());
        assert_eq!(checked.is_ok(), allowed, "{ip} {port}");
    }
    // A rule for IPv6 addresses that embed IPv4 addresses does not allow the embedded ones.
    assert!(check(&policy(&["64:ff9b:1::/48", "2000::/3"]), "64:ff9b::127.0.0.1").is_err());
    assert!(check(&policy(&["2000::/3"]), "2002:7f00:1::").is_err());
}

#[test]
fn egress_only_denies_everything_not_listed() {
    let egress = only(&["idp.example.com:443", "198.20.0.0/16"], &["10.0.0.0/8"]);
    for (host, port, ip, allowed) in [
        ("idp.example.com", 443, "8.8.8.8", true),
        ("idp.example.com.", 443, "8.8.8.8", true),
        ("idp.example.com", 443, "10.0.0.1", true),
        ("idp.example.com", 443, "192.168.0.1", true), // named: it permits as allow does
        ("idp.example.com", 443, "127.0.0.1", false),
        ("idp.example.com", 8443, "8.8.8.8", false),
        ("other.example.com", 443, "8.8.8.8", false),
        ("other.example.com", 443, "198.20.1.1", true),
        ("other.example.com", 443, "10.0.0.1", false), // allowed, but not listed
    ] {
        let checked = egress.check_address(host, port, ip.parse().unwrap());
        assert_eq!(checked.is_ok(), allowed, "{host} {port} {ip}");
    }
    assert!(check_url(&egress, "https://other.example.com/").is_ok()); // its addresses are checked later
    assert!(check_url(&egress, "https://198.20.0.1/").is_ok());
    assert!(check_url(&egress, "https://8.8.8.8/").is_err());

    let hosts = only(&["idp.example.com"], &[]);
    assert!(check_url(&hosts, "https://IDP.example.com./").is_ok());
    let refused = check_url(&hosts, "https://other.example.com/").unwrap_err();
    assert!(refused.to_string().starts_with("other.example.com:443 is not among"), "{refused}");
    assert_eq!(refused.hint(), Some(Hint::AddToOnly("other.example.com:443".parse().unwrap())));
    assert!(only(&[], &[]).check_url(&"https://idp.example.com/".parse().unwrap()).is_err());
}

#[test]
fn egress_address_in_any_notation_is_checked() {
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "127.0.0.1.",
        "１２７.0.0.1",
        "169.254.169.254",
        "2852039166",
        "[fd00:ec2::254]",
        "10.0.0.1",
    ] {
        let refused = check_url(&policy(&["idp.example.com"]), &format!("https://{host}/token"));
        assert!(matches!(refused, Err(EgressRefused::Address { .. })), "{host}: {refused:?}");
    }
    assert_eq!(check_url(&policy(&[]), "https://8.8.8.8/token"), Ok(()));
    assert_eq!(check_url(&policy(&[]), "https://[2606:4700::1]/token"), Ok(()));
    assert_eq!(check_url(&policy(&["127.0.0.1"]), "https://2130706433:8443/token"), Ok(()));
}

#[test]
fn egress_scheme_other_than_https_is_refused() {
    assert_eq!(check_url(&policy(&[]), "https://idp.example.com/token"), Ok(()));
    assert_eq!(check_url(&policy(&[]), "http://idp.example.com/token"), Err(EgressRefused::PlainHttp));
    for url in ["ftp://idp.example.com/", "file:///etc/passwd", "data:text/plain,x"] {
        assert_eq!(check_url(&policy(&[]), url), Err(EgressRefused::Scheme), "{url}");
    }
    let http = Egress::new(Vec::new(), None, true, Vec::new());
    assert_eq!(check_url(&http, "http://idp.example.com/token"), Ok(()));
    assert!(check_url(&http, "http://127.0.0.1/token").is_err());
}

#[test]
fn egress_refusal_hints_at_rule_that_allows_it() {
    for (host, ip, message, rule) in [
        ("idp.corp", "10.1.2.3", "idp.corp resolves to 10.1.2.3, which is a private", "idp.corp:8443"),
        ("idp.corp", "127.0.0.1", "127.0.0.1, which is a loopback", "127.0.0.1:8443"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3 is a private", "10.1.2.3:8443"),
        ("::1", "::1", "::1 is a loopback", "[::1]:8443"),
        ("idp.corp", "64:ff9b::10.0.0.1", "is a private address (10.0.0.1)", "idp.corp:8443"),
        ("idp.corp", "64:ff9b::127.0.0.1", "is a loopback address (127.0.0.1)", "127.0.0.1:8443"),
        ("idp.corp", "10.96.0.1", "is a protected address", "10.96.0.1:8443"),
    ] {
        let ip: IpAddr = ip.parse().unwrap();
        let refused = policy(&[]).check_address(host, 8443, ip).unwrap_err();
        assert!(refused.to_string().contains(message), "{refused}");
        let allows: EgressRule = rule.parse().unwrap();
        assert_eq!(allows.to_string(), rule);
        let hint = match message.contains("protected") {
            true => Hint::AllowProtectedAddress(allows),
            false => Hint::AllowEgress(allows),
        };
        assert_eq!(refused.hint(), Some(hint));
        assert_eq!(policy(&[rule]).check_address(host, 8443, ip), Ok(()), "{rule}");
    }
    let http = check_url(&policy(&[]), "http://idp.example.com/token").unwrap_err();
    assert_eq!(http.hint(), Some(Hint::AllowHttp));
}

#[test]
fn egress_rule_parses_every_notation() {
    let host = |host: &str, port| EgressRule::Host { host: host.to_owned(), port, absolute: false };
    let absolute = |host: &str, port| EgressRule::Host { host: host.to_owned(), port, absolute: true };
    let network = |network: &str, port| EgressRule::Network { network: network.parse().unwrap(), port };
    for (text, rule) in [
        ("idp.example.com", host("idp.example.com", None)),
        ("idp.example.com:8443", host("idp.example.com", Some(8443))),
        ("IDP.Example.com.", absolute("idp.example.com", None)),
        ("idp.example.com.:8443", absolute("idp.example.com", Some(8443))),
        ("bücher.example", host("xn--bcher-kva.example", None)),
        ("localhost:80", host("localhost", Some(80))),
        ("10.0.0.0/8", network("10.0.0.0/8", None)),
        ("fd00::/8", network("fd00::/8", None)),
        ("10.1.2.3", network("10.1.2.3/32", None)),
        ("10.1.2.3:443", network("10.1.2.3/32", Some(443))),
        ("::1", network("::1/128", None)),
        ("[::1]", network("::1/128", None)),
        ("[fd00::1]:8443", network("fd00::1/128", Some(8443))),
        ("0.0.0.0/0", network("0.0.0.0/0", None)),
        ("::/0", network("::/0", None)),
    ] {
        assert_eq!(text.parse::<EgressRule>().as_ref(), Ok(&rule), "{text}");
        assert_eq!(rule.to_string().parse(), Ok(rule), "{text}");
    }
    for (text, problem) in [
        ("", "empty"),
        ("https://idp.example.com", "without a scheme"),
        ("idp.example.com/token", "network such as"),
        ("10.0.0.0/33", "network such as"),
        ("10.0.0.1/8", "bits set"),
        ("*.example.com", "wildcards"),
        ("idp.example.com:", "from 1 to 65535"),
        ("idp.example.com:https", "from 1 to 65535"),
        ("idp.example.com:0", "from 1 to 65535"),
        ("idp.example.com:65536", "from 1 to 65535"),
        ("[::1]:x", "from 1 to 65535"),
        ("fd00:::1", "[IPv6]:PORT"),
        ("fd00::g:443", "[IPv6]:PORT"),
        ("[::1", "neither a host name nor an address"),
        ("[fd00::g]", "neither a host name nor an address"),
        ("a b", "neither a host name nor an address"),
        (".", "neither a host name nor an address"),
        ("idp..example.com", "two dots in a row"),
        ("idp.example.com..", "two dots in a row"),
        ("::ffff:10.0.0.1", "IPv4 network"),
        ("64:ff9b::/96", "IPv4 network"),
    ] {
        let error = text.parse::<EgressRule>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn egress_denied_network_is_refused_whatever_allows_it() {
    let deny = networks(&["34.118.224.0/20", "2a00:1450::/32", "10.1.0.0/16", "9.9.9.9"]);
    let everything = ["0.0.0.0/0", "::/0", "idp.example.com"];
    for egress in [policy(&[]), policy(&everything), only(&everything, &everything)] {
        let egress = egress.with_denied(deny.clone());
        for ip in [
            "34.118.224.0",
            "34.118.239.255",
            "::ffff:34.118.230.1",
            "64:ff9b::34.118.230.1",
            "2a00:1450::1",
            "10.1.2.3",
            "9.9.9.9",
        ] {
            let refused = check(&egress, ip).unwrap_err();
            assert!(refused.to_string().contains("is an address of a denied network"), "{refused}");
            assert!(matches!(refused.hint(), Some(Hint::RemoveDenial(_))), "{refused:?}");
        }
        assert!(check_url(&egress, "https://34.118.230.1/token").is_err());
        for ip in ["34.118.240.0", "8.8.8.8"] {
            assert_eq!(check(&egress, ip), Ok(()), "{ip}");
        }
    }
    for (text, problem) in [
        ("", "network such as"),
        ("idp.example.com", "network such as"),
        ("10.0.0.0/33", "network such as"),
        ("10.0.0.1/8", "bits set"),
        ("64:ff9b::/96", "IPv4 network"),
    ] {
        let error = text.parse::<EgressNetwork>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn egress_internal_network_is_refused_unless_listed() {
    let internal = || networks(&["34.118.224.0/20", "2a00:1450::/112"]);
    let egress = policy(&[]);
    assert_eq!(check(&egress, "34.118.230.1"), Ok(()), "not known yet");
    egress.clone().set_internal(internal());
    for ip in ["34.118.230.1", "::ffff:34.118.230.1", "2a00:1450::1"] {
        let refused = check(&egress, ip).unwrap_err();
        assert!(refused.to_string().contains("is an address of an internal network"), "{refused}");
        assert_eq!(refused.hint(), Some(Hint::AllowEgress("idp.example.com:443".parse().unwrap())));
    }
    assert!(check_url(&egress, "https://34.118.230.1/token").is_err());
    assert_eq!(check(&egress, "34.118.240.1"), Ok(()));
    for egress in [policy(&["idp.example.com"]), policy(&["34.118.230.1"]), only(&["idp.example.com"], &[])] {
        egress.set_internal(internal());
        assert_eq!(check(&egress, "34.118.230.1"), Ok(()));
    }
    egress.set_internal(Vec::new());
    assert_eq!(check(&egress, "34.118.230.1"), Ok(()));
}

#[test]
fn egress_address_that_resolvers_hand_out_needs_its_network() {
    for (ip, network) in [
        ("198.18.0.37", "198.18.0.0/15"),
        ("198.19.255.255", "198.18.0.0/15"),
        ("240.240.0.12", "240.240.0.0/16"),
        ("241.0.0.1", "240.0.0.0/4"),
        ("2001:2::1f", "2001:2::/48"),
    ] {
        // Allowed, and refused nevertheless.
        let refused = check(&policy(&["idp.example.com"]), ip).unwrap_err();
        let hint = refused.hint().unwrap();
        assert_eq!(hint, Hint::AllowNetwork(network.parse().unwrap()), "{ip}");
        let text = hint.to_string();
        assert!(text.contains(network) && !text.contains(ip), "{text}");
        assert_eq!(check(&policy(&[network]), ip), Ok(()), "{ip}");
    }
}

#[test]
fn egress_name_with_empty_label_is_refused() {
    let egress = policy(&["vault.internal", "0.0.0.0/0"]);
    for host in ["vault.internal..", "127.0.0.1..", "idp..example.com", ".idp.example.com"] {
        let refused = check_url(&egress, &format!("https://{host}/token")).unwrap_err();
        assert!(matches!(refused, EgressRefused::EmptyLabel { .. }), "{refused:?}");
        assert!(refused.to_string().starts_with(host), "{refused}");
    }
}

#[test]
fn egress_name_is_looked_up_as_absolute_unless_listed_without_dot() {
    let egress = policy(&["keycloak.auth.svc", "idp.corp:8443", "idp.example.com.", "10.0.0.0/8"]);
    for (host, port, looked_up) in [
        ("idp.example.org", 443, "idp.example.org."),
        ("idp.example.org.", 443, "idp.example.org."),
        ("vault", 443, "vault."),
        ("idp.example.com", 443, "idp.example.com."), // listed with a dot
        ("keycloak.auth.svc", 443, "keycloak.auth.svc"),
        ("keycloak.auth.svc.", 443, "keycloak.auth.svc."),
        ("idp.corp", 8443, "idp.corp"),
        ("idp.corp", 443, "idp.corp."),
        ("localhost", 443, "localhost"),
    ] {
        assert_eq!(egress.lookup_name(host, port), looked_up, "{host}:{port}");
    }
    let egress = only(&["keycloak.auth.svc"], &[]);
    assert_eq!(egress.lookup_name("keycloak.auth.svc", 443), "keycloak.auth.svc");
}

#[test]
fn egress_custom_roots_are_refused_by_choice() {
    assert_eq!(policy(&[]).check_roots(true), Ok(()));
    let strict = only(&["idp.example.com"], &[]).without_custom_roots();
    assert_eq!(strict.check_roots(Tls::default().has_custom_roots()), Ok(()));
    let refused = strict.check_roots(true).unwrap_err();
    assert_eq!(refused.hint(), Some(Hint::UseSystemRoots));
}

#[test]
fn egress_of_a_trusted_endpoint_allows_private_addresses_by_choice_and_never_protected_ones() {
    let policy = policy(&[]).with_denied(networks(&["10.9.0.0/16"])).without_custom_roots();
    policy.set_internal(networks(&["34.118.224.0/20"]));
    let (public, private) = (policy.for_trusted(false), policy.for_trusted(true));
    for ip in PUBLIC {
        assert_eq!((check(&public, ip), check(&private, ip)), (Ok(()), Ok(())), "{ip}");
    }
    for ip in PRIVATE.iter().chain(&["34.118.225.1"]) {
        assert!(check(&public, ip).is_err(), "{ip}");
        assert_eq!(check(&private, ip), Ok(()), "{ip}");
        assert!(check(&policy, ip).is_err(), "{ip}: others are judged as before");
    }
    // Link-local addresses, metadata services, the API server, and what is denied.
    for ip in
        PROTECTED.iter().chain(&["10.96.0.1", "203.0.114.9", "10.9.1.1", "169.254.169.254", "fd00:ec2::254"])
    {
        assert!(check(&private, ip).is_err(), "{ip}");
    }
    assert!(policy.check_roots(true).is_err() && private.check_roots(true).is_ok());
    let listed = only(&["idp.example.com"], &[]).for_trusted(true);
    assert!(listed.check_address("other.example.com", 443, "10.0.0.1".parse().unwrap()).is_err());
    let proxied = |egress: &Egress| egress.check_proxied(&"https://idp.corp/t".parse().unwrap());
    assert!(proxied(&public).is_err() && proxied(&private).is_ok());
}
