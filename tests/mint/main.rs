//! `tokensource-operator mint -f` without a cluster, against the certified authorization server and against a scripted one.
#![cfg(test)] // so that clippy lets helpers panic, too

mod failures;
mod refresh_token;
mod report;
#[path = "../support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::authorization_server::{AuthorizationServer, ClientSpec};
use support::program::{ProgramOutput, program};
use support::scripted_server::{Reply, ScriptedServer};

const FLAGS: [&str; 3] = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
/// Unlike any text of the output.
const SECRET: &str = "hunter2-/+&%-4711";

/// `mint -f -` of these objects.
async fn mint(objects: &[Value], flags: &[&str]) -> ProgramOutput {
    program(&[&["mint", "-f", "-"], &FLAGS[..], flags].concat(), &documents(objects)).await
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

fn source(provider: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "metadata": {"name": "api", "namespace": "payments"},
        "spec": {
            "provider": provider,
            "credentials": {"secretRef": {"name": "client"}},
            "target": {"name": "api-token"},
        },
    })
}

fn oauth2(token_url: &str, more: Value) -> Value {
    let mut oauth2 = json!({"tokenURL": token_url});
    oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    source(json!({"oauth2": oauth2}))
}

fn secret(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"}, "stringData": data})
}

fn client(id: &str) -> Value {
    secret(json!({"client_id": id, "client_secret": SECRET}))
}

async fn register(id: &str, spec: ClientSpec) -> &'static AuthorizationServer {
    let server = AuthorizationServer::shared();
    server.client(ClientSpec { id: id.into(), secret: Some(SECRET.into()), ..spec }).await;
    server
}

async fn scripted(status: u16, body: &str) -> ScriptedServer {
    ScriptedServer::start(vec![Reply::Json(status, body.to_owned())]).await
}
