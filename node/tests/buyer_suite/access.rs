use std::time::Duration;

use tributary::{
    buyer::{AccessError, AccessOutcome},
    feeds::FollowError,
};
use tributary_protocol::{
    access::{GrantError, Range, Selection},
    binding::{Binding, SignedBinding},
    ids::Hash,
    wire::DenyCode,
};

use super::support::{Machine, Mood, Shopper, soon};

fn all_of(dataset: tributary_protocol::ids::DatasetId) -> Selection {
    Selection::new(vec![Range::Dataset(dataset)]).unwrap()
}

const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn grants_reach_the_wallet_and_survive_a_restart() {
    let (machine, shopper) = (Machine::new(20).await, Shopper::new().await);
    machine.announce("/imu");
    let (dataset, _) = machine.dataset("/imu", 3, 1);
    shopper.follow(&machine).await;
    let outcome = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await.unwrap();
    let AccessOutcome::Granted { grants, request_id } = outcome else { panic!("granted") };
    assert_eq!((grants.len(), grants[0].machine, grants[0].request), (1, machine.did, request_id));
    assert!(shopper.buyer.open_requests(&machine.did).await.unwrap().is_empty());
    let shopper = shopper.restart().await;
    assert_eq!(shopper.buyer.grants(Some(&machine.did)), grants);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_names_its_reason() {
    let (machine, shopper) = (Machine::new(21).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    *machine.mood.lock().unwrap() = Mood::Denies;
    let denied = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await;
    match denied {
        Err(AccessError::Denied { code: DenyCode::Policy, reason, .. }) => assert_eq!(reason, "not on the list"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_request_is_asked_for_again_also_after_a_restart() {
    let (machine, shopper) = (Machine::new(22).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    *machine.mood.lock().unwrap() = Mood::Ponders(1);
    let asked = shopper.buyer.request_access(&machine.did, all_of(dataset), Duration::ZERO);
    let AccessOutcome::Pending { request_id } = soon("access", asked).await.unwrap() else { panic!("pending") };
    let shopper = shopper.restart().await;
    let open = shopper.buyer.open_requests(&machine.did).await.unwrap();
    assert_eq!((open.len(), open[0].request_id), (1, request_id));
    let fetched = soon("fetch", shopper.buyer.fetch_access(&machine.did, request_id, WAIT)).await.unwrap();
    assert!(matches!(fetched, AccessOutcome::Granted { .. }));
    assert!(shopper.buyer.open_requests(&machine.did).await.unwrap().is_empty());
    let gone = shopper.buyer.fetch_access(&machine.did, Hash::ZERO, WAIT).await;
    assert!(matches!(gone, Err(AccessError::UnknownRequest(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_ponders_is_polled() {
    let (machine, shopper) = (Machine::new(23).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    *machine.mood.lock().unwrap() = Mood::Ponders(2);
    let outcome = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await.unwrap();
    assert!(matches!(outcome, AccessOutcome::Granted { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_somebody_else_or_by_somebody_else_is_refused() {
    let (machine, shopper) = (Machine::new(24).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    for (mood, other_key) in [(Mood::GrantsToAnother, true), (Mood::ForgesGrants, false)] {
        *machine.mood.lock().unwrap() = mood;
        let refused = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await;
        match refused {
            Err(AccessError::Grant { source: GrantError::OtherKey { .. }, .. }) if other_key => {}
            Err(AccessError::Grant { source: GrantError::Signature(_), .. }) if !other_key => {}
            other => panic!("{other:?}"),
        }
        assert!(shopper.buyer.grants(None).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_something_is_not_asked_for_without_a_payment() {
    let (machine, shopper) = (Machine::new(25).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    *machine.mood.lock().unwrap() = Mood::Charges;
    let asked = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await;
    assert!(matches!(asked, Err(AccessError::PaymentRequired { amount: 5, .. })), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_goes_only_to_a_node_that_the_binding_names() {
    let (machine, shopper) = (Machine::new(26).await, Shopper::new().await);
    let (dataset, _) = machine.dataset("/imu", 1, 1);
    shopper.follow(&machine).await;
    // The machine moves to another node; the old one still answers, and still claims to be it.
    let first = machine.bindings.lock().unwrap()[0].clone();
    let elsewhere = tributary::net::Keypair::generate_ed25519().public().try_into_ed25519().unwrap().to_bytes();
    let moved = Binding { serial: 1, prev: first.hash(), node_keys: vec![elsewhere], ..first.binding().clone() };
    let moved = SignedBinding::sign(moved, &machine.identity).unwrap().co_sign(&machine.owner);
    machine.bindings.lock().unwrap().push(moved);
    soon("catch up", shopper.buyer.feeds().catch_up(&machine.did)).await.unwrap();
    let asked = soon("access", shopper.buyer.request_access(&machine.did, all_of(dataset), WAIT)).await;
    match asked {
        Err(AccessError::Unreachable { source: Some(source), .. }) => {
            assert!(matches!(*source, FollowError::Dial { .. }), "{source:?}");
        }
        other => panic!("{other:?}"),
    }
}
