//! What a node still knows after it was killed: who is banned and until when, and where its peers are.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tributary_tests::{
    home::{Sandbox, head},
    hostile::{Attacker, Ground, raw},
    node::NodeProcess,
    wait::until,
};

fn book(home: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(home.join("peers.json")).ok()?).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_outlives_a_kill_and_ends_at_its_time() {
    let Ground { mut machine, machine_at, sandbox, .. } = Ground::start().await;
    let home = machine.home().to_owned();
    let offender = Attacker::connect(&machine_at).await;
    while offender.is_connected() {
        let Some(mut stream) = offender.open("/tributary/sync/1").await else { break };
        raw::write(&mut stream, &raw::frame(u32::MAX, &[])).await;
        raw::ending(&mut stream).await;
    }
    offender.thrown_out().await;
    let (key, id) = (offender.key(), offender.id().to_string());
    until("the ban in the book", async || {
        book(&home)?["bans"].as_array()?.iter().any(|ban| ban["peer"] == id.as_str()).then_some(())
    })
    .await;
    machine.kill();

    let machine = NodeProcess::start(&home).await;
    let banned = machine.status().await.banned;
    assert!(banned.len() == 1 && banned[0].peer == id, "{banned:?}");
    assert!(banned[0].left_s.is_some_and(|left| (1..=600).contains(&left)), "{banned:?}");
    assert!(Attacker::connect_as(key.clone(), machine_at.clone()).await.is_none(), "still banned");
    // Others come in.
    drop(Attacker::connect(&machine_at).await);
    machine.stop().await;

    // The same book, after the ban's end.
    let mut page = book(&home).unwrap();
    page["bans"][0]["until_ms"] = json!(1_000);
    fs::write(home.join("peers.json"), page.to_string()).unwrap();
    let machine = NodeProcess::start(&home).await;
    assert!(machine.status().await.banned.is_empty());
    assert!(Attacker::connect_as(key, machine_at).await.is_some(), "its time is over");
    machine.stop().await;
    drop(sandbox);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_the_address_book_is_found_again_without_anybody_who_names_it() {
    let sandbox = Sandbox::new();
    let machine = NodeProcess::start(&sandbox.machine("machine", &[])).await;
    let peer = machine.status().await.peer;
    let (listen, port) = (sandbox.port("machine"), sandbox.port("buyer"));
    let plain = head("buyer", port, "");
    let named = plain.replace("network:\n", &format!("network:\n  peers: [/ip4/127.0.0.1/tcp/{listen}/p2p/{peer}]\n"));
    let home = sandbox.home("buyer", &named);
    let connected = async |node: &NodeProcess| {
        until("the peer to be connected", async || {
            node.status().await.peers.iter().any(|known| known.peer == peer).then_some(())
        })
        .await;
    };
    let buyer = NodeProcess::start(&home).await;
    connected(&buyer).await;
    buyer.stop().await;
    assert_eq!(book(&home).unwrap()["peers"][0]["peer"], peer.as_str());

    fs::write(home.join("config.yaml"), plain).unwrap();
    let mut buyer = NodeProcess::start(&home).await;
    connected(&buyer).await;
    assert!(buyer.feeds().await.is_empty(), "nothing but the book leads there");
    // Neither a kill nor a book that makes no sense keeps a node from starting.
    buyer.kill();
    fs::write(home.join("peers.json"), "[\"what is this\"").unwrap();
    let buyer = NodeProcess::start(&home).await;
    assert!(buyer.log().contains("known peers and bans cannot be read"));
    buyer.stop().await;
    machine.stop().await;
}
