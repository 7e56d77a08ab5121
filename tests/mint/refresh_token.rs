//! Grants that spend a refresh token: the returned one is never lost.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::support::authorization_server::ClientSpec;
use super::support::eventually;
use super::support::process::{self, RUN_LIMIT, wait_within};
use super::support::program::{PROGRAM, run};
use super::support::scripted_server::{Reply, ScriptedServer};
use super::{FLAGS, SECRET, documents, mint, oauth2, register, scripted, secret};

fn refresh_client() -> ClientSpec {
    ClientSpec { grant_types: vec!["refresh_token"], rotate_refresh_token: true, ..ClientSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_never_loses_refresh_token() {
    let server = register("rotates", refresh_client()).await;
    let seed = server.seed_refresh_token("rotates").await;
    let refresh = |url: &str| oauth2(url, json!({"grant": {"refreshToken": {}}}));
    let with =
        |seed: &str| secret(json!({"client_id": "rotates", "client_secret": SECRET, "refresh_token": seed}));
    let objects = [refresh(&server.vgs_token_url()), with(&seed)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("next");
    let save = ["--save-refresh-token", path.to_str().unwrap()];

    mint(&objects, &[]).await.assert(1, &["--save-refresh-token FILE"]);
    std::fs::write(&path, "precious").unwrap();
    mint(&objects, &save).await.assert(1, &["File exists", "not spent"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let nowhere = folder.path().join("no/such/folder");
    mint(&objects, &["--save-refresh-token", nowhere.to_str().unwrap()]).await.assert(1, &["not spent"]);
    assert_eq!(server.requests("rotates").await.total, 0, "no token request");

    let said = mint(&objects, &save).await;
    said.assert(0, &["saved in", "refresh_token: [redacted, "]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let next = std::fs::read_to_string(&path).unwrap();
    assert!(next != seed && !said.all().contains(&next) && !said.all().contains(&seed), "{}", said.all());
    std::fs::remove_file(&path).unwrap();
    mint(&[refresh(&server.vgs_token_url()), with(&next)], &save).await.assert(0, &["saved in"]);
    std::fs::remove_file(&path).unwrap();

    // Whatever else is wrong with the response.
    for (status, body, code) in [
        (200, r#"{"access_token":"","refresh_token":"hunter2-next"}"#, 3),
        (200, r#"{"error":"server_error","refresh_token":"hunter2-next"}"#, 4),
        (200, r#"{"access_token":"t","token_type":"DPoP","refresh_token":"hunter2-next"}"#, 3),
    ] {
        let tricks = scripted(status, body).await;
        let said = mint(&[refresh(&tricks.url("/token")), with("r")], &save).await;
        said.assert(code, &["saved in"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2-next", "{body}");
        assert!(!said.all().contains("hunter2"), "{}", said.all());
        std::fs::remove_file(&path).unwrap();
    }

    // Where none is returned, no empty file is left.
    let refuses = scripted(400, r#"{"error":"invalid_grant"}"#).await;
    let said = mint(&[refresh(&refuses.url("/token")), with("r")], &save).await;
    said.assert(3, &["GrantRejected", "nothing was saved"]);
    assert!(!path.exists());
    let cut = ScriptedServer::start(vec![Reply::Reset]).await;
    mint(&[refresh(&cut.url("/token")), with("r")], &save).await.assert(4, &["try it once more, soon"]);
}

/// Arguments and manifests of a refreshToken grant at this server, with the file for the returned refresh token.
fn spending(server: &ScriptedServer, file: &Path) -> (Vec<String>, String) {
    let grant = json!({"grant": {"refreshToken": {}}, "clientAuthentication": {"none": {}}});
    let objects = [oauth2(&server.url("/token"), grant), secret(json!({"refresh_token": "r"}))];
    let flags = ["mint", "-f", "-", "--save-refresh-token", file.to_str().unwrap()];
    (flags.iter().chain(&FLAGS).map(|flag| (*flag).to_owned()).collect(), documents(&objects))
}

const NEXT: &str = r#"{"access_token":"t","expires_in":300,"refresh_token":"hunter2-next"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn mint_interrupted_saves_refresh_token_of_response_in_flight() {
    let pause = Duration::from_millis(10);
    let server = ScriptedServer::start(vec![Reply::Drip(NEXT.to_owned(), pause)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("next");
    let (arguments, text) = spending(&server, &file);
    let mut child =
        Command::new(PROGRAM).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    eventually("the request", Duration::from_secs(20), async || {
        if server.requests().is_empty() { Err("none") } else { Ok(()) }
    })
    .await;
    for signal in ["INT", "TERM", "HUP"] {
        assert!(process::signal(signal, &child.id().to_string()));
    }
    let wait = move || wait_within(&mut child, "mint", RUN_LIMIT);
    let status = tokio::task::spawn_blocking(wait).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2-next");
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_unsavable_refresh_token_is_printed() {
    let long = format!("hunter2-{}", "next".repeat(5000));
    for token in ["hunter2-next", &long] {
        // However long it is: it may be the only valid one.
        let server = scripted(200, &NEXT.replace("hunter2-next", token)).await;
        let folder = tempfile::tempdir().unwrap();
        let (arguments, text) = spending(&server, &folder.path().join("next"));
        let mut command = Command::new("bash");
        // As on a full disk: files cannot grow.
        command.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$@""#, "bash", PROGRAM]).args(arguments);
        let said = run(command, &text).await;
        said.assert(5, &["could not be saved", &format!("\n{token}\n")]);
    }
}
