use super::*;
use crate::providers::describe;
use secrecy::ExposeSecret;
use serde_json::json;
use tokensource_api::SecretReference;

fn data(values: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    values.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
}

fn request(provider: serde_json::Value) -> Description {
    let spec = json!({"provider": provider, "credentials": {"secretRef": {"name": "idp"}}});
    describe(&serde_json::from_value(spec).unwrap()).unwrap()
}

fn spec() -> api::Credentials {
    api::Credentials { secret_ref: Some(SecretReference { name: "idp".into() }), ..Default::default() }
}

fn read(values: &[(&str, &str)]) -> Result<ReadCredentials, CredentialsError> {
    read_credentials(&spec(), &request(json!({"vgs": {}})), Some("Opaque"), &data(values))
}

#[test]
fn read_credentials_uses_default_keys_of_the_provider() {
    let resolved = read(&[("client_id", "id"), ("client_secret", "s3"), ("other", "x")]).unwrap();
    assert_eq!(resolved.credentials.client_id.as_deref(), Some("id"));
    assert_eq!(resolved.credentials.client_secret.unwrap().expose_secret(), "s3");
    assert!(resolved.credentials.refresh_token.is_none() && resolved.remarks.is_empty());

    let vcd = request(json!({"vmwareCloudDirector": {"host": "vcd.example.com", "tenant": "acme"}}));
    let all = data(&[("client_id", "id"), ("client_secret", "s3"), ("refresh_token", "r")]);
    let resolved = read_credentials(&spec(), &vcd, None, &all).unwrap().credentials;
    assert!(resolved.client_id.is_none() && resolved.client_secret.is_none());
    assert_eq!(resolved.refresh_token.unwrap().expose_secret(), "r");
    assert!(needs_only_refresh_token(&spec(), &vcd));
    assert!(!needs_only_refresh_token(&spec(), &request(json!({"vgs": {}}))));
}

#[test]
fn read_credentials_removes_a_trailing_newline_and_remarks_it() {
    for ending in ["\n", "\r\n", "\n\n"] {
        let resolved = read(&[("client_id", "id"), ("client_secret", &format!("s3{ending}"))]).unwrap();
        assert_eq!(resolved.credentials.client_secret.unwrap().expose_secret(), "s3");
        assert_eq!(
            resolved.remarks,
            ["key client_secret of Secret idp ends in a newline, which was left out"]
        );
    }
}

#[test]
fn credentials_errors_name_secret_key_and_remedy_and_no_value() {
    let many = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1"), ("f", "1")];
    for (values, reason, message) in [
        (
            &[("client_id", "id")][..],
            Reason::CredentialsNotFound,
            "Secret idp has no key client_secret (it has client_id): add it, or write the right key in spec.credentials.clientSecretKey",
        ),
        (
            &[],
            Reason::CredentialsNotFound,
            "Secret idp has no key client_id and is empty: add it, or write the right key in spec.credentials.clientIDKey",
        ),
        (
            &many,
            Reason::CredentialsNotFound,
            "Secret idp has no key client_id (it has a, b, c, d, e, ...): add it, or write the right key in spec.credentials.clientIDKey",
        ),
        (
            &[("client_id", "id"), ("client_secret", "\n")],
            Reason::CredentialsInvalid,
            "key client_secret of Secret idp is empty: write the client secret into it",
        ),
        (
            &[("client_id", ""), ("client_secret", "s3")],
            Reason::CredentialsInvalid,
            "key client_id of Secret idp is empty: write the client id into it",
        ),
        (
            &[("client_id", "id"), ("client_secret", "s3\ns4")],
            Reason::CredentialsInvalid,
            "key client_secret of Secret idp has several lines: write the client secret alone into it",
        ),
        (
            &[("client_id", "id"), ("client_secret", "s\u{0}3")],
            Reason::CredentialsInvalid,
            "key client_secret of Secret idp has a control character in it: write the client secret alone into it",
        ),
    ] {
        let error = read(values).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(error.reason(), reason);
    }
    let binary = BTreeMap::from([("client_id".to_owned(), ByteString(vec![0xff, 0xff]))]);
    let error = read_credentials(&spec(), &request(json!({"vgs": {}})), None, &binary).unwrap_err();
    assert_eq!(
        error.to_string(),
        "key client_id of Secret idp is not text (UTF-8): write the client id alone into it"
    );
}

#[test]
fn read_credentials_refuses_a_long_value_and_names_field_and_bound() {
    let long = "\"".repeat(1_000_000);
    let error = read(&[("client_id", "id"), ("client_secret", &long)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "key client_secret of Secret idp has 1000000 bytes, and a client secret may have at most 32768: write the client secret alone into it, or the right key in spec.credentials.clientSecretKey"
    );
    assert_eq!(error.reason(), Reason::CredentialsInvalid);
    let named: BTreeMap<String, String> =
        (0..32).map(|n| (format!("p{n}"), "client_id".to_owned())).collect();
    let provider = json!({"oauth2": {"tokenURL": "https://idp.example.com/", "secretParameters": named, "clientAuthentication": {"none": {}}}});
    let error =
        read_credentials(&spec(), &request(provider), None, &data(&[("client_id", &long)])).unwrap_err();
    assert!(
        error.to_string().ends_with("or the right key in spec.provider.oauth2.secretParameters"),
        "{error}"
    );
    let read = |id: usize| read(&[("client_id", &"i".repeat(id)), ("client_secret", &"s".repeat(30_000))]);
    assert!(read(19_152).is_ok());
    assert_eq!(
        read(19_153).unwrap_err().to_string(),
        "the keys of Secret idp that are used have more than 49152 bytes together: use fewer, or shorter ones"
    );
}

#[test]
fn read_credentials_refuses_secrets_of_the_cluster() {
    for refused in REFUSED_TYPES {
        let values = data(&[("client_id", "id"), ("client_secret", "s3")]);
        let error =
            read_credentials(&spec(), &request(json!({"vgs": {}})), Some(refused), &values).unwrap_err();
        assert!(error.to_string().contains(refused));
        assert_eq!(error.reason(), Reason::CredentialsInvalid);
    }
}

#[test]
fn read_credentials_of_a_service_account_replaces_id_and_secret() {
    let spec = api::Credentials { vgs_service_account_key: Some("credentials.yaml".into()), ..spec() };
    let vgs = request(json!({"vgs": {}}));
    let yaml = "kind: ServiceAccount\ndata: {clientId: id, clientSecret: s3}\n";
    let resolved =
        read_credentials(&spec, &vgs, None, &data(&[("credentials.yaml", yaml)])).unwrap().credentials;
    assert_eq!(resolved.client_id.as_deref(), Some("id"));
    let template = data(&[("credentials.yaml", "kind: ServiceAccount\ndata: {name: x}\n")]);
    assert_eq!(
        read_credentials(&spec, &vgs, None, &template).unwrap_err().to_string(),
        "key credentials.yaml of Secret idp is the template of a service account, without clientId: apply it with `vgs apply service-account -f FILE`, and store what that prints"
    );
}

#[test]
fn secret_not_found_names_the_keys_to_create() {
    let error = CredentialsError::secret_not_found(&spec(), &request(json!({"vgs": {}})));
    assert_eq!(
        error.to_string(),
        "Secret idp does not exist: create it in this namespace, with the keys client_id, client_secret"
    );
}

#[test]
fn read_credentials_of_secret_parameters_and_headers_uses_their_keys() {
    let oauth2 = request(json!({"oauth2": {
        "tokenURL": "https://idp.example.com/t",
        "clientAuthentication": {"none": {}},
        "secretParameters": {"apikey": "api_key"},
        "secretHeaders": {"X-Api-Key": "api_key", "X-Other": "other"},
    }}));
    let read = |values: &[(&str, &str)]| read_credentials(&spec(), &oauth2, None, &data(values));
    let resolved = read(&[("api_key", "k\n"), ("other", "o")]).unwrap();
    assert_eq!(resolved.credentials.values["api_key"].expose_secret(), "k");
    assert_eq!(
        read(&[("api_key", "k")]).unwrap_err().to_string(),
        "Secret idp has no key other (it has api_key): add it, or write the right key in spec.provider.oauth2.secretHeaders"
    );
    assert_eq!(
        CredentialsError::secret_not_found(&spec(), &oauth2).to_string(),
        "Secret idp does not exist: create it in this namespace, with the keys api_key, other"
    );
}

#[test]
fn wanted_keys_of_assertions_and_token_exchange() {
    let keys = |oauth2: serde_json::Value| {
        let mut provider = json!({"tokenURL": "https://idp.example.com/t"});
        provider.as_object_mut().unwrap().extend(oauth2.as_object().unwrap().clone());
        let description = request(json!({"oauth2": provider}));
        let spec = spec();
        wanted_keys(&spec, &description)
            .into_iter()
            .map(|key| format!("{}{}", key.name, if key.required { "" } else { "?" }))
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(json!({"grant": {"jwtBearer": {}}})), ["client_id?", "private_key.pem"]);
    assert_eq!(keys(json!({"grant": {"jwtBearer": {"issuer": "i"}}})), ["private_key.pem"]);
    assert_eq!(
        keys(json!({"clientAuthentication": {"privateKeyJWT": {"certificateKey": "tls.crt"}}})),
        ["client_id", "private_key.pem", "tls.crt"]
    );
    assert_eq!(
        keys(
            json!({"grant": {"tokenExchange": {"subjectTokenType": "t", "actorTokenKey": "actor", "actorTokenType": "t"}}})
        ),
        ["client_id", "client_secret", "subject_token", "actor"]
    );
}

#[test]
fn wanted_keys_of_made_assertions_and_github_apps() {
    let keys = |provider: serde_json::Value, spec: &api::Credentials| {
        let description = request(provider);
        let keys = wanted_keys(spec, &description);
        let names: Vec<_> =
            keys.iter().map(|key| format!("{}{}", key.name, if key.required { "" } else { "?" })).collect();
        (names.join(" "), needs_only_assertions(spec, &description))
    };
    let oauth2 = |more: serde_json::Value| {
        let mut provider = json!({"tokenURL": "https://idp.example.com/t"});
        provider.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"oauth2": provider})
    };
    let assertion = || json!({"assertion": {"from": "secretKey"}});
    let client = json!({"clientAuthentication": {"assertion": {"from": "secretKey", "key": "svid"}}});
    let named = api::Credentials { client_id_key: Some("id".into()), ..spec() };
    let plain = api::Credentials { client_id: Some("id".into()), ..spec() };
    let text = |text: &str, only| (text.to_owned(), only);
    assert_eq!(keys(oauth2(client.clone()), &spec()), text("svid", true));
    assert_eq!(keys(oauth2(client.clone()), &plain), text("svid", true));
    assert_eq!(keys(oauth2(client), &named), text("id svid", false));
    assert_eq!(keys(oauth2(json!({"grant": assertion()})), &spec()), text("assertion", true));
    let post = json!({"grant": assertion(), "clientAuthentication": {"post": {}}});
    assert_eq!(keys(oauth2(post), &spec()), text("client_id client_secret assertion", false));
    let github = json!({"gitHubApp": {"installationID": 1}});
    assert_eq!(keys(github.clone(), &spec()), text("client_id private_key.pem", false));
    assert_eq!(keys(github, &plain), text("private_key.pem", false));
    assert_eq!(
        keys(json!({"oauth2": {"tokenURL": "https://a/t", "clientAuthentication": {"none": {}}}}), &spec()),
        text("", false)
    );
}

/// A rejected subject must not hold up another one of its namespace.
#[test]
fn read_credentials_of_a_ready_made_assertion_say_whose_it_is() {
    let made = json!({"assertion": {"from": "secretKey"}});
    let both = json!({"oauth2": {
        "tokenURL": "https://idp.example.com/t", "grant": made, "clientAuthentication": made,
    }});
    let asserted = |assertion: &str| {
        let data = data(&[("assertion", assertion), ("client_assertion", "PHNhbWw+")]);
        let read = read_credentials(&spec(), &request(both.clone()), None, &data).unwrap().credentials;
        assert_eq!(read.client_asserted.as_deref(), Some("key client_assertion of Secret idp"));
        read.asserted.unwrap()
    };
    // {"iss":"a","sub":"b","exp":1}, and another exp.
    let (first, renewed) = (
        "e30.eyJpc3MiOiJhIiwic3ViIjoiYiIsImV4cCI6MX0.c2ln",
        "e30.eyJpc3MiOiJhIiwic3ViIjoiYiIsImV4cCI6Mn0.c2ln",
    );
    assert_eq!(asserted(first), r#""b" of "a""#);
    assert_eq!(asserted(first), asserted(renewed));
    assert_eq!(asserted("PHNhbWw+"), "key assertion of Secret idp");
}

#[test]
fn read_credentials_keeps_the_lines_of_a_private_key() {
    let signed = request(json!({"oauth2": {"tokenURL": "https://a/t", "grant": {"jwtBearer": {}}}}));
    let pem = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let read = |pem| read_credentials(&spec(), &signed, None, &data(&[("private_key.pem", pem)]));
    let resolved = read(pem).unwrap();
    assert_eq!(resolved.credentials.private_key.unwrap().expose_secret(), pem);
    assert!(resolved.remarks.is_empty() && resolved.credentials.client_id.is_none());
    assert_eq!(
        read("\n").unwrap_err().to_string(),
        "key private_key.pem of Secret idp is empty: write the private key into it"
    );
}

#[test]
fn read_credentials_cuts_what_no_credential_has_and_keeps_the_stored_form() {
    let utf16 = |text: &str| {
        let units = text.encode_utf16().flat_map(u16::to_le_bytes);
        ByteString([0xff, 0xfe].into_iter().chain(units).collect())
    };
    let plain = |text: &str| ByteString(text.as_bytes().to_vec());
    for (stored, remarks, kept) in [
        (plain("s3\n"), &["ends in a newline, which was left out"][..], None),
        (plain("\u{feff}s3"), &["begins with a byte order mark, which was left out"], Some("\u{feff}s3")),
        (
            plain("\u{feff}s3\u{a0}\r\n"),
            &[
                "begins with a byte order mark and ends in characters that are not printable ASCII, which were left out",
            ],
            Some("\u{feff}s3\u{a0}"),
        ),
        (
            utf16("s3\r\n"),
            &[
                "is in UTF-16, as `>` of Windows PowerShell writes it, and was read so",
                "ends in a newline, which was left out",
            ],
            None,
        ),
    ] {
        let data = BTreeMap::from([
            ("client_id".to_owned(), plain("id")),
            ("client_secret".to_owned(), stored.clone()),
            ("refresh_token".to_owned(), stored),
        ]);
        let oauth2 = json!({"oauth2": {"tokenURL": "https://a/t", "grant": {"refreshToken": {}}}});
        let read = read_credentials(&spec(), &request(oauth2), None, &data).unwrap();
        let credentials = read.credentials;
        assert_eq!(credentials.client_secret.as_ref().unwrap().expose_secret(), "s3");
        assert_eq!(credentials.refresh_token.as_ref().unwrap().expose_secret(), "s3");
        let of = |key: &str| {
            remarks.iter().map(move |it| format!("key {key} of Secret idp {it}")).collect::<Vec<_>>()
        };
        assert_eq!(read.remarks, [of("client_secret"), of("refresh_token")].concat());
        assert!(read.doubts.is_empty());
        // Digests are of the form that earlier builds read.
        let stored = credentials.stored.get(&Credential::RefreshToken);
        assert_eq!(stored.map(|it| it.expose_secret()), kept);
    }
}

#[test]
fn read_credentials_doubts_what_may_be_right_and_leaves_it() {
    let read = read(&[("client_id", " id"), ("client_secret", "\"s3\"")]).unwrap();
    assert_eq!(read.credentials.client_id.as_deref(), Some(" id"));
    assert_eq!(read.credentials.client_secret.unwrap().expose_secret(), "\"s3\"");
    assert_eq!(
        read.doubts,
        [
            "key client_id of Secret idp begins or ends in a space: is that a part of the client id?",
            "key client_secret of Secret idp is in quotes: are they a part of the client secret?",
        ]
    );
    assert!(read.remarks.is_empty());
}

#[test]
fn read_credentials_cuts_no_secret_parameter() {
    let oauth2 = request(json!({"oauth2": {
        "tokenURL": "https://idp.example.com/t",
        "clientAuthentication": {"none": {}},
        "secretParameters": {"password": "password"},
    }}));
    let read = read_credentials(&spec(), &oauth2, None, &data(&[("password", "\u{feff}p\u{a0}\n")])).unwrap();
    assert_eq!(read.credentials.values["password"].expose_secret(), "\u{feff}p\u{a0}");
    assert_eq!(read.remarks, ["key password of Secret idp ends in a newline, which was left out"]);
    assert_eq!(
        read.doubts,
        ["key password of Secret idp begins or ends in a space: is that a part of the value?"]
    );
}

#[test]
fn read_credentials_reads_a_service_account_as_powershell_writes_it() {
    let spec = api::Credentials { vgs_service_account_key: Some("credentials.yaml".into()), ..spec() };
    let yaml = "kind: ServiceAccount\r\ndata:\r\n  clientId: id\r\n  clientSecret: s3\r\n";
    let units = yaml.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16 = ByteString([0xff, 0xfe].into_iter().chain(units).collect());
    for (bytes, remarks) in [(utf16, 1), (ByteString(format!("\u{feff}{yaml}").into_bytes()), 0)] {
        let data = BTreeMap::from([("credentials.yaml".to_owned(), bytes)]);
        let read = read_credentials(&spec, &request(json!({"vgs": {}})), None, &data).unwrap();
        assert_eq!(read.credentials.client_id.as_deref(), Some("id"));
        assert_eq!(read.credentials.client_secret.unwrap().expose_secret(), "s3");
        assert_eq!(read.remarks.len(), remarks);
    }
}
