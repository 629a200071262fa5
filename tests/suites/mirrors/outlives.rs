//! The machine is gone, the mirror has its feed.

use tributary_tests::{
    home::{Sandbox, head},
    node::NodeProcess,
    trade,
    wait::until,
};

use super::common::{address, count, entries, has_entries, keeps_all, log_of, machine, mirror, publish, with_network};

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_after_the_machine_died_gets_its_whole_log_from_the_mirror() {
    let sandbox = Sandbox::new();
    let hub_home = sandbox.home("hub", &head("relay", sandbox.port("hub"), ""));
    let hub = NodeProcess::start(&hub_home).await;
    let bootstrap = format!("  discovery: {{ bootstrap: [{}] }}\n", address(&hub).await);
    let machine_home = machine(&sandbox, "", "free");
    let mut machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    let link = machine.link().await;
    publish(&machine, 1, 300).await;
    let mirror_home = mirror(&sandbox, "mirror", &link, "");
    with_network(&mirror_home, &bootstrap);
    let mirror = NodeProcess::start(&mirror_home).await;
    keeps_all(&mirror, 300).await;
    // What is new comes by gossip, with heads that are older than it.
    publish(&machine, 2, 60).await;
    keeps_all(&mirror, 360).await;
    machine.kill();
    let log = log_of(&machine_home, &did);
    has_entries(&mirror, &did, count(&log)).await;
    // A mirror that is started anew, without the machine, serves what it has.
    mirror.stop().await;
    let mirror = NodeProcess::start(&mirror_home).await;
    keeps_all(&mirror, 360).await;

    // One buyer knows the mirror, one the machine's old link and a peer that knows peers.
    let by_address = sandbox.buyer("by-address", "");
    let buyer = NodeProcess::start(&by_address).await;
    let known = trade::try_follow(&buyer, &format!("tributary://{did}?addr={}", address(&mirror).await)).await.unwrap();
    assert_eq!(known.peer, mirror.status().await.peer);
    has_entries(&buyer, &did, count(&log)).await;
    buyer.stop().await;
    assert_eq!(log_of(&by_address, &did), log);

    until("the mirror's announcement", async || {
        let providing = hub.status().await.reach.providing?;
        (providing.records > 0).then_some(())
    })
    .await;
    let by_record = sandbox.buyer("by-record", "");
    with_network(&by_record, &bootstrap);
    let buyer = NodeProcess::start(&by_record).await;
    until("the hub", async || (buyer.status().await.reach.routing_peers > Some(0)).then_some(())).await;
    let known = trade::try_follow(&buyer, &link).await.unwrap();
    assert_eq!(known.peer, mirror.status().await.peer);
    has_entries(&buyer, &did, count(&log)).await;
    buyer.stop().await;
    assert_eq!(log_of(&by_record, &did), log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buyer_that_was_away_for_a_thousand_entries_catches_up_from_the_mirror_alone() {
    let sandbox = Sandbox::new();
    let machine_home = machine(&sandbox, "", "free");
    let mut machine = NodeProcess::start(&machine_home).await;
    let did = machine.status().await.did;
    publish(&machine, 1, 100).await;
    let mirror_home = mirror(&sandbox, "mirror", &machine.link().await, "");
    let mirror = NodeProcess::start(&mirror_home).await;
    let buyer_home = sandbox.buyer("buyer", "");
    with_network(&buyer_home, &format!("  peers: [{}]\n", address(&mirror).await));
    let buyer = NodeProcess::start(&buyer_home).await;
    trade::follow(&buyer, &machine).await;
    keeps_all(&mirror, 100).await;
    let before = entries(&buyer, &did).await;
    assert!(before > 100);
    buyer.stop().await;

    publish(&machine, 2, 1000).await;
    keeps_all(&mirror, 1100).await;
    machine.kill();
    let log = log_of(&machine_home, &did);
    let missing = count(&log) - before;
    assert!(missing >= 1000);

    let asked = mirror.status().await.traffic.sync_served;
    let buyer = NodeProcess::start(&buyer_home).await;
    has_entries(&buyer, &did, count(&log)).await;
    let status = buyer.status().await;
    assert_eq!(status.followed[0].noise, 0, "nothing came twice or in vain");
    // Pages of 256: the machine log in one, the stream's in four; and for each log one question whether there is more. Each
    // catch-up asks that again: there may have been two.
    let pages = mirror.status().await.traffic.sync_served.entries - asked.entries;
    assert!((5..=5 + 2 * 2 * 2).contains(&pages), "{pages} pages for {missing} entries");
    buyer.stop().await;
    assert_eq!(log_of(&buyer_home, &did), log);
}
