//! Assertions that another program makes: sent as they are, unless their time is over.

use super::grants::{NOW, attempt, body};
use super::{TENANT, credentials, description};
use crate::limiter::{Limiter, Limits};
use crate::{
    Class, ClientAuthentication, Credential, Credentials, Error, ErrorKind, Grant, RequestDescription,
    RequestError, Tls,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

fn jwt(expires: i64) -> String {
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expires}}}"#)))
}

fn with(assertion: &str) -> Credentials {
    Credentials {
        client_id: None,
        assertion: Some(assertion.into()),
        client_assertion: Some(assertion.into()),
        ..credentials()
    }
}

fn grant() -> RequestDescription {
    RequestDescription {
        grant: Grant::Assertion,
        client_authentication: ClientAuthentication::None,
        ..description()
    }
}

fn client() -> RequestDescription {
    let assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe".to_owned();
    RequestDescription {
        client_authentication: ClientAuthentication::Assertion { assertion_type },
        ..description()
    }
}

#[test]
fn made_assertion_is_sent_as_grant_and_as_client_authentication() {
    let live = jwt(NOW + 1);
    let request = |description: RequestDescription, credentials: &Credentials| {
        body(&description.attempt(credentials, &attempt()).unwrap()).to_owned()
    };
    assert_eq!(
        request(grant(), &with(&live)),
        format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={live}")
    );
    let client_assertion = format!(
        "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-spiffe&client_assertion={live}"
    );
    assert_eq!(request(client(), &with(&live)), format!("grant_type=client_credentials&{client_assertion}"));
    let named = Credentials { client_id: Some("id".into()), ..with(&live) };
    assert_eq!(
        request(client(), &named),
        format!("grant_type=client_credentials&client_id=id&{client_assertion}")
    );
    // One that is no JWT is the endpoint's to judge.
    assert!(grant().attempt(&with("opaque"), &attempt()).is_ok());
}

#[test]
fn made_assertion_that_is_over_is_not_sent_and_tried_again_by_itself() {
    for description in [grant(), client()] {
        for (expires, ago) in [(NOW, 0), (NOW - 90, 90)] {
            let error = description.attempt(&with(&jwt(expires)), &attempt()).unwrap_err();
            assert_eq!(error, RequestError::ExpiredAssertion(ago));
            let error = Error::from(error);
            assert_eq!((error.class(), error.kind()), (Class::Transient, ErrorKind::UnusableCredential));
            assert!(error.to_string().contains("does what renews it still run"), "{error}");
        }
    }
    let missing = grant().attempt(&credentials(), &attempt()).unwrap_err();
    assert_eq!(missing, RequestError::Missing(Credential::Assertion));
}

#[test]
fn made_assertion_of_a_custom_grant_is_in_the_named_member_which_no_parameter_may_set() {
    let custom = |member: &str, parameter: &str| RequestDescription {
        grant: Grant::Custom { grant_type: "acme".into(), assertion: Some(member.into()) },
        client_authentication: ClientAuthentication::None,
        parameters: [(parameter.to_owned(), "1".to_owned())].into(),
        ..description()
    };
    let live = jwt(NOW + 1);
    let request = custom("jwt", "a").attempt(&with(&live), &attempt()).unwrap();
    assert_eq!(body(&request), format!("grant_type=acme&jwt={live}&a=1"));
    assert!(!format!("{request:?}").contains(&live));
    for wrong in [custom("Client_ID", "a"), custom("jwt", "JWT")] {
        assert!(matches!(wrong.attempt(&with(&live), &attempt()), Err(RequestError::Reserved(_))));
    }
    let over = custom("jwt", "a").attempt(&with(&jwt(NOW)), &attempt()).unwrap_err();
    assert_eq!(over, RequestError::ExpiredAssertion(0));
}

/// A rejected ServiceAccount must not hold up another one of its namespace.
#[test]
fn asserted_subject_identifies_the_client() {
    let limiter = Limiter::<u8>::new(Limits::default());
    let of_client = |subject: &str| Credentials {
        asserted: Some("the same".into()),
        client_asserted: Some(subject.into()),
        ..with(&jwt(NOW + 1))
    };
    let of_grant = |subject: &str| Credentials {
        asserted: Some(subject.into()),
        client_asserted: Some("the same".into()),
        ..with(&jwt(NOW + 1))
    };
    let identify = |description: &RequestDescription, credentials| {
        limiter.identity(TENANT, description, &credentials, &Tls::default()).all()[0]
    };
    assert_eq!(identify(&client(), of_client("a")), identify(&client(), of_client("a")));
    assert_ne!(identify(&client(), of_client("a")), identify(&client(), of_client("b")));
    assert_eq!(identify(&client(), of_grant("a")), identify(&client(), of_grant("b")), "one client");
    assert_ne!(identify(&grant(), of_grant("a")), identify(&grant(), of_grant("b")), "nothing else says who");
    assert_eq!(identify(&grant(), of_client("a")), identify(&grant(), of_client("b")), "it is not sent");
}

#[test]
fn asserted_subject_is_that_of_the_issuer_whatever_the_times() {
    let of = |claims: &str| {
        crate::asserted_subject(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims)))
    };
    let first = of(r#"{"iss":"https://a","sub":"me","exp":1}"#);
    assert_eq!(first.as_deref(), Some(r#""me" of "https://a""#));
    assert_eq!(first, of(r#"{"exp":2,"sub":"me","iss":"https://a"}"#));
    for other in
        [r#"{"iss":"https://b","sub":"me"}"#, r#"{"iss":"https://a","sub":"you"}"#, r#"{"sub":"me"}"#]
    {
        assert_ne!(first, of(other));
    }
    for nobody in [r#"{"iss":"https://a","exp":1}"#, "[]", ""] {
        assert_eq!(of(nobody), None);
    }
}

#[test]
fn made_assertion_identifies_no_credentials_and_is_redacted() {
    let limiter = Limiter::<u8>::new(Limits::default());
    let (first, second) = (with(&jwt(NOW + 1)), with(&jwt(NOW + 2)));
    assert_eq!(limiter.digest(&first), limiter.digest(&second), "a renewed one is no change");
    for description in [grant(), client()] {
        let identity = |credentials| limiter.identity(TENANT, &description, credentials, &Tls::default());
        assert_eq!(identity(&first), identity(&second));
    }
    assert!(first.are_told_in(&format!("is {} bad?", jwt(NOW + 1))));
    assert!(!format!("{first:?}").contains("c2ln"));
}
