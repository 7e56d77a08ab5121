//! Tests of requests, answers and the egress policy, without a network.

mod answers;
mod discovery;
mod egress;
mod errors;
mod github;
mod grants;
mod keys;
mod lifetime;
mod limiter;
mod limits;
mod made_assertions;
mod mapping;
mod properties;
mod proxy;
mod redact;
mod request;
mod response;
mod vendor_answers;

use super::{
    Answer, BasicEncoding, ClientAuthentication, Credentials, Error, Grant, RequestDescription, TokenRequest,
    read,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const ID: &str = "the-client-id";
const SECRET: &str = "correct horse/battery+staple";
const REFRESH: &str = "Zq5rNfLk2YbWtVx8";
const TENANT: &str = "a tenant";

fn description() -> RequestDescription {
    RequestDescription::new(
        "https://idp.example.com/oauth/token".parse().unwrap(),
        Grant::ClientCredentials,
        ClientAuthentication::Basic(BasicEncoding::Percent),
    )
}

fn credentials() -> Credentials {
    Credentials {
        client_id: Some(ID.to_owned()),
        client_secret: Some(SECRET.into()),
        refresh_token: Some(REFRESH.into()),
        ..Credentials::default()
    }
}

fn request() -> TokenRequest {
    description().request(&credentials()).unwrap()
}

fn header_map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
    headers
        .iter()
        .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn answer_with(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Result<Answer, Error> {
    read(StatusCode::from_u16(status).unwrap(), &header_map(headers), body.as_bytes(), &request())
}

fn answer(status: u16, body: &str) -> Result<Answer, Error> {
    answer_with(status, &[("content-type", "application/json")], body)
}
