//! Which peers have a machine's feed, and connections to them.

use std::sync::Arc;

use libp2p::{Multiaddr, PeerId, identity, multiaddr::Protocol};
use tributary_protocol::binding::Binding;

use super::{
    super::{Feeds, blocking, error::FollowError},
    handle::Handle,
};

/// The peers that a binding names.
pub(super) fn node_peers(binding: &Binding) -> Vec<PeerId> {
    let peer = |key: &[u8; 32]| {
        let key = identity::ed25519::PublicKey::try_from_bytes(key).ok()?;
        Some(identity::PublicKey::from(key).to_peer_id())
    };
    binding.node_keys.iter().filter_map(peer).collect()
}

impl Feeds {
    /// The peers to ask about a feed: the machine's own nodes first.
    pub(in crate::feeds) async fn peers_of(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let mut peers = self.machine_peers(handle).await?;
        let others: Vec<PeerId> = handle.reach().peers.clone();
        peers.extend(others.into_iter().filter(|peer| !peers.contains(peer)).collect::<Vec<_>>());
        Ok(peers)
    }

    /// The nodes that the machine's newest binding names.
    pub(crate) async fn machine_peers(&self, handle: &Arc<Handle>) -> Result<Vec<PeerId>, FollowError> {
        let handle = Arc::clone(handle);
        Ok(blocking(move || handle.feed().follower().chain().map(|chain| node_peers(chain.current())))
            .await?
            .unwrap_or_default())
    }

    /// Makes sure that there is a connection to a peer.
    pub(crate) async fn reach(&self, handle: &Arc<Handle>, peer: PeerId) -> Result<(), FollowError> {
        let net = self.net()?;
        let known = Arc::clone(handle);
        let addrs = blocking(move || known.feed().row.addrs.clone()).await?;
        let fits = |addr: &Multiaddr| match addr.iter().last() {
            Some(Protocol::P2p(named)) => named == peer,
            _ => true,
        };
        let addrs = addrs.iter().filter_map(|addr| addr.parse().ok()).filter(fits).collect();
        net.connect(peer, addrs).await.map_err(|source| FollowError::Dial { did: handle.did, source: Box::new(source) })
    }
}
