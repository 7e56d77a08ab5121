//! A tenant that does what it can to harm the others: everything at once, in a namespace of its own, beside honest
//! TokenSources. `OPERATOR_WRAPPER=hack/limit-memory.sh MEMORY_LIMIT=128M SCENARIO=hostile make bench` is the run of
//! docs/sizing.md.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokensource_api::TokenSource;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::fleet::lateness::Lateness;
use crate::fleet::operator::Operator;
use crate::fleet::{self, AT_ONCE, Fleet, setting};
use crate::support::control_plane::ControlPlane;

/// How much later the 99th percentile of the honest refreshes may be than without the tenant, in seconds.
const LATER: i64 = 5;

/// Refreshes without and with the hostile tenant.
pub async fn run() -> Result<(), String> {
    let seconds = setting("SECONDS", 330);
    let fleet = Fleet::create(setting("SOURCES", 1000), 300).await;
    let alone = observe("alone", &fleet, seconds).await;
    let tenant = Tenant::new().await;
    let _attacks = tenant.attack(&fleet).await;
    let beside = observe("beside a hostile tenant", &fleet, seconds).await;
    if beside.expired > 0.0 {
        return Err(format!("{:.0} s of expired tokens", beside.expired));
    }
    if beside.lateness > alone.lateness + LATER {
        return Err(format!("refreshes were {} s late, alone {} s", beside.lateness, alone.lateness));
    }
    Ok(())
}

struct Observed {
    /// The 99th percentile, in seconds.
    lateness: i64,
    /// Seconds without a valid token, of all honest sources.
    expired: f64,
}

/// Runs an operator, and observes the honest sources.
async fn observe(name: &str, fleet: &Fleet, seconds: usize) -> Observed {
    let mut operator = Operator::start();
    let late = Lateness::observe(fleet.api(), Duration::from_secs(seconds as u64)).await;
    let expired = fleet::series_of(
        &fleet::metrics().await.unwrap(),
        "tokensource_token_expired_seconds_total",
        &format!("namespace=\"{}\"", fleet.namespace),
    )
    .sum::<f64>();
    let usage = operator.usage();
    println!(
        "{name}: in {seconds} s {late}; {expired:.0} s expired; {:.1} s of CPU; {}",
        usage.cpu,
        usage.memory()
    );
    operator.stop(Duration::from_secs(60)).await;
    Observed { lateness: late.at(99), expired }
}

/// A namespace, and all that its tenant may create there.
struct Tenant {
    client: Client,
    namespace: String,
}

impl Tenant {
    async fn new() -> Self {
        let control_plane = ControlPlane::shared();
        Tenant { client: control_plane.client().await, namespace: control_plane.namespace("hostile").await }
    }

    /// Creates everything, and goes on changing it until the result is dropped.
    async fn attack(&self, fleet: &Fleet) -> JoinSet<()> {
        let begun = Instant::now();
        self.create_secrets().await;
        self.create_config_maps().await;
        let (mut servers, urls) = servers().await;
        let mut sources = self.large_specs();
        sources.extend(self.large_requests(&urls));
        sources.extend(self.many_templates(&urls));
        sources.extend(self.dead_endpoints());
        sources.extend(self.short_tokens(&urls));
        sources.extend(self.crowd(fleet));
        let (all, refused) = (sources.len(), self.apply(sources).await);
        let kinds: BTreeSet<&str> = refused.iter().filter_map(|name| name.split('-').next()).collect();
        println!(
            "the hostile tenant is there after {:.0} s; the API server refused {} of its {all} TokenSources: {kinds:?}",
            begun.elapsed().as_secs_f64(),
            refused.len()
        );
        let tenant = Tenant { client: self.client.clone(), namespace: self.namespace.clone() };
        servers.spawn(async move { tenant.change_for_ever().await });
        servers
    }

    fn sources(&self) -> Api<TokenSource> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// 1 MiB of metadata each, and values that grow when they are encoded.
    async fn create_secrets(&self) {
        let secrets = self.secrets();
        stream::iter(0..110)
            .for_each_concurrent(8, |n| {
                let labels: HashMap<String, String> = (0..1500)
                    .map(|label| {
                        (format!("{}.example.com/label-{label:04}", "a".repeat(200)), "x".repeat(60))
                    })
                    .collect();
                let secret = json!({"apiVersion": "v1", "kind": "Secret",
                    "metadata": {"name": format!("large-{n}"), "labels": labels}});
                let secrets = secrets.clone();
                async move {
                    let applied = PatchParams::apply("bench");
                    secrets.patch(&format!("large-{n}"), &applied, &Patch::Apply(&secret)).await.unwrap();
                }
            })
            .await;
        let small = |name: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let values: HashMap<String, String> =
            (0..128).map(|n| (format!("value-{n}"), format!("{n:04}{}", "v".repeat(4092)))).collect();
        for secret in [
            small("quotes", json!({"client_id": "c", "client_secret": "s", "quotes": "\"".repeat(900_000)})),
            small("many", json!(values)),
            small("credentials", json!({"client_id": fleet::CLIENT, "client_secret": "secret"})),
            small("own", json!({"client_id": "own", "client_secret": "secret"})),
        ] {
            self.secrets()
                .create(&PostParams::default(), &serde_json::from_value(secret).unwrap())
                .await
                .unwrap();
        }
    }

    async fn create_config_maps(&self) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        let bundle = certificate.repeat(1_000_000 / certificate.len());
        stream::iter(0..64)
            .for_each_concurrent(4, |n| {
                let map = json!({"metadata": {"name": format!("bundle-{n}")},
                    "data": {"ca.crt": format!("# {n}\n{bundle}")}});
                let maps = maps.clone();
                async move {
                    maps.create(&PostParams::default(), &serde_json::from_value(map).unwrap()).await.unwrap();
                }
            })
            .await;
    }

    /// Applies them; returns those that the API server refused.
    async fn apply(&self, sources: Vec<Value>) -> Vec<String> {
        let api = self.sources();
        let results = stream::iter(sources).map(|source| {
            let (api, name) = (api.clone(), source["metadata"]["name"].as_str().unwrap().to_owned());
            async move {
                let source = serde_json::from_value(source).unwrap();
                api.create(&PostParams::default(), &source).await.err().map(|_| name)
            }
        });
        results.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
    }

    fn source(&self, name: String, secret: &str, provider: Value, more: Value) -> Value {
        let mut spec =
            json!({"provider": {"oauth2": provider}, "credentials": {"secretRef": {"name": secret}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
            "metadata": {"name": name}, "spec": spec})
    }

    /// 150 specs of 600 kB that nothing is done with.
    fn large_specs(&self) -> Vec<Value> {
        let data: HashMap<String, String> =
            (0..32).map(|n| (format!("key-{n}"), "x".repeat(16_384))).collect();
        let parameters: HashMap<String, String> =
            (0..32).map(|n| (format!("p-{n}"), "x".repeat(4096))).collect();
        let source = |n| {
            let provider = json!({"tokenURL": "https://example.com/token", "parameters": parameters});
            let more = json!({"suspend": true, "target": {"template": {"data": data}}});
            self.source(format!("large-{n}"), "own", provider, more)
        };
        (0..150).map(source).collect()
    }

    /// Bodies that grow when they are encoded, roots, headers and bodies of responses, an answer that repeats all values.
    fn large_requests(&self, urls: &Urls) -> Vec<Value> {
        let quotes: HashMap<String, &str> = (0..32).map(|n| (format!("p-{n}"), "quotes")).collect();
        let provider = json!({"tokenURL": urls.echo, "requestEncoding": "JSON", "secretParameters": quotes});
        let mut all = vec![self.source("quotes".into(), "quotes", provider, json!({}))];
        all.extend((0..64).map(|n| {
            let more = json!({"tls": {"caBundle": {"configMapKeyRef": {"name": format!("bundle-{n}"), "key": "ca.crt"}}}});
            let provider =
                json!({"tokenURL": urls.endless[n % urls.endless.len()].replace("http:", "https:")});
            self.source(format!("bundle-{n}"), "own", provider, more)
        }));
        all.extend((0..300).map(|n| {
            let provider = json!({"tokenURL": format!("{}{n}", urls.endless[n % urls.endless.len()])});
            self.source(format!("endless-{n}"), "own", provider, json!({}))
        }));
        all.extend((0..4).map(|of| {
            let values: HashMap<String, String> =
                (0..32).map(|n| (format!("p-{n}"), format!("value-{}", of * 32 + n))).collect();
            let provider = json!({"tokenURL": urls.echo, "secretParameters": values,
                "clientAuthentication": {"none": {}}});
            let more = json!({"credentials": {"secretRef": {"name": "many"}, "clientID": "c"}});
            self.source(format!("echo-{of}"), "many", provider, more)
        }));
        all
    }

    /// Templates that make much of a token of 32 KiB.
    fn many_templates(&self, urls: &Urls) -> Vec<Value> {
        let template = "{{ access_token | list | join('-') | replace('-', '+') }}".repeat(46);
        let source = |n| {
            let data: HashMap<String, &String> =
                (0..8).map(|key| (format!("key-{key}"), &template)).collect();
            let more = json!({"target": {"template": {"data": data}}});
            self.source(format!("template-{n}"), "own", json!({"tokenURL": urls.large}), more)
        };
        (0..8).map(source).collect()
    }

    /// Endpoints that do not answer, each with a name of its own.
    fn dead_endpoints(&self) -> Vec<Value> {
        let source = |n: usize| {
            let url = if n.is_multiple_of(2) {
                format!("http://127.0.0.1:9/{n}")
            } else {
                format!("https://name-{n}.invalid/token")
            };
            self.source(format!("dead-{n}"), "own", json!({"tokenURL": url}), json!({}))
        };
        (0..100).map(source).collect()
    }

    /// Tokens of a second, so that a refresh is always due.
    fn short_tokens(&self, urls: &Urls) -> Vec<Value> {
        let provider = json!({"tokenURL": urls.short});
        (0..200).map(|n| self.source(format!("short-{n}"), "own", provider.clone(), json!({}))).collect()
    }

    /// At the honest issuer, with its client, and one Secret that changes all the time.
    fn crowd(&self, fleet: &Fleet) -> Vec<Value> {
        let provider =
            json!({"tokenURL": fleet.server.vgs_token_url(), "clientAuthentication": {"post": {}}});
        (0..1000)
            .map(|n| self.source(format!("crowd-{n}"), "credentials", provider.clone(), json!({})))
            .collect()
    }

    /// Labels the Secret that all name, requests refreshes, and moves a dead endpoint, once a second.
    async fn change_for_ever(&self) {
        let patch = PatchParams::default();
        for n in 0_u64.. {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let label = json!({"metadata": {"labels": {"n": n.to_string()}}});
            let request =
                json!({"metadata": {"annotations": {"tokensource.dev/refresh-requested-at": n.to_string()}}});
            let url =
                json!({"spec": {"provider": {"oauth2": {"tokenURL": format!("http://127.0.0.1:9/{n}")}}}});
            // The API server may be busy.
            let _ = self.secrets().patch("credentials", &patch, &Patch::Merge(&label)).await;
            let _ = self.sources().patch("dead-0", &patch, &Patch::Merge(&url)).await;
            for crowd in 0..20 {
                let name = format!("crowd-{crowd}");
                let _ = self.sources().patch(&name, &patch, &Patch::Merge(&request)).await;
            }
        }
    }
}

/// Where the tenant's own servers listen.
struct Urls {
    /// 360 kB of headers, then a body byte by byte.
    endless: Vec<String>,
    /// 401, with the request's body in the description.
    echo: String,
    /// A token of a second.
    short: String,
    /// A token of 32 KiB.
    large: String,
}

async fn servers() -> (JoinSet<()>, Urls) {
    let mut servers = JoinSet::new();
    let mut endless = vec![];
    for _ in 0..8 {
        endless.push(serve(&mut servers, Answer::Endless).await);
    }
    let echo = serve(&mut servers, Answer::Echo).await;
    let short = serve(&mut servers, Answer::Short).await;
    let large = serve(&mut servers, Answer::Large).await;
    (servers, Urls { endless, echo, short, large })
}

#[derive(Clone, Copy)]
enum Answer {
    Endless,
    Echo,
    Short,
    Large,
}

async fn serve(servers: &mut JoinSet<()>, answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    servers.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(async move { drop(respond(stream, answer).await) });
            while connections.try_join_next().is_some() {}
        }
    });
    url
}

async fn respond(mut stream: TcpStream, answer: Answer) -> std::io::Result<()> {
    let mut request = vec![0; 64 * 1024];
    let length = stream.read(&mut request).await?;
    let json = |status: &str, body: &Value| {
        let body = body.to_string();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    match answer {
        Answer::Short | Answer::Large => {
            let (token, lifetime) = match answer {
                Answer::Short => ("short".to_owned(), 1),
                _ => ("t".repeat(32 * 1024), 60),
            };
            let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime});
            stream.write_all(json("200 OK", &body).as_bytes()).await
        }
        Answer::Echo => {
            let words = String::from_utf8_lossy(&request[..length]);
            let body = json!({"error": "invalid_client", "error_description": words.chars().rev().take(8000).collect::<String>()});
            stream.write_all(json("401 Unauthorized", &body).as_bytes()).await
        }
        Answer::Endless => {
            let headers = format!("x-{}: {}\r\n", "h".repeat(20), "v".repeat(3600)).repeat(98);
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\n{headers}content-length: 100000\r\n\r\n").as_bytes())
                .await?;
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}
