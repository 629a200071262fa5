//! Who is connected to whom: a random graph that hangs together. Knows nothing of messages.

use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

/// Connections that each node opens, beside those of the ring that holds the graph together. So a node has six peers on average,
/// which is the mesh that gossipsub aims at, and two at least.
const OPENED: usize = 2;

/// The peers of each node, by number.
pub(crate) fn random(nodes: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    let mut peers = vec![Vec::new(); nodes];
    let mut connect = |one: usize, other: usize| {
        if one != other && !peers[one].contains(&other) {
            peers[one].push(other);
            peers[other].push(one);
        }
    };
    let mut ring: Vec<usize> = (0..nodes).collect();
    ring.shuffle(rng);
    for (at, node) in ring.iter().enumerate() {
        connect(*node, ring[(at + 1) % nodes]);
    }
    for node in 0..nodes {
        for _ in 0..OPENED {
            connect(node, rng.random_range(0..nodes));
        }
    }
    peers
}
