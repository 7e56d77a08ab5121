//! The admin server of a running operator.

use super::support::eventually;
use super::support::operator::Operator;
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
    let expected = "[+]ping ok\n[+]watches ok\n[+]work-queue ok\n[+]mint-queue ok\n[+]leader-election ok\n[+]refresh-token-saver ok\n[+]clock ok\nlivez check passed\n";
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
