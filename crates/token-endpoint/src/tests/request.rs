use super::{SECRET, credentials, description, request};
use crate::{
    BasicEncoding, ClientAuthentication, Credential, Credentials, Encoding, Grant, RESERVED,
    RequestDescription, RequestError, TokenRequest, is_reserved,
};
use secrecy::ExposeSecret;

fn body(request: &TokenRequest) -> &str {
    request.body().expose_secret()
}

fn header<'a>(request: &'a TokenRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap())
}

fn client(id: &str, secret: &str) -> Credentials {
    Credentials { client_id: Some(id.into()), client_secret: Some(secret.into()), ..Credentials::default() }
}

#[test]
fn request_post_sends_client_in_form() {
    let description =
        RequestDescription { client_authentication: ClientAuthentication::Post, ..description() };
    let request = description.request(&client("ACabc123-vault-rNh0v", "45d7-99+/=")).unwrap();

    assert_eq!(
        body(&request),
        "grant_type=client_credentials&client_id=ACabc123-vault-rNh0v&client_secret=45d7-99%2B%2F%3D"
    );
    assert_eq!(header(&request, "content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(header(&request, "accept"), Some("application/json"));
    assert_eq!(header(&request, "authorization"), None);
    assert_eq!(request.headers().len(), 2);
    assert_eq!(request.url().as_str(), "https://idp.example.com/oauth/token");
    assert!(!request.spends_credential());
}

#[test]
fn request_json_with_raw_basic_has_expected_bytes() {
    let description = RequestDescription {
        client_authentication: ClientAuthentication::Basic(BasicEncoding::Raw),
        encoding: Encoding::Json,
        scopes: vec!["email".into()],
        ..description()
    };
    let request = description.request(&client("id", "a+b/c")).unwrap();

    assert_eq!(body(&request), r#"{"grant_type":"client_credentials","scope":"email"}"#);
    assert_eq!(header(&request, "content-type"), Some("application/json"));
    assert_eq!(header(&request, "authorization"), Some("Basic aWQ6YStiL2M=")); // id:a+b/c
}

#[test]
fn request_without_client_sends_refresh_token_only() {
    let description = RequestDescription {
        grant: Grant::RefreshToken,
        client_authentication: ClientAuthentication::None,
        ..description()
    };
    let credentials = Credentials { refresh_token: Some("aPi+token".into()), ..Credentials::default() };
    let request = description.request(&credentials).unwrap();

    assert_eq!(body(&request), "grant_type=refresh_token&refresh_token=aPi%2Btoken");
    assert_eq!(header(&request, "authorization"), None);
    assert!(request.spends_credential());
}

#[test]
fn request_public_client_sends_client_id() {
    let description = RequestDescription {
        grant: Grant::RefreshToken,
        client_authentication: ClientAuthentication::None,
        ..description()
    };
    let request = description.request(&credentials()).unwrap();
    assert_eq!(
        body(&request),
        "grant_type=refresh_token&refresh_token=Zq5rNfLk2YbWtVx8&client_id=the-client-id"
    );
}

#[test]
fn request_basic_equals_example_of_rfc_6749() {
    let request = description().request(&client("s6BhdRkqt3", "gX1fBat3bV")).unwrap();
    assert_eq!(header(&request, "authorization"), Some("Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"));
    assert!(request.headers()["authorization"].is_sensitive());
}

#[test]
fn request_basic_percent_encodes_all_but_unreserved_characters() {
    let cases = [
        // id, secret, what Percent sends, whether it differs from what Raw sends
        ("AZaz09-._~", "plain", "AZaz09-._~:plain", false),
        ("a:b", "c d", "a%3Ab:c%20d", true),
        ("id", "%20+*'()!", "id:%2520%2B%2A%27%28%29%21", true),
        ("id", "pässword", "id:p%C3%A4ssword", true),
    ];
    for (id, secret, sent, differs) in cases {
        let request = description().request(&client(id, secret)).unwrap();
        let expected = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, sent);
        assert_eq!(header(&request, "authorization"), Some(format!("Basic {expected}").as_str()), "{sent}");
        assert_eq!(request.encoded_differs(), differs, "{sent}");
    }
}

#[test]
fn request_members_have_fixed_order() {
    let description = RequestDescription {
        grant: Grant::RefreshToken,
        client_authentication: ClientAuthentication::Post,
        scopes: vec!["read".into(), "cards:write".into()],
        parameters: [("organization", "acme & co"), ("api", "ü\"")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..description()
    };
    let form = description.request(&credentials()).unwrap();
    assert_eq!(
        body(&form),
        "grant_type=refresh_token&refresh_token=Zq5rNfLk2YbWtVx8&client_id=the-client-id\
         &client_secret=correct%20horse%2Fbattery%2Bstaple&scope=read%20cards%3Awrite\
         &api=%C3%BC%22&organization=acme%20%26%20co"
    );
    let json =
        RequestDescription { encoding: Encoding::Json, ..description }.request(&credentials()).unwrap();
    assert_eq!(
        body(&json),
        r#"{"grant_type":"refresh_token","refresh_token":"Zq5rNfLk2YbWtVx8","client_id":"the-client-id","client_secret":"correct horse/battery+staple","scope":"read cards:write","api":"ü\"","organization":"acme & co"}"#
    );
}

#[test]
fn request_missing_or_empty_credential_is_named() {
    let empty = Credentials {
        client_id: Some(String::new()),
        client_secret: Some("".into()),
        refresh_token: Some("".into()),
        ..Credentials::default()
    };
    let no_secret = Credentials { client_id: Some("id".into()), ..empty.clone() };
    let post = RequestDescription { client_authentication: ClientAuthentication::Post, ..description() };
    let refresh = RequestDescription { grant: Grant::RefreshToken, ..description() };
    for (description, credentials, missing) in [
        (description(), Credentials::default(), Credential::ClientId),
        (description(), empty.clone(), Credential::ClientId),
        (description(), no_secret.clone(), Credential::ClientSecret),
        (post.clone(), empty.clone(), Credential::ClientId),
        (post, no_secret, Credential::ClientSecret),
        (refresh, empty, Credential::RefreshToken),
    ] {
        let error = description.request(&credentials).unwrap_err();
        assert_eq!(error, RequestError::Missing(missing));
        assert!(error.to_string().contains(&missing.to_string()), "{error}");
    }
}

#[test]
fn request_colon_in_raw_basic_or_user_in_url_is_refused() {
    let raw = RequestDescription {
        client_authentication: ClientAuthentication::Basic(BasicEncoding::Raw),
        ..description()
    };
    assert_eq!(raw.request(&client("a:b", "c")).unwrap_err(), RequestError::ColonInClientId);

    let url = "https://user@idp.example.com/token".parse().unwrap();
    let with_user = RequestDescription { token_url: url, ..description() };
    assert_eq!(with_user.request(&credentials()).unwrap_err(), RequestError::UserInfoInUrl);
}

#[test]
fn request_reserved_parameter_in_any_case_is_refused() {
    for name in RESERVED.iter().map(|name| (*name).to_owned()).chain(["Client_Secret".to_owned()]) {
        assert!(is_reserved(&name));
        let parameters = [(name.clone(), "x".to_owned())].into();
        let description = RequestDescription { parameters, ..description() };
        assert_eq!(description.request(&credentials()).unwrap_err(), RequestError::Reserved(name));
    }
    assert!(!is_reserved("organization"));
    assert!(RESERVED.is_sorted());
}

#[test]
fn request_debug_prints_no_secret() {
    let url = "https://idp.example.com/token?key=query-secret".parse().unwrap();
    let description = RequestDescription {
        token_url: url,
        client_authentication: ClientAuthentication::Post,
        ..description()
    };
    let printed = format!("{:?} {:?}", credentials(), description.request(&credentials()).unwrap());
    for secret in [super::ID, super::SECRET, super::REFRESH, "query-secret", "horse"] {
        assert!(!printed.contains(secret), "{printed}");
    }
    assert!(!format!("{:?}", request()).contains("Basic"));
}

#[test]
fn request_redacts_a_credential_as_it_was_stored_and_as_it_is_sent() {
    let mut credentials = credentials();
    credentials.stored.insert(Credential::ClientSecret, format!("\u{feff}{SECRET}\u{a0}").into());
    let request = description().request(&credentials).unwrap();
    for echo in [format!("\u{feff}{SECRET}\u{a0}"), SECRET.to_owned()] {
        assert_eq!(request.sent().clean(&format!("no '{echo}' here")).unwrap(), "no '[redacted]' here");
        assert!(credentials.are_told_in(&echo));
    }
}
