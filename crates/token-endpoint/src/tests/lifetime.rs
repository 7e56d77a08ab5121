use super::answer_with;
use crate::LifetimeSource::{self, Answer as InAnswer, Default, Token, Unknown};
use crate::{Answer, Lifetime, MAX_LIFETIME};
use base64::Engine as _;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

fn answer(token: &str, expires_in: &str) -> Answer {
    answer_with(200, &[], &format!(r#"{{"access_token":"{token}","expires_in":{expires_in}}}"#)).unwrap()
}

fn check(answer: &Answer, default: Option<u64>, seconds: Option<u64>, source: LifetimeSource) {
    assert_eq!(answer.lifetime(now(), default), Lifetime { seconds, source }, "{answer:?}");
}

#[test]
fn lifetime_without_answer_falls_back_to_token_then_default() {
    check(&answer("opaque", "300"), Some(900), Some(300), InAnswer);
    check(&answer("opaque", "null"), Some(900), Some(900), Default);
    check(&answer("opaque", "0"), Some(900), Some(900), Default);
    check(&answer("opaque", "-1"), None, None, Unknown);
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "null"), Some(900), Some(300), Token);
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "0"), Some(900), Some(300), Token);
}

#[test]
fn lifetime_answer_and_token_uses_smaller() {
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "200"), None, Some(200), InAnswer);
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "300"), None, Some(300), InAnswer);
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "7200"), None, Some(300), Token);
}

#[test]
fn lifetime_iat_older_than_60_s_is_ignored() {
    let exp = 1_800_000_300;
    for (iat, expected) in [
        (NOW, 300),
        (NOW - 60, 360), // the server's clock is a minute behind the local one
        (NOW + 60, 240),
        (NOW - 61, 300), // from the issuer's cache
        (NOW + 61, 300),
    ] {
        let token = jwt(&format!(r#"{{"exp":{exp},"iat":{iat}}}"#));
        check(&answer(&token, "null"), None, Some(expected), Token);
    }
}

#[test]
fn lifetime_server_clock_within_an_hour_is_used() {
    let token = jwt(r#"{"exp":1800000300}"#);
    for (offset, expected) in
        [(0, 300), (-600, 900), (200, 100), (3600, 0), (-3600, 3900), (3601, 300), (-3601, 300)]
    {
        let mut answer = answer(&token, "null");
        answer.date = Some(Timestamp::from_second(NOW + offset).unwrap());
        check(&answer, None, Some(expected), Token);
    }
}

#[test]
fn lifetime_expired_token_is_zero() {
    check(&answer(&jwt(r#"{"exp":1799999999}"#), "300"), Some(900), Some(0), Token);
}

#[test]
fn lifetime_absolute_expiry_is_measured_from_now() {
    let mut absolute = answer("opaque", "null");
    absolute.expires_at = Some(Timestamp::from_second(NOW + 50).unwrap());
    check(&absolute, None, Some(50), InAnswer);
    absolute.expires_in = Some(40);
    check(&absolute, None, Some(40), InAnswer);
    absolute.expires_at = Some(Timestamp::MIN);
    check(&absolute, None, Some(0), InAnswer);
    absolute.expires_in = None;
    absolute.expires_at = Some(Timestamp::MAX);
    check(&absolute, None, Some(MAX_LIFETIME), InAnswer);
}

#[test]
fn lifetime_jwt_claims_accept_known_forms() {
    for (claims, expected) in [
        (r#"{"exp":1800000300.7}"#, Some(300)),
        (r#"{"exp":"1800000300"}"#, Some(300)),
        (r#"{"exp":1e300}"#, None), // not a representable time
        (r#"{"exp":9223372036854775807,"iat":1800000000}"#, Some(MAX_LIFETIME)),
        (r#"{"exp":18446744073709551615}"#, None),
        (r#"{"exp":0}"#, None),
        (r#"{"exp":-5}"#, None),
        (r#"{"exp":null}"#, None),
        (r#"{"iat":1800000000}"#, None),
        ("[]", None),
        ("not json", None),
    ] {
        let source = if expected.is_some() { Token } else { Unknown };
        check(&answer(&jwt(claims), "null"), None, expected, source);
    }
    let claims = r#"{"exp":1800000300} "#;
    check(&answer(&format!("e30.{}.", BASE64_URL_SAFE.encode(claims)), "null"), None, Some(300), Token);
    for no_jwt in ["a.b", "a.b.c.d", "..", "a.%%%.c", "."] {
        check(&answer(no_jwt, "null"), None, None, Unknown);
    }
}

#[test]
fn lifetime_above_maximum_is_clamped() {
    check(&answer("opaque", "18446744073709551615"), None, Some(MAX_LIFETIME), InAnswer);
    check(&answer("opaque", "null"), Some(u64::MAX), Some(MAX_LIFETIME), Default);
}

/// An answer whose `Date` is `offset` seconds ahead of our clock.
fn dated(claims: &str, offset: i64) -> Answer {
    Answer { date: Some(Timestamp::from_second(NOW + offset).unwrap()), ..answer(&jwt(claims), "null") }
}

#[test]
fn lifetime_token_issued_by_the_clock_of_date_counts_from_iat_however_far_that_is() {
    let day = 86_400;
    for offset in [-day, -4000, 4000, day] {
        let (iat, exp) = (NOW + offset - 50, NOW + offset + 250);
        let answer = dated(&format!(r#"{{"exp":{exp},"iat":{iat}}}"#), offset);
        check(&answer, None, Some(300), Token);
        assert_eq!(answer.dead_for(now()), None, "{offset}");
        // Without iat, Date decides only where our clock says that the token is dead.
        let expected = if offset < 0 { 250 } else { 250 + u64::try_from(offset).unwrap() };
        check(&dated(&format!(r#"{{"exp":{exp}}}"#), offset), None, Some(expected), Token);
    }
}

#[test]
fn dead_for_needs_both_clocks_past_the_expiry() {
    for (claims, offset, expected) in [
        (r#"{"exp":1799999969}"#, 0, Some(31)),
        (r#"{"exp":1799999970}"#, 0, None),
        (r#"{"exp":1799999900}"#, 5000, Some(100)),
        (r#"{"exp":1799999900}"#, -71, None),
        (r#"{"exp":1799999900}"#, -60, Some(40)),
        // Issued just now by its issuer's clock, without a life.
        (r#"{"exp":1800000000,"iat":1800000000}"#, 0, Some(0)),
        (r#"{"exp":1800000000,"iat":1800000001}"#, 5000, None),
        (r#"{"iat":1700000000}"#, 0, None),
    ] {
        assert_eq!(dated(claims, offset).dead_for(now()), expected, "{claims} {offset}");
    }
    assert_eq!(answer(&jwt(r#"{"exp":1799999900}"#), "300").dead_for(now()), Some(100), "no Date");
    assert_eq!(answer("opaque", "300").dead_for(now()), None);
    let absolute = |at| Answer { expires_at: Timestamp::from_second(at).ok(), ..answer("opaque", "300") };
    assert_eq!(absolute(NOW - 31).dead_for(now()), Some(31));
    assert_eq!(absolute(NOW - 30).dead_for(now()), None);
}

#[test]
fn lifetime_in_milliseconds_needs_a_second_member_that_agrees() {
    let with = |members: &str| {
        answer_with(200, &[], &format!(r#"{{"access_token":"opaque","expires_in":3600000{members}}}"#))
            .unwrap()
    };
    check(&with(""), None, Some(3_600_000), InAnswer);
    for members in [
        r#","expires_at":1800003600"#,
        r#","expires_on":"1800003600""#,
        r#","expiration":1800003600000"#,
        r#","expiresAt":"2027-01-15T09:00:00Z""#,
        r#","expiry":1800003570"#, // within 1 %
    ] {
        check(&with(members), None, Some(3600), InAnswer);
    }
    // Seconds, and a member that means something else or disagrees: what is not mapped never decides.
    for members in [r#","expires_at":1800003500"#, r#","expiration":60"#, r#","expires_at":0"#] {
        check(&with(members), None, Some(3_600_000), InAnswer);
    }
    // The smaller of two wins, whatever the unit.
    check(&answer(&jwt(r#"{"exp":1800003590}"#), "3600000"), None, Some(3590), Token);
    check(&answer(&jwt(r#"{"exp":1800003610}"#), "3600000"), None, Some(3600), InAnswer);
    check(&answer(&jwt(r#"{"exp":1800000300}"#), "3600000"), None, Some(300), Token);
}
