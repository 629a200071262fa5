//! Two buyers behind two NATs: with the machine gone, one gets from the other what it bought.

use tributary::control::api::{PeerStatus, Reach, Verdict};
use tributary_protocol::ids::DatasetId;
use tributary_tests::{
    home::Sandbox,
    netns::{Host, Nat, World},
    node::NodeProcess,
    trade,
    wait::{until, until_within},
};

use super::common::{FILES, LONG, buyer, list, machine, peer, relay, reseeder};

const BYTES: usize = 2 << 20;

/// A machine and a relay on the Internet; a buyer that has a file of the machine and reseeds it, and one that wants it.
struct Neighbours {
    hub_id: String,
    hub_node: NodeProcess,
    robot_node: NodeProcess,
    giver: Host,
    giver_node: NodeProcess,
    taker: Host,
    taker_node: NodeProcess,
    dataset: DatasetId,
    _sandbox: Sandbox,
    _world: World,
}

impl Neighbours {
    /// The giver has a place at the relay, or a forwarded port that peers have found. The taker knows one address of it.
    async fn meet(giver_nat: Nat, taker_nat: Nat) -> Option<Self> {
        let world = World::new()?;
        let sandbox = Sandbox::new();
        let hub = world.public("hub", "198.51.100.10");
        let (hub_node, at) = relay(&sandbox, &hub, "198.51.100.10").await;
        let robot = world.public("robot", "198.51.100.20");
        let robot_node = machine(&sandbox, &robot, "").await;
        let path = sandbox.path().join("recording.bin");
        let bytes: Vec<u8> = (0..BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let dataset = trade::publish(&robot_node, FILES, &path).await;

        let giver = world.behind(giver_nat, "giver", "198.51.100.1", "10.1.0");
        let forwarded = giver_nat == Nat::FullCone;
        let giver_node = reseeder(&sandbox, &giver, &list(if forwarded { "peers" } else { "relays" }, &[&at])).await;
        enter(&giver_node, &robot_node, dataset).await;
        trade::pull(&giver_node, &trade::datasets(&[dataset])).await;
        let address = if forwarded { found(&giver_node).await } else { circuit(&giver_node).await };

        let taker = world.behind(taker_nat, "taker", "198.51.100.2", "10.2.0");
        let taker_node = buyer(&sandbox, &taker, &list("peers", &[&at, &address])).await;
        enter(&taker_node, &robot_node, dataset).await;
        let hub_id = hub_node.status().await.peer;
        Some(Self {
            hub_id,
            hub_node,
            robot_node,
            giver,
            giver_node,
            taker,
            taker_node,
            dataset,
            _sandbox: sandbox,
            _world: world,
        })
    }

    /// What each of the two knows of its connection to the other, once both connections are as they should be.
    async fn both(&self, what: &str, is: impl Fn(&PeerStatus) -> bool) {
        for (one, other) in [(&self.giver_node, &self.taker_node), (&self.taker_node, &self.giver_node)] {
            until_within(what, LONG, async || peer(one, other).await.filter(|seen| is(seen)).map(drop)).await;
        }
    }

    /// The machine ends, and the one gets everything from the other.
    async fn all_comes_from_the_neighbour(&mut self) {
        self.robot_node.kill();
        let pulled = trade::pull(&self.taker_node, &trade::datasets(&[self.dataset])).await;
        let giver = self.giver_node.status().await;
        let brought = pulled.sources.iter().find(|source| source.peer == giver.peer).map(|source| source.chunks);
        assert!(pulled.complete && pulled.bytes as usize >= BYTES, "{pulled:?}");
        assert_eq!(brought, Some(pulled.chunks), "{pulled:?}");
        assert!(giver.served.chunks >= pulled.chunks, "{:?}", giver.served);
        let proof = trade::verify(&self.taker_node, self.dataset).await;
        assert_eq!(proof.verdict, Verdict::Proven, "{proof:?}");
    }

    /// Connections that the relay has carried, and carries now.
    async fn carried(&self) -> (u64, u64) {
        let relaying = self.hub_node.status().await.reach.relaying.unwrap();
        (relaying.circuits_served, relaying.circuits)
    }
}

/// Follows the machine, and gets the keys.
async fn enter(node: &NodeProcess, machine: &NodeProcess, dataset: DatasetId) {
    trade::follow(node, machine).await;
    trade::know(node, dataset).await;
    trade::request(node, &trade::datasets(&[dataset])).await;
}

/// The address of a node at its relay.
async fn circuit(node: &NodeProcess) -> String {
    until("a place at the relay", async || node.status().await.reach.relays.into_iter().find_map(|relay| relay.circuit))
        .await
}

/// The address at which peers reach a node whose port is forwarded.
async fn found(node: &NodeProcess) -> String {
    until_within("an address that peers have tested", LONG, async || {
        let status = node.status().await;
        let own = status.reach.addresses.iter().find(|own| own.addr == "/ip4/198.51.100.1/tcp/4600")?;
        (status.reach.reach == Reach::Reachable).then(|| format!("{}/p2p/{}", own.addr, status.peer))
    })
    .await
}

#[tokio::test]
async fn between_symmetric_nats_a_neighbour_gives_through_the_relay() {
    let Some(mut two) = Neighbours::meet(Nat::Symmetric, Nat::Symmetric).await else { return };
    two.all_comes_from_the_neighbour().await;
    let relayed = |seen: &PeerStatus| seen.paths.iter().all(|path| path.relay.as_ref() == Some(&two.hub_id));
    two.both("a relayed connection alone", |seen| !seen.direct && relayed(seen)).await;
    let (served, open) = two.carried().await;
    assert!(served > 0 && open > 0, "{served} circuits served, {open} open");
}

#[tokio::test]
async fn between_port_restricted_nats_a_neighbour_gives_through_a_hole() {
    let Some(mut two) = Neighbours::meet(Nat::PortRestricted, Nat::PortRestricted).await else { return };
    let direct = |seen: &PeerStatus| seen.paths.iter().all(|path| path.direct);
    two.both("direct connections alone", direct).await;
    // It began at the relay, which carries nothing any more.
    until("the end of the relayed connection", async || (two.carried().await.1 == 0).then_some(())).await;
    let (served, _) = two.carried().await;
    assert!(served > 0);
    two.all_comes_from_the_neighbour().await;
    two.both("direct connections alone", direct).await;
    assert_eq!(two.carried().await, (served, 0));
}

#[tokio::test]
async fn behind_a_full_cone_a_neighbour_gives_directly() {
    let Some(mut two) = Neighbours::meet(Nat::FullCone, Nat::Symmetric).await else { return };
    two.all_comes_from_the_neighbour().await;
    two.both("direct connections alone", |seen| seen.paths.iter().all(|path| path.direct)).await;
    assert!(two.giver.router().counted("nat", "forwarded") > 0);
    // Nobody could have come in to the other one.
    assert_eq!(two.taker.router().counted("nat", "forwarded"), 0);
    assert_eq!(two.carried().await.0, 0, "the relay has carried nothing");
}
