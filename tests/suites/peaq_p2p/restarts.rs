//! A node that was started anew between publishing and selling.

use tributary::control::api::{OfferRequest, Offered};
use tributary_tests::{
    delivery::{BUYER, PURCHASE, SESSION, buyer_public, purchase},
    node::NodeProcess,
    wait::soon,
};

use super::{Shop, receive, same};

#[tokio::test]
async fn a_node_that_was_started_anew_delivers_what_it_published_before() {
    let Shop { sandbox, node, input, .. } = Shop::open(700_000).await;
    let home = node.home().to_owned();
    let dataset = node.feeds().await[0].datasets[0].dataset.to_string();
    node.stop().await;

    // What it knew of the plaintexts it sealed is gone; it finds it out again, and the second time remembers.
    let node = NodeProcess::start(&home).await;
    for number in 0..2 {
        let access = sandbox.path().join(format!("access-{number}.json"));
        let request = OfferRequest {
            purchase: format!("{PURCHASE}-{number}"),
            session: SESSION.into(),
            buyer: BUYER.into(),
            dataset: Some(dataset.clone()),
            buyer_key: Some(buyer_public()),
            access_out: Some(access.clone()),
            ..OfferRequest::default()
        };
        let offered: Offered = soon("an offer", node.client().post("/v1/peaq/offer", &request)).await.unwrap();
        let mut terms = purchase(&offered.url, &offered.expires_at, &access);
        terms["purchaseId"] = request.purchase.into();
        let delivery = sandbox.path().join("delivery.json");
        std::fs::write(&delivery, terms.to_string()).unwrap();
        let out = sandbox.path().join(format!("out-{number}"));
        let report = receive(sandbox.path(), &delivery, &out, &[]).await.json();
        assert_eq!(report["totalBytes"], 700_000);
        assert!(same(&input, &out));
    }
    node.stop().await;
}
