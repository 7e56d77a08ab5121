//! Tokens for a ServiceAccount from Keycloak, which knows no secret of it (docs/keyless.md), read in a pod.

use std::{
    env,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    command::{Result, eventually, output},
    issuer::Issuer,
    keycloak_realm::{ACCOUNT, REALM, RESOURCE_SERVER, realm},
    operator,
    process::{self, first_line},
    settings::Settings,
    sources::{self, Reader},
};

/// The issuer of the node's ServiceAccount tokens (hack/node-inside.sh).
const CLUSTER: &str = "https://kubernetes.default.svc";
const NAME: &str = "keyless";
const ADMINISTRATOR: (&str, &str) = ("administrator", "of a test");
const START_LIMIT: Duration = Duration::from_secs(330);
const TOKEN_LIMIT: Duration = Duration::from_secs(120);

struct Keycloak {
    process: Child,
    version: String,
    url: String,
}

/// Whether `hack/e2e.sh` could have Keycloak.
pub fn is_possible() -> bool {
    env::var("E2E_KEYCLOAK").is_ok_and(|value| !value.is_empty())
}

/// A pod gets a token, another after a refresh, and another after the ServiceAccount was created anew. Says what was seen.
pub fn check(settings: &Settings, cluster: &Cluster, issuer: &Issuer) -> Result<String> {
    let certificate = format!("{}/certs/apiserver.crt", env::var("NODE_DIR")?);
    let keycloak = Keycloak::start(&settings.host, &certificate)?;
    // Keycloak reads the cluster's keys without credentials.
    cluster.create(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: e2e-keycloak}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: \"system:service-account-issuer-discovery\"}\n\
         subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: \"system:unauthenticated\"}]\n",
    )?;
    keycloak.create_realm(&realm(sources::NAMESPACE, CLUSTER, &format!("{CLUSTER}/openid/v1/jwks")))?;
    let allowed = "serviceAccountTokens.allowed[0]";
    let values = [
        format!("egress.allow={{{},{}}}", issuer.resource(), keycloak.host()),
        format!("{allowed}.audience={}", keycloak.issuer(REALM)),
        format!("{allowed}.hosts[0]={}", keycloak.url),
    ];
    operator::upgrade(cluster, &values)?;
    let seen = keycloak.check(cluster);
    for object in
        [format!("tokensource/{NAME}"), format!("deployment/{NAME}"), format!("serviceaccount/{ACCOUNT}")]
    {
        let _ = cluster.kubectl(&["-n", sources::NAMESPACE, "delete", &object, "--ignore-not-found"]);
    }
    operator::rollback(cluster)?;
    seen
}

impl Keycloak {
    fn start(host: &str, certificate: &str) -> Result<Self> {
        let mut process = Command::new("hack/keycloak.sh")
            .args(["run", "--until-stdin-closes", "--host", host, "--trust", certificate])
            .env("KC_BOOTSTRAP_ADMIN_USERNAME", ADMINISTRATOR.0)
            .env("KC_BOOTSTRAP_ADMIN_PASSWORD", ADMINISTRATOR.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().ok_or("Keycloak has no output")?;
        let line = first_line(stdout, START_LIMIT).unwrap_or_default();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["READY", version, url] = words[..] else {
            process::kill(&mut process);
            return Err("Keycloak did not start".into());
        };
        Ok(Keycloak { process, version: version.to_owned(), url: url.to_owned() })
    }

    fn issuer(&self, realm: &str) -> String {
        format!("{}/realms/{realm}", self.url)
    }

    /// Address and port.
    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn create_realm(&self, realm: &Value) -> Result<()> {
        let (name, password) = ADMINISTRATOR;
        let form = [
            ("grant_type", "password"),
            ("client_id", "admin-cli"),
            ("username", name),
            ("password", password),
        ];
        let answer = self.form("master", "token", &form)?;
        let token = answer["access_token"].as_str().ok_or("Keycloak gave its administrator no token")?;
        let bearer = format!("authorization: Bearer {token}");
        let realm = realm.to_string();
        let options =
            [("header", bearer.as_str()), ("header", "content-type: application/json"), ("data", &realm)];
        curl(&format!("{}/admin/realms", self.url), &options).map(drop)
    }

    /// What a protocol endpoint of a realm answers.
    fn form(&self, realm: &str, endpoint: &str, members: &[(&str, &str)]) -> Result<Value> {
        let url = format!("{}/protocol/openid-connect/{endpoint}", self.issuer(realm));
        let members: Vec<String> = members.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let options: Vec<_> = members.iter().map(|member| ("data-urlencode", member.as_str())).collect();
        Ok(serde_json::from_str(&curl(&url, &options)?)?)
    }

    fn check(&self, cluster: &Cluster) -> Result<String> {
        let namespace = ["-n", sources::NAMESPACE];
        let began = Instant::now();
        cluster.apply(&(self.account() + &self.source()))?;
        eventually("the first token", TOKEN_LIMIT, || match ready(cluster)? {
            ready if ready.starts_with("True ") => Ok(()),
            other => Err(other.into()),
        })?;
        let path = format!("/realms/{REALM}/protocol/openid-connect/userinfo");
        let reader = Reader { name: NAME, replicas: 1, resource: self.host(), path: &path };
        cluster.apply(&sources::readers(&reader))?;
        let first = until_tokens(cluster, 1)?;
        let took = began.elapsed();
        self.assert_valid(cluster)?;
        let request = |value: &str| sources::request_refresh(cluster, NAME, value);
        request("1")?;
        until_tokens(cluster, first + 1)?;
        cluster.kubectl(&[&namespace[..], &["delete", "serviceaccount", ACCOUNT]].concat())?;
        cluster.apply(&self.account())?;
        request("2")?;
        let anew = Instant::now();
        until_tokens(cluster, first + 2)?;
        let anew = anew.elapsed();
        self.assert_valid(cluster)?;
        let requests = until_requests(cluster)?;
        Ok(format!(
            "Keycloak {} exchanged tokens of ServiceAccount `{ACCOUNT}`: a pod read the first {} s after the TokenSource was \
             created, one after a refresh, and one {} s after the ServiceAccount was created anew; {requests} requests to \
             Keycloak's userinfo endpoint, none refused",
            self.version,
            took.as_secs(),
            anew.as_secs(),
        ))
    }

    /// The ServiceAccount, which consents.
    fn account(&self) -> String {
        format!(
            r#"
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {ACCOUNT}
  namespace: {}
  annotations: {{tokensource.dev/audiences: "{}"}}
---
"#,
            sources::NAMESPACE,
            self.issuer(REALM),
        )
    }

    fn source(&self) -> String {
        format!(
            r#"
apiVersion: tokensource.dev/v1alpha1
kind: TokenSource
metadata: {{name: {NAME}, namespace: {}}}
spec:
  provider:
    oauth2: {{issuer: "{}", scopes: [openid], clientAuthentication: {{serviceAccountToken: {{}}}}}}
  credentials: {{serviceAccountToken: {{name: {ACCOUNT}}}}}
  target: {{name: {NAME}-token, propagation: Prompt}}
---
"#,
            sources::NAMESPACE,
            self.issuer(REALM),
        )
    }

    /// Keycloak itself says whose the token is.
    fn assert_valid(&self, cluster: &Cluster) -> Result<()> {
        let secret = cluster.get(&["-n", sources::NAMESPACE, "secret", &format!("{NAME}-token")])?;
        let encoded = secret["data"]["access_token"].as_str().unwrap_or_default();
        let token = String::from_utf8(STANDARD.decode(encoded)?)?;
        let (client, password) = RESOURCE_SERVER;
        let form = [("client_id", client), ("client_secret", password), ("token", &token)];
        let said = self.form(REALM, "token/introspect", &form)?;
        if said["active"] == true && said["client_id"] == ACCOUNT {
            Ok(())
        } else {
            Err(format!(
                "Keycloak says that the token is active: {}, of client {}",
                said["active"], said["client_id"]
            )
            .into())
        }
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if process::end_within(&mut self.process, Duration::from_secs(20)).is_none() {
            process::kill(&mut self.process);
        }
    }
}

/// The options have secrets: they are read from stdin, and are in no message.
fn curl(url: &str, options: &[(&str, &str)]) -> Result<String> {
    let options: String =
        options.iter().map(|(name, value)| format!("{name} = {}\n", json!(value))).collect();
    let arguments = ["-sS", "--fail", "--noproxy", "*", "--max-time", "30", "--config", "-", url];
    output("curl", &arguments, &options)
}

/// What the pod printed.
fn lines(cluster: &Cluster) -> Result<Vec<Value>> {
    let log = cluster.kubectl(&["-n", sources::NAMESPACE, "logs", &format!("deployment/{NAME}")])?;
    Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// How many tokens the pod has read when these are `many` or more.
fn until_tokens(cluster: &Cluster, many: usize) -> Result<usize> {
    eventually("a token in the pod", TOKEN_LIMIT, || {
        match lines(cluster)?.iter().filter(|line| line["event"] == "token").count() {
            found if found >= many => Ok(found),
            found => Err(format!("{found}; the TokenSource is {}", ready(cluster)?).into()),
        }
    })
}

/// Status and message of the condition Ready.
fn ready(cluster: &Cluster) -> Result<String> {
    let source = cluster.get(&["-n", sources::NAMESPACE, "tokensource", NAME])?;
    let ready = sources::condition(&source, "Ready");
    let member = |name: &str| ready.and_then(|ready| ready[name].as_str()).unwrap_or_default();
    Ok(format!("{} {}", member("status"), member("message")))
}

/// The accepted requests after which none was refused.
fn until_requests(cluster: &Cluster) -> Result<i64> {
    eventually("accepted requests", TOKEN_LIMIT, || {
        let lines = lines(cluster)?;
        let refused = lines.iter().find(|line| line["event"] == "refused" || line["event"] == "failed");
        let accepted = lines.iter().rev().find_map(|line| line["accepted"].as_i64()).unwrap_or_default();
        match refused {
            Some(refused) => Err(format!("a request failed: {refused}").into()),
            None if accepted < 10 => Err(format!("{accepted} requests were accepted").into()),
            None => Ok(accepted),
        }
    })
}
