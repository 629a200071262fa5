//! Nodes with networks of their own, cut and healed.

use tributary_tests::{netns::World, wait::until};

use super::common::{Net, nothing_left, processes};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_cuts_packets_and_after_healing_nothing_is_missing() {
    // Says so, or fails, where there are no namespaces.
    if World::new().is_none() {
        return;
    }
    let net = Net::up(&["--machines", "1", "--buyers", "2", "--speed", "4", "--namespaces"]).await;
    let id = net.id();
    assert_eq!(processes(&id).len(), 3 + 1 + 3 + 1, "nodes, feeder, and what keeps their networks and the bridge");
    net.packages("buyer-2", 50).await;

    let cut = net.run("partition", &["machine-1,buyer-1 | buyer-2"]).await;
    assert_eq!(cut.code, Some(0), "{cut:?}");
    until("dropped packets", async || {
        let dropped = net.status().await["dropped"].clone();
        (dropped["buyer-2"].as_u64()? > 0 && dropped["machine-1"].as_u64()? > 0).then_some(())
    })
    .await;
    // While one is cut off the other gets on, and falls behind it more and more.
    until("the one beyond to fall behind", async || (net.node("buyer-2").await["lag"].as_u64()? > 5).then_some(()))
        .await;
    let behind = net.run("verify", &["--wait", "0"]).await;
    assert_eq!(behind.code, Some(3), "{behind:?}");
    assert!(behind.stdout.contains("is missing"), "{behind:?}");
    let with_the_machine = net.node("buyer-1").await["packages"].as_u64().unwrap();
    net.packages("buyer-1", with_the_machine + 50).await;

    let healed = net.run("heal", &[]).await.json();
    assert!(healed["dropped"]["buyer-2"].as_u64().unwrap() > 0, "{healed}");
    net.closed_datasets("machine-1", 6).await;
    let verified = net.run("verify", &[]).await.json();
    assert_eq!(verified["ok"], true, "{verified}");

    // A node keeps its network when it is started again.
    assert_eq!(net.run("kill", &["buyer-2"]).await.code, Some(0));
    assert_eq!(net.run("restart", &["buyer-2"]).await.code, Some(0));
    assert_eq!(net.run("verify", &[]).await.json()["ok"], true);
    for wrong in ["machine-1", "machine-1|machine-1", "machine-1|nobody", "machine-1|"] {
        let refused = net.run("partition", &[wrong]).await;
        assert!(matches!(refused.code, Some(2 | 5)), "{wrong}: {refused:?}");
    }
    assert_eq!(net.run("down", &[]).await.code, Some(0));
    nothing_left(&net.dir(), &id);
}
