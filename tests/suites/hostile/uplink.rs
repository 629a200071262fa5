//! A machine on a metered link: what it sends stays below what is allowed, and everybody is served in the end.

use tributary_tests::{
    home::{Sandbox, stream},
    hostile::TOPIC,
    node::{NodeProcess, command},
    trade,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_metered_machine_serves_a_buyer_at_its_own_rate_and_says_so() {
    let sandbox = Sandbox::new();
    let port = sandbox.port("machine");
    let config = format!(
        "roles: [machine]\nnetwork:\n  listen: [/ip4/127.0.0.1/tcp/{port}]\n  profile: metered\n\
         store: {{ ballast: none }}\nstreams:\n{}  - {{ topic: files, mode: file, access: {{ policy: free }} }}\n",
        stream(TOPIC, ", chunk: { bytes: 4KiB }")
    );
    let machine = NodeProcess::start(&sandbox.home("machine", &config)).await;
    let buyer = NodeProcess::start(&sandbox.buyer("buyer", "")).await;
    trade::follow(&buyer, &machine).await;
    let rates = machine.status().await.traffic.rates;
    assert_eq!((rates.up.total.limit, rates.up.pull.limit), (Some(128 << 10), Some(64 << 10)));

    // More than a second's worth of pulls, so somebody waits.
    let file = sandbox.path().join("file.bin");
    let noise: Vec<u8> = (0..300_000_u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    std::fs::write(&file, &noise[..200_000]).unwrap();
    let dataset = trade::publish(&machine, "files", &file).await;
    trade::know(&buyer, dataset).await;
    trade::request(&buyer, &trade::datasets(&[dataset])).await;
    let pulled = trade::pull(&buyer, &trade::datasets(&[dataset])).await;
    let rates = machine.status().await.traffic.rates.up;
    assert!(rates.pull.held > 0 && rates.pull.bytes >= 200_000, "{rates:?} {pulled:?}");
    assert!(rates.total.bytes >= rates.pull.bytes + rates.gossip.bytes);
    // The buyer has no limit, and counts the same.
    let got = buyer.status().await.traffic.rates.down;
    assert!(got.pull.bytes >= 200_000 && got.total.held == 0, "{got:?}");
    // Announcements went out meanwhile, by gossip or by catch-up.
    let live = trade::ingest(&machine, TOPIC, 0, 40).await;
    trade::know(&buyer, live).await;
    trade::buy(&buyer, live).await;
    let ended = command(machine.home(), &["status"]).await;
    assert!(ended.stdout.contains("of 128.00 KiB/s") && ended.stdout.contains("times held back"), "{ended:?}");
    buyer.stop().await;
    machine.stop().await;
}
