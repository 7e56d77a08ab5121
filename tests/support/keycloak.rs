//! Keycloak, which `hack/keycloak.sh` fetches, builds and starts. It ends when its stdin closes, a pipe whose other end this
//! process holds.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};

use super::authorization_server::http_client;
use super::process::{self, BUILD_LIMIT, end_within, first_line};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/keycloak.sh");
const ADMINISTRATOR: &str = "administrator";
const PASSWORD: &str = "of a test";

/// A running Keycloak.
pub struct Keycloak {
    /// Such as `26.7.3`.
    pub version: String,
    url: String,
    http: reqwest::Client,
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Keycloak {
    /// Starts it, with trust in this certificate.
    pub async fn start(certificate: &Path) -> Self {
        let mut command = Command::new(SCRIPT);
        command.args(["run", "--until-stdin-closes", "--trust"]).arg(certificate);
        command
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMINISTRATOR)
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD);
        // stderr is inherited: a first build prints its progress.
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(SCRIPT);
        let lifeline = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let line = tokio::task::spawn_blocking(move || first_line(stdout, BUILD_LIMIT)).await.unwrap();
        let words: Vec<_> = line.as_deref().unwrap_or_default().split_whitespace().collect();
        let ["READY", version, url] = words[..] else {
            process::kill(&mut child);
            panic!("{SCRIPT} did not start Keycloak; its own messages are on stderr");
        };
        let (version, url) = (version.to_owned(), url.to_owned());
        Keycloak { version, url, http: http_client(), child, lifeline }
    }

    /// The issuer of a realm.
    pub fn issuer(&self, realm: &str) -> String {
        format!("{}/realms/{realm}", self.url)
    }

    /// Creates a realm with everything in it (RealmRepresentation).
    pub async fn realm(&self, realm: Value) {
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", ADMINISTRATOR),
            ("password", PASSWORD),
        ];
        let token =
            self.form(&format!("{}/protocol/openid-connect/token", self.issuer("master")), &form).await;
        let token = token["access_token"].as_str().expect("the administrator's token");
        let create = self.http.request(Method::POST, format!("{}/admin/realms", self.url)).bearer_auth(token);
        let created =
            create.header("content-type", "application/json").body(realm.to_string()).send().await.unwrap();
        let status = created.status();
        assert!(status.is_success(), "{status}: {}", created.text().await.unwrap());
    }

    /// What Keycloak says of a token to a client of its realm.
    pub async fn introspect(&self, realm: &str, (client, secret): (&str, &str), token: &str) -> Value {
        let url = format!("{}/protocol/openid-connect/token/introspect", self.issuer(realm));
        self.form(&url, &[("client_id", client), ("client_secret", secret), ("token", token)]).await
    }

    async fn form(&self, url: &str, members: &[(&str, &str)]) -> Value {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(members).finish();
        let request = self.http.request(Method::POST, url).body(body);
        let answer =
            request.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        let text = answer.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| json!(text))
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if end_within(&mut self.child, process::RUN_LIMIT).is_none() {
            process::kill(&mut self.child);
        }
    }
}
