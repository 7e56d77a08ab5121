//! The certified authorization server with its vendor fronts (`tests/authorization-server`), one for each test binary.
//!
//! It ends when its stdin closes, a pipe whose other end this process holds: however this process ends, the pipe closes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::authority::{Authority, Leaf};
use super::process::{self, BUILD_LIMIT, end_within, first_line, output_within};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/authorization-server");
/// A start takes well under a second; a busy machine gets the rest.
const START_LIMIT: Duration = Duration::from_secs(60);
/// After its stdin has closed.
const END_LIMIT: Duration = Duration::from_secs(10);
/// For one HTTP call, unless the test sets another.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// The server's options for a certificate and its key. It reads the files before it is ready.
fn identity(folder: &Path, leaf: &Leaf) -> [String; 4] {
    let certificate = file(folder, "server.crt", &leaf.pem);
    let key = file(folder, "server.key", &leaf.key_pem());
    ["--tls-cert".to_owned(), certificate, "--tls-key".to_owned(), key]
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().expect("a path of text").to_owned()
}

/// A running authorization server.
pub struct AuthorizationServer {
    url: String,
    http: reqwest::Client,
    child: Child,
    lifeline: Option<ChildStdin>,
}

/// A client to register. `..ClientSpec::default()` is a `client_secret_basic` client of 300 s tokens.
#[derive(Debug, Clone, Serialize)]
pub struct ClientSpec {
    #[serde(skip)]
    pub id: String,
    #[serde(rename = "client_secret", skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    pub token_endpoint_auth_method: &'static str,
    pub grant_types: Vec<&'static str>,
    pub scope: String,
    /// Seconds.
    pub access_token_ttl: u32,
    /// `opaque` or `jwt`.
    pub access_token_format: &'static str,
    pub rotate_refresh_token: bool,
    /// The public keys of a `private_key_jwt` client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Value>,
    /// The DNS name in the certificate of a `tls_client_auth` client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_client_auth_san_dns: Option<String>,
    /// The resource indicators that it may request; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<String>>,
    /// The keys, issuer, audience and subject of the tokens that it may exchange (RFC 8693).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_tokens: Option<Value>,
    /// VMware Cloud Director only: the tenant whose endpoint accepts its API tokens; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// VNG Cloud only: after so many consecutive failed logins all further ones are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_after_failures: Option<u32>,
}

impl ClientSpec {
    /// A client without authentication, with one grant type.
    pub fn public(id: &str, grant_type: &'static str) -> Self {
        Self {
            id: id.to_owned(),
            secret: None,
            token_endpoint_auth_method: "none",
            grant_types: vec![grant_type],
            ..Self::default()
        }
    }
}

impl Default for ClientSpec {
    fn default() -> Self {
        Self {
            id: "client".to_owned(),
            secret: Some("secret".to_owned()),
            token_endpoint_auth_method: "client_secret_basic",
            grant_types: vec!["client_credentials"],
            scope: String::new(),
            access_token_ttl: 300,
            access_token_format: "opaque",
            rotate_refresh_token: false,
            jwks: None,
            tls_client_auth_san_dns: None,
            resources: None,
            subject_tokens: None,
            tenant: None,
            lock_after_failures: None,
        }
    }
}

/// What the server does instead of passing the request to the provider. Without a status it passes it after the delay.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Behaviour {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// A string is sent as text, anything else as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    pub headers: serde_json::Map<String, Value>,
    pub delay_ms: u64,
    /// For so many requests; `None`: until changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// The token requests of one client. Those without a response yet are in `total` only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Requests {
    pub total: u64,
    /// Answered with a token.
    pub succeeded: u64,
    pub failed: u64,
    pub last: Option<LastRequest>,
    /// When the latest hundred arrived.
    pub times: Vec<jiff::Timestamp>,
    /// The most that were under way at the same time.
    pub most_underway: u64,
}

/// A token request without its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LastRequest {
    pub method: String,
    pub path: String,
    pub content_type: Option<String>,
    pub accept: Option<String>,
    pub user_agent: Option<String>,
    /// The scheme.
    pub authorization: Option<String>,
    /// The names of the parameters, in the order sent.
    pub parameters: Vec<String>,
    pub grant_type: Option<String>,
    pub scope: Option<String>,
    /// Of the client's assertion.
    pub assertion_header: Option<Value>,
    /// `None` before the response, or if the client disconnected.
    pub status: Option<u16>,
    /// RFC 3339.
    pub at: String,
}

/// The server's introspection of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Introspection {
    pub active: bool,
    pub client_id: Option<String>,
    /// Epoch seconds.
    pub exp: Option<i64>,
    pub scope: Option<String>,
}

impl AuthorizationServer {
    /// The server of this test binary, started at the first call. Each test needs a client id of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<AuthorizationServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server for the caller alone; it ends when it is dropped.
    pub fn start() -> Self {
        Self::start_with(&[], http_client())
    }

    /// The same over TLS, with a certificate of `servers`, for clients that have one of `clients`. Calls of the control
    /// interface need none.
    pub fn start_tls(servers: &Authority, clients: &Authority) -> Self {
        Self::start_tls_with(&[], servers, clients)
    }

    /// The same, but client certificates are requested only at the endpoint of `mtls_endpoint_aliases`.
    pub fn start_mtls_alias(servers: &Authority, clients: &Authority) -> Self {
        Self::start_tls_with(&["--mtls-alias"], servers, clients)
    }

    fn start_tls_with(options: &[&str], servers: &Authority, clients: &Authority) -> Self {
        install_crypto_provider();
        let authority = reqwest::Certificate::from_der(&servers.der).expect("a certificate");
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(CALL_LIMIT)
            .tls_certs_only([authority])
            .build()
            .expect("an HTTP client");
        let folder = tempfile::tempdir().unwrap();
        let leaf = servers.issue(|_| ());
        let mut arguments = identity(folder.path(), &leaf).to_vec();
        arguments.extend(["--tls-client-ca".to_owned(), file(folder.path(), "clients.crt", &clients.pem)]);
        arguments.extend(options.iter().map(|&option| option.to_owned()));
        Self::start_with(&arguments, http)
    }

    /// The same with any self-signed certificate, which calls of the control interface do not verify.
    pub fn start_self_signed(leaf: &Leaf) -> Self {
        install_crypto_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(CALL_LIMIT)
            .tls_danger_accept_invalid_certs(true)
            .build()
            .expect("an HTTP client");
        let folder = tempfile::tempdir().unwrap();
        Self::start_with(&identity(folder.path(), leaf), http)
    }

    fn start_with(arguments: &[String], http: reqwest::Client) -> Self {
        install_packages();
        let mut child = Command::new("node")
            .args(["server.mjs", "--until-stdin-closes"])
            .args(arguments)
            .current_dir(FOLDER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run node: {error}. Install Node.js 20 or later, with npm")
            });
        let lifeline = child.stdin.take();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let line = first_line(stdout, START_LIMIT).unwrap_or_else(|| {
            process::kill(&mut child);
            panic!("the authorization server was not ready within {START_LIMIT:?}")
        });
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("the authorization server did not start; see its stderr above. Its stdout: {line:?}")
        });
        let url = ready["url"].as_str().expect("the ready line has a url").to_owned();
        Self { url, http, child, lifeline }
    }

    /// `http://127.0.0.1:PORT`, or `https`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The OAuth issuer; discovery is under `/.well-known/openid-configuration` of it.
    pub fn issuer(&self) -> String {
        format!("{}/auth/realms/vgs", self.url)
    }

    pub fn vgs_token_url(&self) -> String {
        format!("{}/protocol/openid-connect/token", self.issuer())
    }

    pub fn vng_token_url(&self) -> String {
        format!("{}/accounts-api/v2/auth/token", self.url)
    }

    /// `System` is the provider's own endpoint.
    pub fn vcd_token_url(&self, tenant: &str) -> String {
        match tenant {
            "System" => format!("{}/oauth/provider/token", self.url),
            tenant => format!("{}/oauth/tenant/{}/token", self.url, escape(tenant)),
        }
    }

    /// A protected resource: 200 for a valid bearer token, else 401.
    pub fn resource_url(&self) -> String {
        format!("{}/resource", self.url)
    }

    /// Registers the client, or replaces it; its counts stay.
    pub async fn client(&self, spec: ClientSpec) {
        let body = serde_json::to_value(&spec).expect("a client is JSON");
        self.control(Method::PUT, &client_path(&spec.id), body).await;
    }

    pub async fn remove_client(&self, client_id: &str) {
        self.control(Method::DELETE, &client_path(client_id), json!({})).await;
    }

    pub async fn set_secret(&self, client_id: &str, secret: &str) {
        self.change(client_id, json!({ "client_secret": secret })).await;
    }

    /// Applies to the next token.
    pub async fn set_ttl(&self, client_id: &str, seconds: u32) {
        self.change(client_id, json!({ "access_token_ttl": seconds })).await;
    }

    /// `None` ends the behaviour.
    pub async fn behave(&self, client_id: &str, behaviour: Option<Behaviour>) {
        self.change(client_id, json!({ "behaviour": behaviour })).await;
    }

    /// Changes any members of a client.
    pub async fn change(&self, client_id: &str, members: Value) {
        self.control(Method::PATCH, &client_path(client_id), members).await;
    }

    /// A refresh token as after a user's login, or a VMware Cloud Director API token.
    pub async fn seed_refresh_token(&self, client_id: &str) -> String {
        let path = format!("{}/refresh-tokens", client_path(client_id));
        let answer = self.control(Method::POST, &path, json!({})).await;
        answer["refresh_token"].as_str().expect("a refresh token").to_owned()
    }

    pub async fn requests(&self, client_id: &str) -> Requests {
        let path = format!("{}/requests", client_path(client_id));
        serde_json::from_value(self.control(Method::GET, &path, Value::Null).await).expect("counts")
    }

    pub async fn introspect(&self, token: &str) -> Introspection {
        let answer = self.control(Method::POST, "introspect", json!({ "token": token })).await;
        serde_json::from_value(answer).expect("an introspection")
    }

    /// Whether the server accepts the access token at this moment.
    pub async fn is_valid(&self, token: &str) -> bool {
        self.introspect(token).await.active
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let mut request = self.http.request(method, format!("{}/control/{path}", self.url));
        if !body.is_null() {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.expect("the authorization server answers its control interface");
        let status = response.status();
        let text = response.text().await.expect("a whole answer");
        assert!(status.is_success(), "control {path}: {status}: {text}");
        serde_json::from_str(&text).expect("the control interface answers in JSON")
    }
}

impl AuthorizationServer {
    /// Sends its process a signal by its name; after STOP it does not respond.
    pub fn signal(&self, name: &str) {
        assert!(process::signal(name, &self.child.id().to_string()), "the authorization server has ended");
    }
}

impl Drop for AuthorizationServer {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if end_within(&mut self.child, END_LIMIT).is_none() {
            process::kill(&mut self.child);
        }
    }
}

/// A client for tests. It keeps no idle connections: its pool would outlive the runtime of the test that opened them.
pub fn http_client() -> reqwest::Client {
    http_client_with(|client| client)
}

/// The same, changed.
pub fn http_client_with(
    change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> reqwest::Client {
    install_crypto_provider();
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(CALL_LIMIT)
        .redirect(reqwest::redirect::Policy::none());
    change(client).build().expect("an HTTP client")
}

fn install_crypto_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn client_path(id: &str) -> String {
    format!("clients/{}", escape(id))
}

fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, NON_ALPHANUMERIC).to_string()
}

/// `npm ci`, if what is installed is older than the lock file.
fn install_packages() {
    let lock_path = format!("{FOLDER}/package-lock.json");
    // Two test binaries may start at the same time; the second one finds the packages installed.
    let lock = File::open(&lock_path).expect("tests/authorization-server/package-lock.json");
    let start = Instant::now();
    while lock.try_lock().is_err() {
        assert!(
            start.elapsed() < BUILD_LIMIT,
            "{lock_path}: another process holds the lock for {BUILD_LIMIT:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    // npm writes this file last.
    let installed =
        fs::metadata(format!("{FOLDER}/node_modules/.package-lock.json")).and_then(|m| m.modified());
    let wanted = lock.metadata().and_then(|m| m.modified()).expect("the lock file's time");
    if installed.is_ok_and(|installed| installed >= wanted) {
        return;
    }
    eprintln!("installing the authorization server's packages: npm ci in {FOLDER}");
    let mut install = Command::new("npm");
    install.args(["ci", "--no-audit", "--no-fund"]).current_dir(FOLDER);
    let output = output_within(install, "", BUILD_LIMIT);
    assert!(
        output.status.success(),
        "npm ci failed; it needs a package registry. Try it by hand in {FOLDER}.\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
