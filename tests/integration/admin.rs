//! The admin server of a running operator.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, output_beside, result};
use super::support::relay::Relay;
use super::support::scene::{SOON, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn running_operator_is_live_and_ready() {
    let scene = Scene::bare("admin").await;
    let operator = Operator::start(&scene.namespace).await;
    let (status, media_type, body) = operator.admin("/livez").await;
    assert_eq!((status, media_type.as_str(), body.as_str()), (200, "text/plain; charset=utf-8", "ok"));
    eventually("the operator is ready", SOON, async || match operator.admin("/readyz?verbose").await {
        (200, _, body) => {
            assert_eq!(body, "[+]caches ok\n[+]shutdown ok\nreadyz check passed\n");
            Ok(())
        }
        other => Err(other),
    })
    .await;
    let (_, _, body) = operator.admin("/livez?verbose").await;
    let expected = "[+]ping ok\n[+]watches ok\n[+]work-queue ok\n[+]mint-queue ok\n[+]leader-election ok\n[+]refresh-token-saver ok\nlivez check passed\n";
    assert_eq!(body, expected);
    let (status, media_type, body) = operator.admin("/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(media_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(body.contains("\ntokensource_build_info{version="), "{body}");
    assert_eq!(operator.admin("/").await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_waiting_for_first_list_is_live_but_not_ready() {
    let scene = Scene::bare("not-ready").await;
    let relay = Relay::start(scene.client.clone()).await;
    relay.hold("secrets?");
    let operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &[]).await;
    let (status, _, body) = operator.admin("/readyz").await;
    assert_eq!(status, 500);
    assert!(body.starts_with("[-]caches failed: not all TokenSources"), "{body}");
    assert_eq!(operator.admin("/livez").await.0, 200);
    relay.release();
    eventually("the operator is ready", SOON, async || match operator.admin("/readyz").await {
        (200, ..) => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_request_neither_fail_probes_nor_last() {
    let scene = Scene::bare("half-requests").await;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("probe.sock");
    let probe = async |page: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["probe", page, "--socket"]).arg(&socket);
        result(&output_beside(command, "").await)
    };
    assert!(
        probe("livez").await.unwrap_err().contains("probe.sock does not answer: "),
        "there is no operator"
    );
    // As it is left by a container that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let flags = ["--probe-socket", socket.to_str().unwrap()];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    eventually("the operator is ready", SOON, async || probe("readyz").await).await;

    let half = || {
        let mut connection = TcpStream::connect(operator.admin_address()).unwrap();
        connection.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n").unwrap();
        connection.set_read_timeout(Some(SOON)).unwrap();
        connection
    };
    let (began, mut first) = (Instant::now(), half());
    let mut connections: Vec<_> = (0..300).map(|_| half()).collect();
    for page in ["livez", "readyz"] {
        probe(page).await.unwrap_or_else(|said| panic!("{page} during the attack: {said}"));
    }
    // A head must arrive within a second.
    first.read_to_end(&mut vec![]).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    connections.clear();
    let (status, ..) = operator.admin("/metrics").await;
    assert_eq!(status, 200);

    // The kubelet reports why a probe fails.
    operator.signal("STOP");
    eventually("the probe fails", SOON, async || match probe("livez").await {
        Err(said) if said.contains("probe.sock does not answer: timed out") => Ok(()),
        other => Err(other),
    })
    .await;
}
