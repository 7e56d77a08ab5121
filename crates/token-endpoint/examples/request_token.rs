//! Requests an access token by client credentials, and prints its type and lifetime, never the token.
//!
//! ```sh
//! TOKEN_URL=https://idp.example.com/oauth/token CLIENT_ID=id CLIENT_SECRET=secret \
//!     cargo run -p token-endpoint --example request_token
//! ```
//!
//! By default only https and public addresses are allowed. `EGRESS_ALLOW` lists further hosts and networks, separated by commas,
//! and `ALLOW_HTTP=1` allows http: `ALLOW_HTTP=1 EGRESS_ALLOW=127.0.0.1` for a test server on this host.
#![allow(clippy::print_stdout)]

use jiff::Timestamp;
use std::env;
use std::sync::Arc;
use std::time::Duration;
use token_endpoint::{
    BasicEncoding, ClientAuthentication, Credentials, Egress, Grant, RequestDescription, Transport,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("set the environment variable {name}"));
    let description = RequestDescription::new(
        variable("TOKEN_URL")?.parse()?,
        Grant::ClientCredentials,
        ClientAuthentication::Basic(BasicEncoding::Percent),
    );
    let credentials = Credentials {
        client_id: Some(variable("CLIENT_ID")?),
        client_secret: Some(variable("CLIENT_SECRET")?.into()),
        ..Credentials::default()
    };

    let allow = env::var("EGRESS_ALLOW").unwrap_or_default();
    let allow = allow.split(',').filter(|rule| !rule.is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let egress = Egress::new(allow, None, env::var_os("ALLOW_HTTP").is_some(), Vec::new());
    let transport = Transport::new(Arc::new(egress), "request-token-example")?;

    let request = description.request(&credentials)?;
    let sent_at = Timestamp::now();
    let answer = transport.send(&request, Duration::from_secs(10)).await.map_err(|error| {
        let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{error}{hint}")
    })?;
    let lifetime =
        answer.lifetime(sent_at, None).seconds.map_or("unknown".into(), |seconds| format!("{seconds} s"));
    println!("token type: {}, lifetime: {lifetime}", answer.token_type);
    Ok(())
}
