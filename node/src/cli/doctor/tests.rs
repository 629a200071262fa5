//! What is said about nodes in every situation.

use std::path::Path;

use super::{network::*, *};
use crate::{
    config::Overrides,
    service::status::{
        AccessStatus, AddressState, AddressStatus, HookStatus, InboundStatus, PeerStatus, ProcessStatus, Reach,
        ReachStatus, RelayStatus, ReservationState, ServedStatus, StoreStatus, TrafficStatus, Translation,
        UpgradeStatus,
    },
};

fn config(text: &str) -> Config {
    Config::parse(text, "config.yaml", Path::new(""), &Overrides::none()).expect("valid")
}

fn status(reach: ReachStatus) -> NodeStatus {
    let text = serde_json::json!({
        "version": "0", "did": "did:peaq:0x27b1fdb04752bbc536007a920d24acb045561c26", "roles": [], "peer": "", "now_ms": 0,
        "uptime_s": 0, "listen": ["/ip4/10.0.0.2/tcp/4600/p2p/x"], "links": [], "peers": [], "reach": reach,
        "inbound": InboundStatus::default(), "traffic": TrafficStatus::default(), "incarnation": null,
        "binding_expires_ms": null, "streams": [], "logs": [], "ros2": null, "outbox": null, "pending_requests": 0,
        "access": AccessStatus::default(), "hooks": HookStatus::default(), "followed": [], "subscriptions": [],
        "store": StoreStatus::default(), "served": ServedStatus::default(), "process": ProcessStatus::default(),
        "warnings": [],
    });
    serde_json::from_value(text).expect("a status")
}

fn address(state: AddressState, reason: Option<&str>) -> AddressStatus {
    AddressStatus {
        addr: "/ip4/198.51.100.1/tcp/4600".into(),
        state,
        tested_by: None,
        tested_s: None,
        reason: reason.map(str::to_owned),
    }
}

fn relay(state: ReservationState, reason: Option<&str>) -> RelayStatus {
    RelayStatus {
        relay: "12D3relay".into(),
        addr: "/ip4/198.51.100.10/tcp/4600".into(),
        state,
        circuit: None,
        circuit_s: None,
        circuit_bytes: None,
        reason: reason.map(str::to_owned),
        failures: 3,
    }
}

fn found(reach: ReachStatus, role: &str, name: &str) -> Check {
    let checks = of_node(&status(reach), &config(&format!("roles: [{role}]")));
    checks.into_iter().find(|check| check.name == name).expect("it is checked")
}

#[test]
fn a_machine_that_nobody_reaches_is_a_failure_and_a_buyer_is_none() {
    let behind = |relays| ReachStatus {
        reach: Reach::Unreachable,
        addresses: vec![address(AddressState::Unreachable, Some("a peer could not connect to it from outside"))],
        relays,
        ..ReachStatus::default()
    };
    let machine = found(behind(Vec::new()), "machine", "reachable");
    assert_eq!(machine.state, State::Failed);
    assert!(machine.message.contains("could not connect") && machine.hint.expect("a hint").contains("network.relays"));
    assert_eq!(found(behind(Vec::new()), "buyer", "reachable").state, State::Ok);
    let reserved = behind(vec![relay(ReservationState::Reserved, None)]);
    let machine = found(reserved, "machine", "reachable");
    assert!(machine.state == State::Ok && machine.message.contains("through a relay"), "{machine:?}");
}

#[test]
fn what_is_known_about_addresses_is_said_with_how() {
    let reach = ReachStatus {
        reach: Reach::Reachable,
        addresses: vec![address(AddressState::Reachable, None)],
        ..ReachStatus::default()
    };
    assert!(found(reach, "machine", "reachable").message.contains("/ip4/198.51.100.1/tcp/4600 (tested by a peer)"));
    let unknown = found(ReachStatus::default(), "machine", "reachable");
    assert!(unknown.state == State::Unknown && unknown.message.contains("no connected peer can test"), "{unknown:?}");
    let symmetric = ReachStatus { translation: Translation::PortPerPeer, ..ReachStatus::default() };
    assert_eq!(found(symmetric, "machine", "nat").state, State::Warning);
}

#[test]
fn a_relay_that_gives_no_place_says_why_and_what_to_do() {
    for (reason, hint) in [
        ("Connection refused", "running"),
        ("Remote does not support the `/libp2p/circuit/relay/0.2.0/hop` protocol", "no relay"),
        ("Invalid expiration timestamp in reservation.", "clock"),
    ] {
        let reach =
            ReachStatus { relays: vec![relay(ReservationState::Failed, Some(reason))], ..ReachStatus::default() };
        let check = found(reach, "machine", "relay");
        assert!(check.state == State::Failed && check.message.contains(reason), "{check:?}");
        assert!(check.hint.expect("a hint").contains(hint));
    }
}

#[test]
fn every_relayed_peer_has_a_reason() {
    let upgrade = |error: Option<&str>| Some(UpgradeStatus { age_s: 9, error: error.map(str::to_owned) });
    let peer = |upgrade| PeerStatus {
        peer: "12D3peer".into(),
        addr: String::new(),
        agent: String::new(),
        transport: "quic".into(),
        inbound: false,
        direct: false,
        relay: Some("12D3relay".into()),
        paths: Vec::new(),
        upgrade,
        rtt_ms: None,
        score: 0.0,
        topics: 0,
    };
    let why = |upgrade, hole_punching, translation| {
        let reach = ReachStatus { hole_punching, translation, ..ReachStatus::default() };
        let reports = peers(&NodeStatus { peers: vec![peer(upgrade)], ..status(reach) });
        assert_eq!(reports[0].path, "relayed by 12D3relay over quic");
        reports[0].why_not_direct.clone().expect("a reason")
    };
    assert!(why(None, false, Translation::Unknown).contains("switched off"));
    assert!(why(None, true, Translation::Unknown).contains("no attempt"));
    let tried = why(upgrade(Some("Giving up after 3 dial attempts")), true, Translation::PortPerPeer);
    assert!(tried.contains("9 s ago: Giving up") && tried.contains("symmetric"), "{tried}");
}

#[test]
fn the_end_tells_what_is_wrong_here_from_what_is_wrong_elsewhere() {
    let report = |checks: &[(Area, State)]| Report {
        running: false,
        verdict: State::Ok,
        checks: checks.iter().map(|(area, state)| Check::new(*area, "x", *state, "")).collect(),
        peers: Vec::new(),
    };
    let code = |checks: &[(Area, State)]| report(checks).end().err().map(|error| error.code);
    assert_eq!(code(&[(Area::Local, State::Warning), (Area::Network, State::Unknown)]), None);
    assert_eq!(code(&[(Area::Local, State::Ok), (Area::Network, State::Failed)]), Some(Exit::Network));
    assert_eq!(code(&[(Area::Local, State::Failed), (Area::Network, State::Failed)]), Some(Exit::Failed));
}
