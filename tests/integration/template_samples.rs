//! The templates of `docs/templates.md` and of its neighbours, read from the pages: the rendered files are read by the software
//! they are for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::support::operator::Operator;
use super::support::program::{output_beside, text};
use super::support::scene::Scene;
use super::support::scripted_server::{Recorded, Reply, ScriptedServer};

const PAGES: [&str; 5] = [
    include_str!("../../docs/templates.md"),
    include_str!("../../docs/neighbours/argocd.md"),
    include_str!("../../docs/neighbours/flux.md"),
    include_str!("../../docs/neighbours/gateways.md"),
    PACKAGES,
];
const PACKAGES: &str = include_str!("../../docs/neighbours/packages.md");
/// All kinds of characters that RFC 6750 allows in a bearer token.
const TOKEN: &str = "eyJhbGciOi-_.~+/4711==";

/// The manifests of the pages by the names in the comments above them.
fn samples() -> BTreeMap<String, Value> {
    let mut samples = BTreeMap::new();
    for part in PAGES.iter().flat_map(|page| page.split("<!-- template: ").skip(1)) {
        let (name, rest) = part.split_once(" -->").unwrap();
        let manifest = first_block(rest, "yaml");
        samples.insert(name.to_owned(), serde_saphyr::from_str(manifest).unwrap());
    }
    let manifests: usize = PAGES.iter().map(|page| page.matches("kind: TokenSource").count()).sum();
    assert_eq!(samples.len(), manifests, "every sample must be tested");
    samples
}

fn first_block<'a>(text: &'a str, language: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

/// The keys of a sample's target.
type Keys = BTreeMap<String, String>;

struct Tried {
    folder: tempfile::TempDir,
    api: ScriptedServer,
}

impl Tried {
    async fn new() -> Self {
        let api = ScriptedServer::start([Reply::Json(200, "{}".into())]).await;
        Tried { folder: tempfile::tempdir().unwrap(), api }
    }

    /// Writes a key as the file that a pod would read. `named` is a host name to replace by the address of the test's server.
    fn file(&self, keys: &Keys, key: &str, named: Option<&str>) -> std::path::PathBuf {
        let path = self.folder.path().join(key.trim_start_matches('.'));
        let text = match named {
            Some(name) => {
                keys[key].replace("https://", "http://").replace(name, &self.api.address().to_string())
            }
            None => keys[key].clone(),
        };
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A program without the machine's own settings.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("HOME", self.folder.path());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "NETRC"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a program, and returns its output.
    async fn run(&self, program: &str, arguments: &[&OsStr]) -> String {
        let mut command = self.command(program);
        command.args(arguments);
        let output = output_beside(command, "").await;
        assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a program whose server is none: returns the `Authorization` header of its last request.
    async fn authorization(&self, command: Command) -> String {
        let output = output_beside(command, "").await;
        let request = self.api.requests().pop();
        let request = request.unwrap_or_else(|| panic!("no request: {}", text(&output.stderr)));
        request.header("authorization").unwrap_or_default().to_owned()
    }

    async fn curl(&self, arguments: &[&OsStr]) -> Recorded {
        let to = format!("api.example.com:{}:127.0.0.1", self.api.address().port());
        let url = format!("http://api.example.com:{}/orders", self.api.address().port());
        let more = ["-sSf", "--noproxy", "*", "--resolve", &to, &url].map(OsStr::new);
        self.run("curl", &[arguments, &more[..]].concat()).await;
        self.api.requests().pop().unwrap()
    }

    /// The output of a program in Python or Node that reads a file.
    async fn read(&self, interpreter: &str, program: &str, file: &Path) -> Value {
        let said = self
            .run(
                interpreter,
                &[
                    OsStr::new(if interpreter == "node" { "-e" } else { "-c" }),
                    OsStr::new(program),
                    file.as_os_str(),
                ],
            )
            .await;
        serde_json::from_str(&said).unwrap()
    }
}

fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

async fn try_sample(name: &str, keys: &Keys) {
    let tried = Tried::new().await;
    let path = |path: &Path| path.as_os_str().to_owned();
    match name {
        "header" => {
            let file = format!("@{}", tried.file(keys, "header", None).display());
            let request = tried.curl(&["-H", &file].map(OsStr::new)).await;
            assert_eq!(request.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
            assert_eq!(keys["authorization"], format!("Bearer {TOKEN}"));
        }
        "netrc" => {
            let file = path(&tried.file(keys, ".netrc", None));
            let request = tried.curl(&[OsStr::new("--netrc-file"), &file]).await;
            let expected = format!("Basic {}", base64(&format!("oauth2:{TOKEN}")));
            assert_eq!(request.header("authorization"), Some(&*expected));
        }
        "registry" => {
            let file = tried.file(keys, ".dockerconfigjson", None);
            let program = "import base64, json, sys; entry = json.load(open(sys.argv[1]))['auths']['registry.example.com']; \
                 print(json.dumps([entry['username'], entry['password'], base64.b64decode(entry['auth'], validate=True).decode()]))";
            let expected = json!(["oauth2", TOKEN, format!("oauth2:{TOKEN}")]);
            assert_eq!(tried.read("python3", program, &file).await, expected);
        }
        "npmrc" => {
            let file = path(&tried.file(keys, ".npmrc", Some("npm.example.com")));
            tried.run("npm", &[OsStr::new("ping"), OsStr::new("--userconfig"), &file]).await;
            // npm also checks for a newer npm.
            let requests = tried.api.requests();
            let ping = requests.iter().find(|request| request.head.starts_with("GET /-/ping")).unwrap();
            assert_eq!(ping.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
        }
        "ini" => {
            let program = "import configparser, json, sys; ini = configparser.ConfigParser(interpolation=None); \
                 ini.read(sys.argv[1]); print(json.dumps(dict(ini['api'])))";
            let api = tried.read("python3", program, &tried.file(keys, "api.ini", None)).await;
            assert_eq!((&api["url"], &api["token"]), (&json!("https://api.example.com"), &json!(TOKEN)));
            assert!(api["expires"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        }
        "json" => {
            let program = "const it = JSON.parse(require('fs').readFileSync(process.argv[1])); \
                 it.valid = new Date(it.expiry_date) > new Date(); delete it.expiry_date; console.log(JSON.stringify(it))";
            let read = tried.read("node", program, &tried.file(keys, "credentials.json", None)).await;
            let expected =
                json!({"access_token": TOKEN, "token_type": "Bearer", "scope": "orders", "valid": true});
            assert_eq!(read, expected);
        }
        "values" => {
            let expected = [
                ("access_token", TOKEN),
                ("account", "none"),
                ("url", "https://eu.example.com/services/data"),
            ];
            assert!(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected), "{keys:?}");
        }
        "argocd" => {
            let expected = [
                ("password", TOKEN),
                ("type", "git"),
                ("url", "https://git.example.com/platform.git"),
                ("username", "oauth2"),
            ];
            assert!(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected), "{keys:?}");
        }
        "argocd-oci" => {
            let expected = [
                ("enableOCI", "true"),
                ("password", TOKEN),
                ("type", "helm"),
                ("url", "registry.example.com/charts"),
                ("username", "oauth2"),
            ];
            assert!(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected), "{keys:?}");
        }
        "flux-git" => {
            let expected = [("password", TOKEN), ("username", "oauth2")];
            assert!(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).eq(expected), "{keys:?}");
        }
        "envoy-gateway" => assert_eq!(keys["credential"], format!("Bearer {TOKEN}")),
        "envoy" => {
            let discovered: Value = serde_saphyr::from_str(&keys["token.yaml"]).unwrap();
            let secret = discovered.pointer("/resources/0/generic_secret/secret/inline_string");
            assert_eq!(secret, Some(&json!(format!("Bearer {TOKEN}"))));
        }
        "git" => {
            let file = tried.file(keys, ".gitconfig", Some("git.example.com"));
            let mut git = tried.command("git");
            git.args(["ls-remote", &tried.api.url("/platform.git")]);
            git.env("GIT_CONFIG_GLOBAL", file)
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_TERMINAL_PROMPT", "0");
            assert_eq!(tried.authorization(git).await, format!("Bearer {TOKEN}"));
        }
        "pip" => {
            let file = tried.file(keys, "pip.conf", Some("pypi.example.com"));
            let mut pip = tried.command("python3");
            pip.args(["-m", "pip", "download", "--no-deps", "--retries", "0", "nothing"]);
            pip.env("PIP_CONFIG_FILE", file).env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
            let expected = format!("Basic {}", base64(&format!("oauth2:{TOKEN}")));
            assert_eq!(tried.authorization(pip).await, expected);
        }
        "yarn" => {
            let settings: Value = serde_saphyr::from_str(&keys[".yarnrc.yml"]).unwrap();
            assert_eq!(settings["npmAuthToken"], TOKEN);
            // Without it the token is sent only for packages with a scope.
            assert_eq!(settings["npmAlwaysAuth"], true);
        }
        "maven" => {
            let program = "import json, sys, xml.etree.ElementTree as xml; \
                 print(json.dumps([it.text for it in xml.parse(sys.argv[1]).iter('value')]))";
            let read = tried.read("python3", program, &tried.file(keys, "settings.xml", None)).await;
            assert_eq!(read, json!([format!("Bearer {TOKEN}")]));
        }
        _ => panic!("{name}: a sample without a test"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn template_samples_are_read_by_their_software() {
    let scene = Scene::bare("template-samples").await;
    let answer = json!({"access_token": TOKEN, "token_type": "bearer", "expires_in": 3600, "instance_url": "https://eu.example.com"});
    let endpoint = ScriptedServer::start([Reply::Json(200, answer.to_string())]).await;
    scene.secret("idp-client", &[("client_id", "id"), ("client_secret", "hunter2-4711")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let samples = samples();
    for manifest in samples.values() {
        let mut manifest = manifest.clone();
        manifest["spec"]["provider"]["oauth2"]["tokenURL"] = json!(endpoint.url("/token"));
        scene.apply(manifest).await;
    }
    for (name, manifest) in &samples {
        scene.condition(name, "Ready", "True TokenValid").await;
        let secret = scene.secrets().get(name).await.unwrap();
        let template = &manifest["spec"]["target"]["template"];
        assert_eq!(secret.type_.as_deref(), template["type"].as_str().or(Some("Opaque")));
        let labels = secret.metadata.labels.unwrap();
        for (label, value) in template["metadata"]["labels"].as_object().into_iter().flatten() {
            assert_eq!(json!(labels[label]), *value);
        }
        let text = |bytes: k8s_openapi::ByteString| String::from_utf8(bytes.0).unwrap();
        let keys: Keys = secret.data.unwrap().into_iter().map(|(key, value)| (key, text(value))).collect();
        try_sample(name, &keys).await;
    }
    assert_eq!(endpoint.requests().len(), samples.len(), "one token request each");
}

/// The configuration of `docs/neighbours/packages.md`, of which only host and file are replaced.
#[tokio::test(flavor = "multi_thread")]
async fn cargo_sends_what_its_credential_provider_reads() {
    let mut tried = Tried::new().await;
    // cargo asks for credentials where an index refuses a request without.
    let refused = Reply::Answer(401, vec![("WWW-Authenticate", "Bearer".into())], vec![]);
    tried.api = ScriptedServer::start([refused, Reply::Json(404, "{}".into())]).await;
    let file = tried.folder.path().join("authorization");
    std::fs::write(&file, format!("Bearer {TOKEN}")).unwrap();
    let (_, rest) = PACKAGES.split_once("<!-- configuration: cargo -->").unwrap();
    let configuration = first_block(rest, "toml")
        .replace("https://cargo.example.com", &tried.api.url(""))
        .replace("/var/run/secrets/api/authorization", &file.display().to_string());
    std::fs::write(tried.folder.path().join("config.toml"), configuration).unwrap();
    let mut cargo = tried.command(env!("CARGO"));
    // Not the machine's: rustup finds its toolchains by HOME.
    cargo.args(["info", "--registry", "internal", "nothing"]).env("CARGO_HOME", tried.folder.path());
    assert_eq!(tried.authorization(cargo).await, format!("Bearer {TOKEN}"));
}
