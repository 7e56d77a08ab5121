//! Which requests are held back by the answer to another one.

use super::*;
use crate::{BasicEncoding, JwtBearer};

/// The client, the grant and the request change with these parts.
#[test]
fn identity_parts_change_client_grant_and_request() {
    let limiter = Limiter::<usize>::default();
    let parts = |change: &dyn Fn(&mut RequestDescription, &mut Credentials)| {
        let (mut description, mut credentials) = (description(), credentials());
        change(&mut description, &mut credentials);
        limiter.identity(TENANT, &description, &credentials, &Tls::default()).all()
    };
    let same = parts(&|_, _| {});
    type Change = &'static dyn Fn(&mut RequestDescription, &mut Credentials);
    let cases: &[(&str, usize, Change)] = &[
        ("token URL", 3, &|d, _| d.token_url = "https://idp.example.com/other".parse().unwrap()),
        ("client id", 3, &|_, c| c.client_id = Some("other".into())),
        ("client secret", 3, &|_, c| c.client_secret = Some("other".into())),
        ("private key", 3, &|_, c| c.private_key = Some("other".into())),
        ("certificate", 3, &|_, c| c.certificate = Some("other".into())),
        ("method", 3, &|d, _| d.client_authentication = ClientAuthentication::Post),
        ("encoding of Basic", 3, &|d, _| {
            d.client_authentication = ClientAuthentication::Basic(BasicEncoding::Raw);
        }),
        ("refresh token", 2, &|_, c| c.refresh_token = Some("other".into())),
        ("subject token", 2, &|_, c| c.subject_token = Some("other".into())),
        ("actor token", 2, &|_, c| c.actor_token = Some("other".into())),
        ("subject of a ready-made assertion", 2, &|_, c| c.asserted = Some("other".into())),
        ("subject of the client's assertion", 3, &|d, c| {
            let assertion_type = "jwt".into();
            d.client_authentication = ClientAuthentication::Assertion { assertion_type };
            c.client_asserted = Some("other".into());
        }),
        ("secret parameter", 2, &|_, c| drop(c.values.insert("pin".into(), "other".into()))),
        ("subject of an assertion", 2, &|d, _| {
            d.grant =
                Grant::JwtBearer(Box::new(JwtBearer { subject: Some("a".into()), ..JwtBearer::default() }));
        }),
        ("grant", 1, &|d, _| d.grant = Grant::RefreshToken),
        ("scopes", 1, &|d, _| d.scopes = vec!["other".into()]),
        ("audience", 1, &|d, _| d.audience = Some("other".into())),
        ("resources", 1, &|d, _| d.resources = vec!["https://other.example.com".into()]),
        ("parameters", 1, &|d, _| drop(d.parameters.insert("a".into(), "b".into()))),
        ("headers", 1, &|d, _| drop(d.headers.insert("a".into(), "b".into()))),
        ("response mapping", 0, &|d, _| d.response.access_token = Some("/t".parse().unwrap())),
    ];
    for (name, changed, change) in cases {
        let parts = parts(*change);
        let differ = parts.iter().zip(&same).filter(|(one, other)| one != other).count();
        assert_eq!(differ, *changed, "{name}");
        assert_eq!(parts[..3 - changed], same[..3 - changed], "{name}");
    }
}

/// The answer, and whether it holds back: the same request, another scope, another refresh token, another client.
#[tokio::test(start_paused = true)]
async fn refusal_holds_back_the_requests_that_would_get_it_too() {
    const NONE: [bool; 4] = [false; 4];
    let cases: &[(u16, &str, [bool; 4])] = &[
        (401, r#"{"error":"invalid_client"}"#, [true, true, true, false]),
        (400, r#"{"error":"invalid_client"}"#, [true, true, true, false]),
        (401, "", [true, true, true, false]),
        (401, r#"{"error":"unauthorized_client"}"#, [true, true, true, false]),
        (401, r#"{"error":"bad_refresh_token"}"#, [true, true, true, false]),
        (400, r#"{"error":"TOO_MANY_FAILED_LOGINS"}"#, [true, true, true, false]),
        (400, r#"{"error":"invalid_grant"}"#, [true, true, false, false]),
        (400, r#"{"error":"unauthorized_client"}"#, [true, false, false, false]),
        (403, r#"{"error":"unauthorized_client"}"#, [true, false, false, false]),
        (403, r#"{"error":"access_denied"}"#, [true, false, false, false]),
        (400, r#"{"error":"invalid_scope"}"#, [true, false, false, false]),
        (400, r#"{"error":"invalid_target"}"#, [true, false, false, false]),
        (400, r#"{"error":"bad_refresh_token"}"#, [true, false, false, false]),
        (400, r#"{"message":"Invalid client secret"}"#, NONE),
        (400, r#"{"message":"Account is locked"}"#, NONE),
        (400, r#"{"message":"Too many requests"}"#, NONE),
        (302, "", NONE),
        (404, "", NONE),
        (503, "", NONE),
        (200, "{}", NONE),
    ];
    for (status, body, expected) in cases {
        let simulation = Simulation::default();
        let request = |token: &str, scope: &str, id: &str| {
            let description = RequestDescription {
                grant: Grant::RefreshToken,
                scopes: vec![scope.into()],
                ..description()
            };
            let credentials = Credentials {
                refresh_token: Some(token.into()),
                client_id: Some(id.into()),
                ..credentials()
            };
            simulation.limiter.identity(TENANT, &description, &credentials, &Tls::default())
        };
        let refused = request("t", "s", "id");
        simulation.send(refused, Ok(())).await.unwrap();
        simulation.send(refused, Err(answer(*status, body).unwrap_err())).await.unwrap();
        let mut held = vec![];
        for other in [refused, request("t", "x", "id"), request("x", "s", "id"), request("t", "s", "x")] {
            held.push(simulation.send(other, Ok(())).await.is_err());
        }
        assert_eq!(held, expected, "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_of_thousand_refresh_tokens_with_one_wrong_client_secret_is_one_failed_login_per_wait() {
    let simulation = Simulation::default();
    let all = (0..1000).map(|token| simulation.refresh_token(token)).collect();
    let seen = sources(&simulation, all, seconds(3600), |_| Err(rejected())).await;
    let times: Vec<_> = seen.iter().map(|(at, _)| *at).collect();
    assert!(times.len() == 5 && times[4] < 2600, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn refusal_of_thousand_sources_with_the_same_scope_is_one_request_per_wait() {
    let simulation = Simulation::default();
    simulation.send(simulation.scope(1), Ok(())).await.unwrap();
    let all = vec![simulation.scope(2); 1000];
    let seen = sources(&simulation, all, seconds(3600), |_| Err(refused(400, "invalid_scope"))).await;
    let later = seen.iter().filter(|(at, _)| *at > 0).count();
    assert!(seen.len() - later <= 20 && later == 4, "100 a second until the first answer: {seen:?}");
}

/// Each hour of both, with a wrong audience that is never corrected: also from a cold start.
#[tokio::test(start_paused = true)]
async fn refusal_of_one_audience_never_delays_a_good_one() {
    let simulation = Simulation::default();
    let audience = |audience: &str| {
        let description = RequestDescription { audience: Some(audience.into()), ..description() };
        simulation.limiter.identity(TENANT, &description, &credentials(), &Tls::default())
    };
    let all = vec![audience("wrong"), audience("good")];
    let seen = sources(&simulation, all, seconds(7200), |source| match source {
        0 => Err(refused(403, "access_denied")),
        _ => Ok(()),
    });
    let (wrong, good): (Vec<_>, Vec<_>) = seen.await.into_iter().partition(|(_, source)| *source == 0);
    assert!(wrong.len() <= 8, "{wrong:?}");
    for (nth, (at, _)) in (0..).zip(&good) {
        assert!(at.abs_diff(nth * 60) <= nth + 1, "a minute apart and its own time: {good:?}");
    }
    assert!(good.len() >= 117, "{}", good.len());
}
