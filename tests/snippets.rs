//! Every snippet of `docs/use-the-token.md` runs exactly as printed there, against a server on loopback that accepts one
//! token, with the token in a folder built and swapped as the kubelet does. The rule: the token is read at every call, a
//! 401 (and nothing else) leads to one more read and one more call, and the token appears in no output, on no command line
//! and in no environment.
//!
//! Needs bash, curl, python3, node, go and a JDK on the PATH. A missing one fails its test.
#![cfg(unix)] // the kubelet's swap is a symbolic link
#![cfg(test)] // so that clippy lets helpers panic, too

#[path = "support/process.rs"]
mod process;

use std::{
    ffi::OsStr,
    fs, io,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use process::{BUILD_LIMIT, RUN_LIMIT, output_within, wait_within};

const PAGE: &str = include_str!("../docs/use-the-token.md");
const ANSWER: &str = "the answer of the API";

// ---------------------------------------------------------------------------------------------- the six languages

#[test]
fn bash_snippet_obeys_the_rule() {
    let code = snippet("bash", "bash");
    let work = tempfile::tempdir().unwrap();
    let script = work.path().join("call.sh");
    fs::write(&script, code).unwrap();
    on_path("curl", "--version", "curl 7.55 or later (Debian: apt-get install curl)");
    let bash = || tool("bash", "bash (Debian: apt-get install bash)");
    obeys_the_rule("bash", || with(bash(), [script.as_os_str()]));
    // A traced script must not print the token either.
    obeys_the_rule("bash-traced", || with(bash(), [OsStr::new("-x"), script.as_os_str()]));
}

#[test]
fn python_snippet_obeys_the_rule() {
    let work = tempfile::tempdir().unwrap();
    let script = work.path().join("call.py");
    fs::write(&script, snippet("python", "python")).unwrap();
    obeys_the_rule("python", || {
        with(tool("python3", "Python 3.8 or later (Debian: apt-get install python3)"), [&script])
    });
}

#[test]
fn node_snippet_obeys_the_rule() {
    let work = tempfile::tempdir().unwrap();
    let script = work.path().join("call.mjs");
    fs::write(&script, snippet("node", "javascript")).unwrap();
    obeys_the_rule("node", || {
        with(tool("node", "Node 18 or later (Debian: apt-get install nodejs, or nodejs.org)"), [&script])
    });
}

#[test]
fn go_snippet_obeys_the_rule() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("main.go"), snippet("go", "go")).unwrap();
    let mut build = tool("go", "Go 1.16 or later (Debian: apt-get install golang-go, or go.dev/dl)");
    build.args(["build", "-o", "call", "main.go"]).current_dir(work.path());
    build.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "").env("CGO_ENABLED", "0");
    succeeds(build);
    obeys_the_rule("go", || Command::new(work.path().join("call")));
}

#[test]
fn java_snippet_obeys_the_rule() {
    let work = tempfile::tempdir().unwrap();
    fs::write(work.path().join("UseTheToken.java"), snippet("java", "java")).unwrap();
    let jdk = "a JDK, 11 or later (Debian: apt-get install default-jdk-headless)";
    let mut build = tool("javac", jdk);
    build.args(["-Werror", "-Xlint:all", "-d", ".", "UseTheToken.java"]).current_dir(work.path());
    succeeds(build);
    obeys_the_rule("java", || {
        with(tool("java", jdk), [OsStr::new("-cp"), work.path().as_os_str(), OsStr::new("UseTheToken")])
    });
}

#[test]
fn rust_snippet_obeys_the_rule() {
    assert_eq!(
        snippet("rust", "rust"),
        include_str!("../examples/use_the_token/page.rs"),
        "the Rust snippet of docs/use-the-token.md and examples/use_the_token/page.rs differ: copy one to the other"
    );
    // A plain `cargo test` has built the example already; `cargo test --test snippets` has not.
    let mut build = tool("cargo", "Rust (rustup.rs)");
    build.args(["build", "--offline", "--example", "use_the_token", "--message-format=json"]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let messages = String::from_utf8(succeeds(build).stdout).unwrap();
    let example = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "use_the_token")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable that it has built");
    obeys_the_rule("rust", || Command::new(&example));
}

/// A snippet without a test would become outdated.
#[test]
fn every_snippet_of_the_page_is_tested() {
    let mut named: Vec<_> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("<!-- snippet: ").and_then(|rest| rest.strip_suffix(" -->")))
        .collect();
    named.sort_unstable();
    assert_eq!(named, ["bash", "go", "java", "node", "python", "rust"]);
}

// ------------------------------------------------------------------------------------------------------- the rule

fn obeys_the_rule(language: &str, command: impl Fn() -> Command) {
    // A: the token is valid.
    let case = Case::new(language, "valid");
    let server = ResourceServer::start(&case.first, OnRefusal::Refuse);
    let output = case.run(command(), &server);
    case.succeeded(&output);
    case.requests(&server, &[&case.first]);

    // B: the token has expired, and the new one is in the folder before the caller receives the 401.
    let case = Case::new(language, "swapped");
    let server =
        ResourceServer::start(&case.second, OnRefusal::Swap(case.mount.clone(), case.second.clone()));
    let output = case.run(command(), &server);
    case.succeeded(&output);
    case.requests(&server, &[&case.first, &case.second]);

    // C: every token is refused. (Without a WWW-Authenticate header, which some HTTP clients do not expect.)
    let case = Case::new(language, "refused");
    let server = ResourceServer::start("another token", OnRefusal::RefuseBarely);
    let output = case.run(command(), &server);
    case.failed(&output, "401");
    case.requests(&server, &[&case.first, &case.first]);

    // D: other statuses cause no second call.
    for (name, status) in [("forbidden", "403 Forbidden"), ("unavailable", "503 Service Unavailable")] {
        let case = Case::new(language, name);
        let server = ResourceServer::start("another token", OnRefusal::Fail(status));
        let output = case.run(command(), &server);
        case.failed(&output, &status[..3]);
        case.requests(&server, &[&case.first]);
    }

    // E: there is no file.
    let case = Case::new(language, "absent");
    fs::remove_file(case.mount.folder.path().join("access_token")).unwrap();
    let server = ResourceServer::start(&case.first, OnRefusal::Refuse);
    let output = case.run(command(), &server);
    assert!(!output.status.success(), "{} continued without a token: {output:?}", case.name);
}

struct Case {
    name: String,
    first: String,
    second: String,
    mount: Arc<Mount>,
}

impl Case {
    fn new(language: &str, name: &str) -> Case {
        let name = format!("{language}-{name}");
        // All kinds of characters that RFC 6750 allows; unlike any other text on this machine.
        let token = |nth| format!("{nth}.{name}.{}-._~+/==", std::process::id());
        let (first, second) = (token("first"), token("second"));
        let mount = Arc::new(Mount::new(&first));
        Case { name, first, second, mount }
    }

    fn run(&self, mut command: Command, server: &ResourceServer) -> Output {
        command.env("TOKEN_FILE", self.mount.folder.path().join("access_token"));
        command.env("API_URL", format!("http://{}/v1/items", server.address));
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        let output = output_within(command, "", RUN_LIMIT);
        let text = text_of(&output);
        for token in [&self.first, &self.second] {
            assert!(!text.contains(token.as_str()), "{} prints the token:\n{text}", self.name);
        }
        output
    }

    fn succeeded(&self, output: &Output) {
        assert!(output.status.success(), "{} failed ({}):\n{}", self.name, output.status, text_of(output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{ANSWER}\n"), "{}", self.name);
    }

    fn failed(&self, output: &Output, says: &str) {
        assert!(!output.status.success(), "{} should have failed:\n{}", self.name, text_of(output));
        assert!(output.stdout.is_empty(), "{} prints an answer:\n{}", self.name, text_of(output));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(says), "{} does not say {says}:\n{errors}", self.name);
    }

    fn requests(&self, server: &ResourceServer, tokens: &[&String]) {
        let seen = server.seen.lock().unwrap();
        let expected: Vec<_> = tokens.iter().map(|token| format!("Bearer {token}")).collect();
        assert_eq!(seen.authorizations, expected, "{}", self.name);
        assert_eq!(
            seen.exposed,
            Vec::<String>::new(),
            "{}: the token is visible to other processes",
            self.name
        );
    }
}

// --------------------------------------------------------------------------------------------- what the kubelet does

/// A Secret volume as the kubelet lays it out: links to `..data`, itself a link to a folder for each version.
struct Mount {
    folder: tempfile::TempDir,
    versions: AtomicU32,
}

impl Mount {
    fn new(token: &str) -> Mount {
        let mount = Mount { folder: tempfile::tempdir().unwrap(), versions: AtomicU32::new(0) };
        mount.swap(token);
        for file in ["access_token", "token_type", "expires_at"] {
            symlink(Path::new("..data").join(file), mount.folder.path().join(file)).unwrap();
        }
        mount
    }

    fn swap(&self, token: &str) {
        let folder = self.folder.path();
        let before = fs::read_link(folder.join("..data")).ok();
        let version = format!("..2026_11_22_05_02_24.{}", self.versions.fetch_add(1, Ordering::Relaxed));
        fs::create_dir(folder.join(&version)).unwrap();
        let files =
            [("access_token", token), ("token_type", "Bearer"), ("expires_at", "2026-11-22T05:05:00Z")];
        for (file, content) in files {
            fs::write(folder.join(&version).join(file), content).unwrap();
        }
        symlink(&version, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if let Some(before) = before {
            fs::remove_dir_all(folder.join(before)).unwrap();
        }
    }
}

// ------------------------------------------------------------------------------------------------------- the server

enum OnRefusal {
    Refuse,
    /// Without `WWW-Authenticate`.
    RefuseBarely,
    /// Writes this token to this folder, then refuses.
    Swap(Arc<Mount>, String),
    /// Another status line than that of 401.
    Fail(&'static str),
}

#[derive(Default)]
struct SeenRequests {
    authorizations: Vec<String>,
    /// Processes whose command line or environment contained the token during the call.
    exposed: Vec<String>,
}

struct ResourceServer {
    address: SocketAddr,
    seen: Arc<Mutex<SeenRequests>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ResourceServer {
    fn start(accepted: &str, on_refusal: OnRefusal) -> ResourceServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(SeenRequests::default())), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (seen, stop, accepted) = (seen.clone(), stop.clone(), format!("Bearer {accepted}"));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // A connection without a request does not count.
                    let _ = serve(&stream.unwrap(), &accepted, &on_refusal, &seen);
                }
            }
        });
        ResourceServer { address, seen, stop, thread: Some(thread) }
    }
}

impl Drop for ResourceServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request, one answer, and the connection ends.
fn serve(
    stream: &TcpStream,
    accepted: &str,
    on_refusal: &OnRefusal,
    seen: &Mutex<SeenRequests>,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        match line? {
            line if line.is_empty() => break,
            line => head.push(line),
        }
    }
    let Some(request) = head.first() else { return Ok(()) };
    assert!(request.starts_with("GET /v1/items HTTP/1."), "an unexpected request: {request}");
    let authorization = head
        .iter()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default();
    {
        let mut seen = seen.lock().unwrap();
        if let Some(token) = authorization.strip_prefix("Bearer ") {
            seen.exposed.extend(processes_that_expose(token));
        }
        seen.authorizations.push(authorization.clone());
    }
    let challenge = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n";
    let (status, header, body) = if authorization == accepted {
        ("200 OK", "", ANSWER)
    } else {
        match on_refusal {
            OnRefusal::Refuse => ("401 Unauthorized", challenge, "refused"),
            OnRefusal::RefuseBarely => ("401 Unauthorized", "", "refused"),
            OnRefusal::Swap(mount, token) => {
                mount.swap(token);
                ("401 Unauthorized", challenge, "refused")
            }
            OnRefusal::Fail(status) => (*status, "", "failed"),
        }
    };
    let length = body.len();
    write!(
        &mut &*stream,
        "HTTP/1.1 {status}\r\n{header}Content-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The caller and its children can be inspected while it waits for the response. Linux only: elsewhere there is no /proc.
fn processes_that_expose(token: &str) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let holds = |path: &Path| {
        fs::read(path).is_ok_and(|bytes| bytes.windows(token.len()).any(|window| window == token.as_bytes()))
    };
    processes
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|process| process.file_name().is_some_and(|pid| pid.as_encoded_bytes()[0].is_ascii_digit()))
        .flat_map(|process| [process.join("cmdline"), process.join("environ")])
        .filter(|path| holds(path))
        .map(|path| path.display().to_string())
        .collect()
}

// --------------------------------------------------------------------------------------------- snippets and processes

/// The code block that follows the marker, byte by byte.
fn snippet(name: &str, language: &str) -> &'static str {
    let marker = format!("<!-- snippet: {name} -->\n```{language}\n");
    let (_, rest) = PAGE.split_once(&marker).unwrap_or_else(|| {
        panic!("docs/use-the-token.md has no {marker:?}: a marker, directly followed by the code block")
    });
    let end = rest.find("\n```\n").expect("the block ends");
    &rest[..=end]
}

fn tool(name: &str, remedy: &str) -> Command {
    on_path(name, if name == "go" { "version" } else { "--version" }, remedy);
    Command::new(name)
}

fn on_path(name: &str, version: &str, remedy: &str) {
    let runs = Command::new(name).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let status = runs.map(|mut child| wait_within(&mut child, name, RUN_LIMIT));
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "`{name} {version}` does not run ({status:?}). Install {remedy}: the snippets of docs/use-the-token.md are \
         tested in every language, and none is skipped"
    );
}

fn with<S: AsRef<OsStr>>(mut command: Command, arguments: impl IntoIterator<Item = S>) -> Command {
    command.args(arguments);
    command
}

/// Runs a compiler, which may have all of this crate to compile.
fn succeeds(command: Command) -> Output {
    let called = format!("{command:?}");
    let output = output_within(command, "", BUILD_LIMIT);
    assert!(output.status.success(), "{called}: {}\n{}", output.status, text_of(&output));
    output
}

fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
