//! Following from now, as it is typed.

use tributary_tests::{
    home::{Sandbox, stream},
    node::{NodeProcess, command},
    trade,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_followed_from_now_and_later_from_its_start() {
    let sandbox = Sandbox::new();
    let machine = NodeProcess::start(&sandbox.machine("machine", &[stream("/imu", "")])).await;
    let old = trade::ingest(&machine, "/imu", 0, 50).await;
    let home = sandbox.buyer("buyer", "");
    let buyer = NodeProcess::start(&home).await;
    let link = machine.link().await;

    let wrong = command(&home, &["subscribe", &link, "--from", "yesterday"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    let unknown = format!("dataset:{}", "0".repeat(64));
    let wrong = command(&home, &["subscribe", &link, "--from", &unknown]).await;
    assert_eq!(wrong.code, Some(5), "{wrong:?}");
    assert!(buyer.status().await.followed.is_empty(), "a beginning that is not there changes nothing");

    let followed = command(&home, &["subscribe", &link, "--from", "now"]).await;
    assert_eq!(followed.code, Some(0), "{followed:?}");
    assert!(followed.stdout.contains("followed from now on"), "{followed:?}");
    let new = trade::ingest(&machine, "/imu", 50, 50).await;
    trade::know(&buyer, new).await;
    trade::buy(&buyer, new).await;
    buyer.stop().await;

    // A restart keeps it, and what is not proven is said.
    let buyer = NodeProcess::start(&home).await;
    let status = buyer.status().await;
    let log = status.followed[0].logs.iter().find(|log| log.first > 0).unwrap();
    assert_eq!(status.followed[0].from, "now");
    let shown = command(&home, &["feed", "show"]).await;
    let place = format!("/imu is followed from entry {} of its log on", log.first);
    assert!(shown.stdout.contains(&place) && shown.stdout.contains("streams from: now"), "{shown:?}");
    let verified = command(&home, &["verify", &new.to_string()]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(verified.stdout.contains("nothing is proven of what came before"), "{verified:?}");
    let verified = command(&home, &["verify", &old.to_string()]).await;
    assert_eq!(verified.code, Some(5), "{verified:?}");
    assert!(
        verified.stderr.contains("only 0 are known here") && verified.stderr.contains("--from dataset:"),
        "{verified:?}"
    );

    let back = command(&home, &["subscribe", &link, "--from", "start"]).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    trade::buy(&buyer, old).await;
    let status = buyer.status().await;
    assert!(
        status.followed[0].from == "start" && status.followed[0].logs.iter().all(|log| log.first == 0),
        "{status:?}"
    );
}
