//! The machine's feed key is replaced, before the eyes of its followers and behind their backs.

use tributary_tests::{
    home::Sandbox,
    node::{NodeProcess, command},
    trade,
    wait::until,
};

use super::common::{address, count, has_entries, keeps_all, log_of, machine, mirror, publish, with_network};

async fn serial(node: &NodeProcess, serial: u64) {
    until("the new binding", async || {
        let status = node.status().await;
        (status.followed.first()?.binding_serial == Some(serial)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_buyers_go_on_with_a_new_feed_key_whether_they_saw_it_come_or_not() {
    let sandbox = Sandbox::new();
    let machine_home = machine(&sandbox, "", "free");
    let machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    publish(&machine, 1, 40).await;
    let mirror_home = mirror(&sandbox, "mirror", &machine.link().await, "");
    let mirror = NodeProcess::start(&mirror_home).await;
    let buyer_home = sandbox.buyer("buyer", "");
    with_network(&buyer_home, &format!("  peers: [{}]\n", address(&mirror).await));
    let buyer = NodeProcess::start(&buyer_home).await;
    trade::follow(&buyer, &machine).await;
    keeps_all(&mirror, 40).await;

    // While both are online: the machine is offline for as long as it takes.
    machine.stop().await;
    assert_eq!(command(&machine_home, &["key", "rotate"]).await.code, Some(0));
    let machine = NodeProcess::start(&machine_home).await;
    publish(&machine, 2, 40).await;
    keeps_all(&mirror, 80).await;
    serial(&mirror, 1).await;
    serial(&buyer, 1).await;

    // While both are offline; then the mirror sees the machine, and the buyer only the mirror.
    mirror.stop().await;
    buyer.stop().await;
    machine.stop().await;
    assert_eq!(command(&machine_home, &["key", "rotate"]).await.code, Some(0));
    let mut machine = NodeProcess::start(&machine_home).await;
    publish(&machine, 3, 40).await;
    let mirror = NodeProcess::start(&mirror_home).await;
    keeps_all(&mirror, 120).await;
    serial(&mirror, 2).await;
    machine.kill();
    let log = log_of(&machine_home, &did);
    let buyer = NodeProcess::start(&buyer_home).await;
    has_entries(&buyer, &did, count(&log)).await;
    serial(&buyer, 2).await;
    for node in [&mirror, &buyer] {
        let feed = node.status().await.followed.remove(0);
        assert_eq!((feed.equivocations, feed.stale_binding), (0, false));
    }
    buyer.stop().await;
    mirror.stop().await;
    assert_eq!(log_of(&buyer_home, &did), log);
    assert_eq!(log_of(&mirror_home, &did), log);
}
