//! A machine's stolen node key sells what the machine never made.

use tributary_tests::{
    hostile::{Ground, Impostor, Selling, TOPIC},
    node::{NodeProcess, command},
    peer, trade,
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_truncated_and_endless_chunks_are_refused_and_bought_elsewhere() {
    let ground = Ground::start().await;
    let dataset = trade::ingest(&ground.machine, TOPIC, 1000, 40).await;
    for what in [Selling::WrongBytes, Selling::Half, Selling::Endless, Selling::Unasked, Selling::Nonsense] {
        let key = peer::stolen_node_key(ground.machine.home());
        let impostor = Impostor::start(key, &ground.machine_at, what).await;
        let name = format!("{what:?}").to_lowercase();
        let mut misled = NodeProcess::start(&ground.sandbox.buyer(&name, "")).await;
        trade::try_follow(&misled, &impostor.link(&ground.did)).await.unwrap();
        trade::know(&misled, dataset).await;
        trade::request(&misled, &trade::datasets(&[dataset])).await;
        let ended = command(misled.home(), &["pull", "--dataset", &dataset.to_string()]).await;
        assert!(impostor.lies() > 0, "{what:?}: nothing was sold");
        assert!(matches!(ended.code, Some(3 | 6)), "{what:?}: {ended:?}");
        let held = misled.status().await.store.chunks;
        assert_eq!(held, 0, "{what:?}: nothing of it was kept");
        if what != Selling::Half {
            // Only a stream that breaks is nobody's fault.
            let penalty = ended.stderr.contains("wrong") || ended.code == Some(3);
            assert!(penalty, "{what:?}: {ended:?}");
        }
        drop(impostor);
        // The machine has the same peer id, and what it sells is good.
        until("the machine itself", async || trade::try_follow(&misled, &ground.machine.link().await).await.ok()).await;
        trade::buy(&misled, dataset).await;
        assert!(misled.is_alive() && !misled.log().contains("panicked"));
        assert!(misled.peak_memory() < tributary_tests::hostile::MEMORY);
        misled.stop().await;
    }
    ground.stood().await;
}
